"""``/v1/batches``: files of requests, answered in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import Response

from tunewise.server.access import CallerDep
from tunewise.server.batches import service
from tunewise.server.batches.runner import BatchRunner
from tunewise.server.batches.tables import Batch
from tunewise.server.database import reading, writing
from tunewise.server.idempotency import idempotent
from tunewise.server.paging import page
from tunewise.server.state import StateDep

routes = APIRouter(prefix="/v1/batches", tags=["batches"])
"""In either dialect."""


@routes.post("")
def create(
    asked: service.CreateBatch, request: Request, state: StateDep, caller: CallerDep
) -> Response:
    """Make a batch from a file that was uploaded for it."""
    with writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            return service.batch_object(service.create(session, state.settings, caller, asked))

        answer = idempotent(session, caller, request, make)
    request.app.state.batches.wake()
    return answer


@routes.get("")
def index(
    state: StateDep,
    caller: CallerDep,
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
) -> dict[str, Any]:
    """The project's batches, newest first."""
    owner = [Batch.project == caller.project]
    with reading(state.sessions) as session:
        found = page(session, Batch, owner=owner, after=after, limit=limit)
    return found.as_list(service.batch_object)


@routes.get("/{batch_id}")
def retrieve(batch_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One batch."""
    with reading(state.sessions) as session:
        return service.batch_object(service.find(session, caller.project, batch_id))


@routes.post("/{batch_id}/cancel")
def cancel(batch_id: str, request: Request, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """End a batch; answers that are there are kept."""
    with writing(state.sessions) as session:
        shown = service.batch_object(service.cancel(session, caller.project, batch_id))
    request.app.state.batches.wake()
    return shown


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    state = app.state.tunewise
    state.file_users.append(service.file_user)
    runner = app.state.batches = BatchRunner(state, app)
    async with runner.running():
        yield


router = APIRouter(lifespan=_running)
router.include_router(routes)
