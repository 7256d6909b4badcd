"""``/v1/fine_tuning``: jobs, their events and checkpoints, and who may use a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from tunewise.server.access import CallerDep, project_called, require_admin
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs import permissions, service
from tunewise.server.jobs.refused import JobRefused
from tunewise.server.jobs.schema import (
    CreateJob,
    Permit,
    checkpoint_object,
    event_object,
    job_object,
    permission_object,
)
from tunewise.server.jobs.tables import CheckpointPermission, Job, JobEvent, TunedModel
from tunewise.server.paging import page
from tunewise.server.state import ServerState, StateDep

router = APIRouter(prefix="/v1/fine_tuning", tags=["fine-tuning"])

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


@router.post("/jobs")
def create(asked: CreateJob, request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Make a job from a file that was uploaded."""
    with answering(), writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            job = service.create(session, state.settings, caller.project, asked)
            return job_object(job, state.settings.organization)

        answer = idempotent(session, caller, request, make)
    state.jobs.wake()
    return answer


@router.get("/jobs")
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
    return found.as_list(lambda job: job_object(job, state.settings.organization))


def _labels(request: Request) -> list[Any]:
    pairs = {}
    for name, value in request.query_params.multi_items():
        if match := _LABEL.fullmatch(name):
            pairs[match[1]] = value
        elif name == "metadata" and value in ("null", ""):
            return service.labelled(None)
    return service.labelled(pairs) if pairs else []


@router.get("/jobs/{job_id}")
def retrieve(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One job."""
    with answering(), reading(state.sessions) as session:
        job = service.find(session, caller.project, job_id)
    return job_object(job, state.settings.organization)


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """End a job for good."""
    return _change(state, caller.project, job_id, service.cancel)


@router.post("/jobs/{job_id}/pause")
def pause(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Let a job make a checkpoint and stop."""
    return _change(state, caller.project, job_id, service.pause)


@router.post("/jobs/{job_id}/resume")
def resume(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Let a paused job go on."""
    return _change(state, caller.project, job_id, service.resume)


def _change(
    state: ServerState, project: str, job_id: str, change: Callable[[Session, str, str], Job]
) -> dict[str, Any]:
    with answering(), writing(state.sessions) as session:
        job = change(session, project, job_id)
        shown = job_object(job, state.settings.organization)
    state.jobs.wake()
    return shown


@router.get("/jobs/{job_id}/events")
def list_events(
    job_id: str, state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """What happened to a job, newest first."""
    with answering(), reading(state.sessions) as session:
        job = service.find(session, caller.project, job_id)
        owner = [JobEvent.job_id == job.id]
        found = page(session, JobEvent, owner=owner, after=after, limit=limit)
    return found.as_list(event_object)


@router.get("/jobs/{job_id}/checkpoints")
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
            after=after,
            limit=limit,
        )
    return found.as_list(checkpoint_object)


# Names of checkpoints hold colons and may hold slashes: `ft:tunewise/tiny:acme::a1B2c3d4`.
_PERMISSIONS = "/checkpoints/{checkpoint:path}/permissions"


@router.get(_PERMISSIONS)
def list_permissions(
    checkpoint: str,
    state: StateDep,
    caller: CallerDep,
    project_id: Annotated[str | None, Query(max_length=128)] = None,
    after: After = None,
    limit: Limit = 10,
    order: Literal["ascending", "descending"] = "descending",
) -> dict[str, Any]:
    """Which other projects may use a checkpoint."""
    require_admin(caller)
    with answering(), reading(state.sessions) as session:
        permissions.tuned(session, checkpoint)
        wanted = None if project_id is None else project_called(session, project_id)
        grantee = wanted.id if wanted is not None else project_id
        where = [] if grantee is None else [CheckpointPermission.grantee == grantee]
        found = page(
            session,
            CheckpointPermission,
            owner=[CheckpointPermission.model == checkpoint],
            where=where,
            after=after,
            limit=limit,
            order="asc" if order == "ascending" else "desc",
        )
    return found.as_list(permission_object)


@router.post(_PERMISSIONS)
def create_permissions(
    checkpoint: str, asked: Permit, state: StateDep, caller: CallerDep
) -> dict[str, Any]:
    """Let other projects use a checkpoint."""
    require_admin(caller)
    with answering(), writing(state.sessions) as session:
        made = permissions.permit(session, checkpoint, asked.project_ids)
        data = [permission_object(permission) for permission in made]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": False,
    }


@router.delete(_PERMISSIONS + "/{permission_id}")
def delete_permission(
    checkpoint: str, permission_id: str, state: StateDep, caller: CallerDep
) -> dict[str, Any]:
    """Take a permission back."""
    require_admin(caller)
    with answering(), writing(state.sessions) as session:
        permissions.forbid(session, checkpoint, permission_id)
    return {"object": "checkpoint.permission", "id": permission_id, "deleted": True}
