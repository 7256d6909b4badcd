"""``/v1/files``: upload, list, look at, read, delete."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tunewise.server.access import Caller, CallerDep
from tunewise.server.blobs import Received
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError
from tunewise.server.file_store import (
    RESULTS,
    add_file,
    file_object,
    find_file,
    forget,
    visible_files,
)
from tunewise.server.forms import Form, read_form
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs.training_files import check_upload
from tunewise.server.paging import Order, page
from tunewise.server.state import ServerState, StateDep
from tunewise.server.tables import File

router = APIRouter(prefix="/v1/files", tags=["files"])

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
MONTH = 30 * 24 * 3600
_BASE64 = "application/base64"
_HOUR = 3600
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


class Expiry(BaseModel):
    """When a file goes by itself."""

    model_config = ConfigDict(extra="forbid")

    anchor: Annotated[str, Field(pattern=r"^created_at$")]
    seconds: int = Field(ge=_HOUR, le=MONTH)


@router.post("")
async def create(request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Store an uploaded file. A file for fine-tuning is checked line by line first."""
    with state.blobs.receive() as incoming:
        form = await read_form(request, "file", incoming, state.settings.max_file_bytes)
        purpose = checked_purpose(form.fields.get("purpose"))
        expires_after = _expiry(form)
        received = await state.pools.files.run(caller, incoming.finish)
        return await state.pools.files.run(
            caller, _store, request, state, caller, received, form, purpose, expires_after
        )


def _store(
    request: Request,
    state: ServerState,
    caller: Caller,
    received: Received,
    form: Form,
    purpose: str,
    expires_after: int | None,
) -> Response:
    check_content(received.path, purpose)
    asked = json.dumps([form.filename, purpose, expires_after, received.sha256])
    with writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            file = add_file(
                session,
                state.blobs,
                received,
                project=caller.project,
                filename=form.filename or "",
                purpose=purpose,
                expires_after=expires_after,
            )
            return file_object(file)

        return idempotent(session, caller, request, make, asked=asked)


@router.get("")
def list_files(
    state: StateDep,
    caller: CallerDep,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 10_000,
    order: Order = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    """The project's files, newest first."""
    where = visible_files(caller.project)
    if purpose is not None:
        where.append(File.purpose == purpose)
    with reading(state.sessions) as session:
        found = page(
            session, File, owner=[File.project == caller.project], where=where,
            after=after, limit=limit, order=order,
        )  # fmt: skip
        return found.as_list(file_object, empty_id="")


@router.get("/{file_id}")
def retrieve(file_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One file's description."""
    with reading(state.sessions) as session:
        return file_object(find_file(session, caller.project, file_id))


@router.get("/{file_id}/content")
def content(file_id: str, request: Request, state: StateDep, caller: CallerDep) -> Response:
    """One file's bytes, always as a download: no browser shows them as a page of ours."""
    with reading(state.sessions) as session:
        file = find_file(session, caller.project, file_id)
    path, headers = (
        state.blobs.verified(file.blob),
        {"Content-Disposition": _disposition(file.filename)},
    )
    if file.purpose == RESULTS and _as_base64(request, state):
        return Response(base64.b64encode(path.read_bytes()), media_type=_BASE64, headers=headers)
    return FileResponse(path, media_type=_media_type(file), headers=headers)


def _as_base64(request: Request, state: ServerState) -> bool:
    """Whether a job's result file is wanted in base64, as programs written for OpenAI read it."""
    accepted = request.headers.get("accept", "").lower()
    if _BASE64 in accepted or "text/csv" in accepted:
        return _BASE64 in accepted
    return state.settings.result_files == "base64"


@router.delete("/{file_id}")
def delete(file_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a file, unless something still needs it."""
    with writing(state.sessions) as session:
        file = find_file(session, caller.project, file_id)
        for user in state.file_users:
            if needed_by := user(session, file.id):
                raise ApiError(
                    400,
                    f"{needed_by} still uses the file {file.id}. Wait for it or cancel it, then "
                    "delete the file.",
                    param="file_id",
                    code="file_in_use",
                )
        blob = forget(file)
    state.blobs.collect({blob})
    return {"id": file_id, "object": "file", "deleted": True}


def checked_purpose(purpose: str | None) -> str:
    """``purpose``, if users may upload files for it.

    Raises:
        ApiError: 400.
    """
    if purpose is None:
        raise ApiError(
            400, "Missing required parameter: 'purpose'.", param="purpose",
            code="missing_required_parameter",
        )  # fmt: skip
    if purpose not in PURPOSES:
        raise ApiError(
            400,
            f"'{purpose[:64]}' is not one of {list(PURPOSES)} - 'purpose'",
            param="purpose",
            code="invalid_value",
        )
    return purpose


def check_content(path: Path, purpose: str) -> None:
    """Refuse a file that its purpose cannot use, while its sender still looks.

    Raises:
        ApiError: 400, with the lines that are wrong.
    """
    if purpose == "fine-tune":
        check_upload(path)


def _expiry(form: Form) -> int | None:
    anchor = form.fields.get("expires_after[anchor]")
    seconds = form.fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        # OpenAI's default as well: files of batches go after 30 days, all others stay.
        return MONTH if form.fields.get("purpose") == "batch" else None
    if anchor != "created_at":
        raise ApiError(
            400, "Invalid value for 'expires_after[anchor]': it should be 'created_at'.",
            param="expires_after.anchor", code="invalid_value",
        )  # fmt: skip
    text = seconds or ""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and _HOUR <= int(text) <= MONTH):
        raise ApiError(
            400,
            "Invalid value for 'expires_after[seconds]': it should be a whole number from "
            f"{_HOUR} (an hour) to {MONTH} (30 days).",
            param="expires_after.seconds",
            code="invalid_value",
        )
    return int(text)


def _media_type(file: File) -> str:
    """Nothing that a browser would run or show, whatever the file is called."""
    kind = Path(file.filename.lower()).suffix
    return {".jsonl": "application/jsonl", ".ndjson": "application/jsonl", ".csv": "text/csv"}.get(
        kind, "application/octet-stream"
    )


def _disposition(filename: str) -> str:
    if _PLAIN_NAME.fullmatch(filename):
        return f'attachment; filename="{filename}"'
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
