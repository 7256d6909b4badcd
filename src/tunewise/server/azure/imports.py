"""``POST …/files/import``: the server fetches the file itself."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewise.server.access import Caller, CallerDep
from tunewise.server.azure.fetching import fetch
from tunewise.server.blobs import Received
from tunewise.server.database import writing
from tunewise.server.file_store import add_file, file_object
from tunewise.server.files import check_content, checked_purpose
from tunewise.server.idempotency import idempotent
from tunewise.server.state import ServerState, StateDep


class FileImport(BaseModel):
    """The body of the request; ``content_url`` is readable without a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: str
    filename: str = Field(min_length=1, max_length=4096)
    content_url: str = Field(min_length=1, max_length=8192)


async def import_file(
    asked: FileImport, request: Request, state: StateDep, caller: CallerDep
) -> Response:
    """Fetch a file and store it, as if it had been uploaded; answers when it is here."""
    purpose = checked_purpose(asked.purpose)
    settings = state.settings
    with state.blobs.receive() as incoming:

        async def write(data: bytes) -> None:
            await run_in_threadpool(incoming.write, data)

        await fetch(
            asked.content_url,
            write,
            most=settings.max_file_bytes,
            seconds=settings.import_seconds,
            allowed=settings.import_hosts,
        )
        received = await state.pools.files.run(caller, incoming.finish)
        return await state.pools.files.run(
            caller, _store, request, state, caller, received, asked.filename, purpose
        )


def _store(
    request: Request,
    state: ServerState,
    caller: Caller,
    received: Received,
    filename: str,
    purpose: str,
) -> Response:
    check_content(received.path, purpose)
    with writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            file = add_file(
                session,
                state.blobs,
                received,
                project=caller.project,
                filename=filename,
                purpose=purpose,
            )
            return file_object(file)

        return idempotent(session, caller, request, make, status=201)
