"""``/v1/fine_tuning``: jobs, their events and checkpoints, and who may use a checkpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tunewise.server.access import CallerDep, project_called, require_admin
from tunewise.server.database import reading, writing
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs import permissions, service
from tunewise.server.jobs.routes import After, Dialect, Limit, answering, job_routes
from tunewise.server.jobs.schema import (
    CreateJob,
    Permit,
    checkpoint_object,
    event_object,
    job_object,
    permission_object,
)
from tunewise.server.jobs.tables import CheckpointPermission
from tunewise.server.paging import page
from tunewise.server.state import StateDep

others = APIRouter(prefix="/v1", tags=["fine-tuning"])
"""All but what is asked about jobs, which each dialect shows in its own shapes."""


@others.post("/fine_tuning/jobs")
def create(asked: CreateJob, request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Make a job from a file that was uploaded."""
    with answering(), writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            job = service.create(session, state.settings, caller.project, asked)
            return job_object(job, state.settings.organization)

        answer = idempotent(session, caller, request, make)
    state.jobs.wake()
    return answer


# Names of checkpoints hold colons and may hold slashes: `ft:tunewise/tiny:acme::a1B2c3d4`.
_PERMISSIONS = "/fine_tuning/checkpoints/{checkpoint:path}/permissions"


@others.get(_PERMISSIONS)
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


@others.post(_PERMISSIONS)
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


@others.delete(_PERMISSIONS + "/{permission_id}")
def delete_permission(
    checkpoint: str, permission_id: str, state: StateDep, caller: CallerDep
) -> dict[str, Any]:
    """Take a permission back."""
    require_admin(caller)
    with answering(), writing(state.sessions) as session:
        permissions.forbid(session, checkpoint, permission_id)
    return {"object": "checkpoint.permission", "id": permission_id, "deleted": True}


router = APIRouter()
router.include_router(others)
router.include_router(
    job_routes(
        Dialect(
            job=job_object,
            event=lambda event, job, organization: event_object(event),
            checkpoint=lambda model, job: checkpoint_object(model),
        )
    ),
    prefix="/v1",
)
