"""``…/checkpoints/{checkpoint}/copy``: a checkpoint for another account (a preview at Azure).

Accounts are this server's projects: the copy for the account ``acme`` is leave for the project
``acme`` to use the checkpoint, under the same name. The weights are not doubled.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller, CallerDep, require_admin
from tunewise.server.azure import names
from tunewise.server.azure.tables import CheckpointCopy
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError
from tunewise.server.ids import new_id
from tunewise.server.jobs import permissions, service
from tunewise.server.jobs.routes import answering
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.state import StateDep
from tunewise.server.tables import Project

PATH = "/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint:path}/copy"

_ACCOUNT = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.CognitiveServices/accounts/"
    r"(?P<account>[^/]+)",
    re.IGNORECASE,
)
Preview = Annotated[str | None, Header(alias="aoai-copy-ft-checkpoints")]


class Copy(BaseModel):
    """Where a checkpoint is to be; ``region`` is shown again and means nothing here."""

    model_config = ConfigDict(frozen=True)

    destination: str = Field(alias="destinationResourceId", max_length=1024)
    region: str = Field(max_length=64)


def create(
    job_id: str,
    checkpoint: str,
    asked: Copy,
    state: StateDep,
    caller: CallerDep,
    preview: Preview = None,
) -> dict[str, Any]:
    """Let another account use a checkpoint; an admin's to decide, as all permissions are."""
    _check_preview(preview)
    require_admin(caller)
    with answering(), writing(state.sessions) as session:
        job, model = _find(session, caller, job_id, checkpoint)
        grantee = _project(session, asked.destination)
        if grantee != caller.project:
            permissions.permit(session, model.name, [grantee])
        same = select(CheckpointCopy).where(
            CheckpointCopy.model == model.name, CheckpointCopy.destination == asked.destination
        )
        if session.scalar(same) is None:
            copy = CheckpointCopy(
                id=new_id("ftcopy"),
                project=caller.project,
                model=model.name,
                destination=asked.destination,
                region=asked.region,
            )
            session.add(copy)
            session.flush()
        return _shown(session, job, model)


def show(
    job_id: str, checkpoint: str, state: StateDep, caller: CallerDep, preview: Preview = None
) -> dict[str, Any]:
    """Where a checkpoint has been copied to."""
    _check_preview(preview)
    with answering(), reading(state.sessions) as session:
        return _shown(session, *_find(session, caller, job_id, checkpoint))


def _check_preview(value: str | None) -> None:
    if value != "preview":
        raise ApiError(
            400,
            "Copying checkpoints is a preview at Azure: send the header "
            "'aoai-copy-ft-checkpoints: preview'.",
            param="aoai-copy-ft-checkpoints",
        )


def _find(session: Session, caller: Caller, job_id: str, name: str) -> tuple[Job, TunedModel]:
    job = service.find(session, caller.project, job_id)
    model = names.tuned_model(session, name) or session.scalar(
        select(TunedModel).where(
            (TunedModel.name == name) | (TunedModel.id == name), TunedModel.deleted_at.is_(None)
        )
    )
    if model is None or model.job_id != job.id:
        raise ApiError(
            404, f"The job {job.id} has no checkpoint '{name[:200]}'.", code="model_not_found"
        )
    return job, model


def _project(session: Session, destination: str) -> str:
    match = _ACCOUNT.fullmatch(destination)
    if match is None:
        raise ApiError(
            400,
            "destinationResourceId must be /subscriptions/…/resourceGroups/…/providers/"
            "Microsoft.CognitiveServices/accounts/NAME; here, NAME is a project of this server.",
            param="destinationResourceId",
        )
    # Names of accounts are the same in any case; those of projects need not be.
    found = session.scalar(
        select(Project.id)
        .where(func.lower(Project.name) == match["account"].lower())
        .order_by((Project.name == match["account"]).desc(), Project.created_at)
    )
    if found is None:
        raise ApiError(
            404,
            f"There is no project '{match['account'][:64]}' on this server. (Make it with its "
            "first key: tunewise server key create --project NAME)",
            code="project_not_found",
            param="destinationResourceId",
        )
    return found


def _shown(session: Session, job: Job, model: TunedModel) -> dict[str, Any]:
    copies = session.scalars(
        select(CheckpointCopy)
        .where(CheckpointCopy.model == model.name)
        .order_by(CheckpointCopy.seq)
    )
    return {
        "checkpointedModelName": names.model_name(job, model.step),
        "fineTuningJobId": job.id,
        "copiedAccountDetails": [
            {
                "destinationResourceId": copy.destination,
                "region": copy.region,
                "status": "Completed",
            }
            for copy in copies
        ],
    }
