"""What is done now and then: expired files and uploads go, usage is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import delete, select
from starlette.concurrency import run_in_threadpool

from tunewise.server.chat.retention import forget_expired
from tunewise.server.clock import surely
from tunewise.server.database import writing
from tunewise.server.errors import told
from tunewise.server.file_store import forget
from tunewise.server.idempotency import KEPT_SECONDS
from tunewise.server.state import ServerState
from tunewise.server.tables import File, StoredAnswer, Upload, UploadPart

EVERY_SECONDS = 15.0
_AT_ONCE = 500


@asynccontextmanager
async def sweeping(state: ServerState) -> AsyncIterator[None]:
    """Sweep in the background while the server runs."""
    task = asyncio.create_task(_loop(state))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _loop(state: ServerState) -> None:
    begun = False
    while True:
        try:
            await run_in_threadpool(sweep, state)
            if not begun:
                await run_in_threadpool(state.blobs.collect_all)
                begun = True
        except Exception as error:
            told(error, "the sweep failed")
        await asyncio.sleep(EVERY_SECONDS)


def sweep(state: ServerState) -> None:
    """Remove what has expired, with the contents that nothing refers to any more.

    A file that a job uses is kept until the job is done with it.
    """
    state.usage.flush()
    freed: set[str] = set()
    with writing(state.sessions) as session:
        session.execute(
            delete(StoredAnswer).where(StoredAnswer.created_at < surely() - KEPT_SECONDS)
        )
        forget_expired(session, state.settings)
        expired = select(File).where(File.deleted_at.is_(None), File.expires_at <= surely())
        for file in session.scalars(expired.limit(_AT_ONCE)).all():
            if not any(user(session, file.id) for user in state.file_users):
                freed.add(forget(file))
        ended = select(Upload.id).where(
            (Upload.expires_at <= surely()) | Upload.status.in_(("completed", "cancelled"))
        )
        parts = select(UploadPart).where(UploadPart.upload_id.in_(ended)).limit(_AT_ONCE)
        # Parts of completed uploads are here where the server was killed before it dropped them.
        for part in session.scalars(parts).all():
            freed.add(part.blob)
            session.delete(part)
    state.blobs.collect(freed)
