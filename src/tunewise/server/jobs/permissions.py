"""Which other projects may use a tuned model or checkpoint: an admin's to decide."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.access import project_called
from tunewise.server.ids import new_id
from tunewise.server.jobs.refused import JobRefused
from tunewise.server.jobs.tables import CheckpointPermission, TunedModel
from tunewise.server.tables import Project

_SHOWN = 20


def permit(session: Session, name: str, grantees: list[str]) -> list[CheckpointPermission]:
    """Let other projects use a model; those that may already are in the answer too.

    Args:
        grantees: ids of projects, or their names.

    Raises:
        JobRefused: ``model_not_found`` or ``project_not_found``.
    """
    model = tuned(session, name)
    made = []
    for grantee in dict.fromkeys(_project(session, name).id for name in grantees):
        permission = session.scalar(
            select(CheckpointPermission).where(
                CheckpointPermission.model == name, CheckpointPermission.grantee == grantee
            )
        )
        if permission is None:
            permission = CheckpointPermission(
                id=new_id("cp_"), project=model.project, model=name, grantee=grantee
            )
            session.add(permission)
            session.flush()
        made.append(permission)
    return made


def _project(session: Session, name: str) -> Project:
    project = project_called(session, name)
    if project is None:
        known = session.scalars(select(Project.name).order_by(Project.name).limit(_SHOWN)).all()
        raise JobRefused(
            "project_not_found",
            f"No such project: {name[:100]}. There is: {', '.join(known)} (ids: GET "
            "/v1/organization/projects).",
            "project_ids",
        )
    return project


def forbid(session: Session, name: str, permission_id: str) -> None:
    """Take a permission back.

    Raises:
        JobRefused: ``model_not_found`` or ``permission_not_found``.
    """
    tuned(session, name)
    permission = session.scalar(
        select(CheckpointPermission).where(
            CheckpointPermission.model == name, CheckpointPermission.id == permission_id
        )
    )
    if permission is None:
        raise JobRefused("permission_not_found", f"No such permission: {permission_id[:100]}")
    session.delete(permission)


def tuned(session: Session, name: str) -> TunedModel:
    """The tuned model or checkpoint of this name, whosever it is: for admins.

    Raises:
        JobRefused: ``model_not_found``.
    """
    model = session.scalar(
        select(TunedModel).where(TunedModel.name == name, TunedModel.deleted_at.is_(None))
    )
    if model is None:
        raise JobRefused("model_not_found", f"No such checkpoint: {name[:200]}")
    return model
