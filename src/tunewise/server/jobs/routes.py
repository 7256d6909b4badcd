"""What every dialect asks about jobs: the same handlers, each with its dialect's shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from tunewise.server.access import CallerDep
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError
from tunewise.server.jobs import service
from tunewise.server.jobs.refused import JobRefused
from tunewise.server.jobs.tables import Job, JobEvent, TunedModel
from tunewise.server.paging import page
from tunewise.server.state import ServerState, StateDep

STATUSES = {
    "job_not_found": 404,
    "model_not_found": 404,
    "permission_not_found": 404,
    "project_not_found": 404,
    "too_many_jobs": 429,
}
"""Of HTTP, for each of the service's refusals that is not a plain 400."""

_LABEL = re.compile(r"metadata\[([^\]]*)\]")
Limit = Annotated[int, Query(ge=0, le=1000)]
After = Annotated[str | None, Query(max_length=128)]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API shows jobs.

    Attributes:
        job: a job, given the organisation's name.
        event: one of its events, likewise.
        checkpoint: one of its checkpoints.
        our_checkpoint: our id of a checkpoint that the API names by ``after``.
    """

    job: Callable[[Job, str], dict[str, Any]]
    event: Callable[[JobEvent, Job, str], dict[str, Any]]
    checkpoint: Callable[[TunedModel, Job], dict[str, Any]]
    our_checkpoint: Callable[[str], str] = str


@contextmanager
def answering() -> Iterator[None]:
    """Turn the service's refusals into answers."""
    try:
        yield
    except JobRefused as error:
        raise ApiError(
            STATUSES.get(error.code, 400),
            error.message,
            code=error.code,
            param=error.param,
            type="requests" if error.code == "too_many_jobs" else "invalid_request_error",
        ) from None


def job_routes(dialect: Dialect) -> APIRouter:
    """Routes below ``/fine_tuning/jobs``, all but the one that makes a job."""
    router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])

    def change(
        state: ServerState, project: str, job_id: str, act: Callable[[Session, str, str], Job]
    ) -> dict[str, Any]:
        with answering(), writing(state.sessions) as session:
            job = act(session, project, job_id)
            shown = dialect.job(job, state.settings.organization)
        state.jobs.wake()
        return shown

    @router.get("")
    def list_jobs(
        request: Request, state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 20
    ) -> dict[str, Any]:
        """The project's jobs, newest first; ``metadata[key]=value`` chooses."""
        with reading(state.sessions) as session:
            found = page(
                session,
                Job,
                owner=[Job.project == caller.project],
                where=[Job.deleted_at.is_(None), *_labels(request)],
                after=after,
                limit=limit,
            )
        return found.as_list(lambda job: dialect.job(job, state.settings.organization))

    @router.get("/{job_id}")
    def retrieve(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
        """One job."""
        with answering(), reading(state.sessions) as session:
            job = service.find(session, caller.project, job_id)
        return dialect.job(job, state.settings.organization)

    @router.post("/{job_id}/cancel")
    def cancel(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
        """End a job for good."""
        return change(state, caller.project, job_id, service.cancel)

    @router.post("/{job_id}/pause")
    def pause(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
        """Let a job make a checkpoint and stop."""
        return change(state, caller.project, job_id, service.pause)

    @router.post("/{job_id}/resume")
    def resume(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
        """Let a paused job go on."""
        return change(state, caller.project, job_id, service.resume)

    @router.get("/{job_id}/events")
    def list_events(
        job_id: str, state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 20
    ) -> dict[str, Any]:
        """What happened to a job, newest first."""
        with answering(), reading(state.sessions) as session:
            job = service.find(session, caller.project, job_id)
            owner = [JobEvent.job_id == job.id]
            found = page(session, JobEvent, owner=owner, after=after, limit=limit)
        return found.as_list(lambda event: dialect.event(event, job, state.settings.organization))

    @router.get("/{job_id}/checkpoints")
    def list_checkpoints(
        job_id: str, state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 10
    ) -> dict[str, Any]:
        """The weights after each of the last three epochs, newest first."""
        with answering(), reading(state.sessions) as session:
            job = service.find(session, caller.project, job_id)
            found = page(
                session,
                TunedModel,
                owner=[TunedModel.job_id == job.id, TunedModel.step.is_not(None)],
                where=[TunedModel.deleted_at.is_(None)],
                after=None if after is None else dialect.our_checkpoint(after),
                limit=limit,
            )
        return found.as_list(lambda model: dialect.checkpoint(model, job))

    return router


def _labels(request: Request) -> list[Any]:
    pairs = {}
    for name, value in request.query_params.multi_items():
        if match := _LABEL.fullmatch(name):
            pairs[match[1]] = value
        elif name == "metadata" and value in ("null", ""):
            return service.labelled(None)
    return service.labelled(pairs) if pairs else []
