"""``/v1/organization/projects``: the server's projects, for holders of an admin key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import select, tuple_

from tunewise.server.access import CallerDep, project_called, require_admin
from tunewise.server.database import reading
from tunewise.server.errors import ApiError
from tunewise.server.state import StateDep
from tunewise.server.tables import Project

router = APIRouter(prefix="/v1/organization/projects", tags=["organization"])


@router.get("")
def list_projects(
    state: StateDep,
    caller: CallerDep,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    include_archived: bool = False,
) -> dict[str, Any]:
    """All projects, the oldest first. None is ever archived here."""
    require_admin(caller)
    order = (Project.created_at, Project.id)
    query = select(Project).order_by(*order).limit(limit + 1)
    with reading(state.sessions) as session:
        if after is not None:
            last = session.get(Project, after)
            if last is None:
                raise ApiError(
                    400, f"No object with id '{after}' to list after.", param="after",
                    code="invalid_value",
                )  # fmt: skip
            query = query.where(tuple_(*order) > (last.created_at, last.id))
        rows = session.scalars(query).all()
    data = [_project_object(project) for project in rows[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


@router.get("/{project_id}")
def retrieve(project_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One project, by its id or its name."""
    require_admin(caller)
    with reading(state.sessions) as session:
        project = project_called(session, project_id)
    if project is None:
        raise ApiError(
            404, f"No such project: {project_id[:100]}", param="project_id",
            code="project_not_found",
        )  # fmt: skip
    return _project_object(project)


def _project_object(project: Project) -> dict[str, Any]:
    return {
        "object": "organization.project",
        "id": project.id,
        "name": project.name,
        "created_at": project.created_at,
        "archived_at": None,
        "status": "active",
    }
