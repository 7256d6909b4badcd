"""Azure's names for tuned models and checkpoints, and deployments' names, into ours.

A tuned model has two names: ``ft:gpt-4o-mini:acme:recipes:a1B2c3d4`` at OpenAI and
``gpt-4o-mini.ft-<32 hex digits>-recipes`` at Azure, both with ``:ckpt-step-N`` for a checkpoint.
Azure's is computed from the job's row and found again by it, so that nothing more is stored.
"""

from __future__ import annotations

import hashlib
import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.azure.tables import FAILED, SUCCEEDED, Deployment
from tunewise.server.errors import ApiError
from tunewise.server.jobs.tables import Job, TunedModel

_NAME = re.compile(
    r"(?P<base>.+?)\.ft-(?P<tail>[0-9a-f]{16})[0-9a-f]{16}(-[^:]+)?(:ckpt-step-\d+)?"
)
_OUR_CHECKPOINT, _CHECKPOINT = "ftckpt_", "ftchkpt-"


def model_name(job: Job, step: int | None = None) -> str:
    """Azure's name of a job's model, or of its checkpoint after ``step`` steps.

    The first 16 digits are the ASCII codes of the job's ``tail``, which finds the job again.
    """
    digits = job.tail.encode("ascii").hex()[:16] + hashlib.sha256(job.id.encode()).hexdigest()
    suffix = f"-{job.suffix}" if job.suffix else ""
    checkpoint = "" if step is None else f":ckpt-step-{step}"
    return f"{job.model}.ft-{digits[:32]}{suffix}{checkpoint}"


def checkpoint_id(our_id: str) -> str:
    """Azure's id of a checkpoint."""
    return _CHECKPOINT + our_id.removeprefix(_OUR_CHECKPOINT)


def our_checkpoint_id(azure_id: str) -> str:
    """Our id of a checkpoint; any other id passes as it is."""
    if not azure_id.startswith(_CHECKPOINT):
        return azure_id
    return _OUR_CHECKPOINT + azure_id.removeprefix(_CHECKPOINT)


def tuned_model(session: Session, name: str) -> TunedModel | None:
    """The tuned model or checkpoint with this name or id of Azure's, whosever it is."""
    if name.startswith(_CHECKPOINT):
        return session.scalar(
            select(TunedModel).where(
                TunedModel.id == our_checkpoint_id(name), TunedModel.deleted_at.is_(None)
            )
        )
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    tail = bytes.fromhex(match["tail"]).decode("ascii", "replace")
    rows = session.execute(
        select(TunedModel, Job)
        .join(Job, Job.id == TunedModel.job_id)
        .where(Job.tail == tail, Job.model == match["base"], TunedModel.deleted_at.is_(None))
    )
    return next((row for row, job in rows if model_name(job, row.step) == name), None)


def find_deployment(session: Session, project: str, name: str) -> Deployment | None:
    """The project's deployment called ``name``."""
    return session.scalar(
        select(Deployment).where(Deployment.project == project, Deployment.name == name)
    )


def deployment_of(session: Session, model: str) -> Deployment | None:
    """A deployment that still needs a model, whosever it is."""
    return session.scalar(select(Deployment).where(Deployment.model == model).limit(1))


def deployment_of_job(session: Session, job_id: str) -> Deployment | None:
    """A deployment that needs one of a job's models."""
    return session.scalar(
        select(Deployment)
        .join(TunedModel, TunedModel.name == Deployment.model)
        .where(TunedModel.job_id == job_id)
        .limit(1)
    )


def our_name(session: Session, project: str, name: str) -> str:
    """The model that a request means, as ``jobs.resolve`` knows it.

    A deployment's name goes before a model's, as at Azure. Names that are not Azure's pass as
    they are; whether the project may use the model is not asked here.

    Raises:
        ApiError: the deployment is not ready, or has failed.
    """
    deployment = find_deployment(session, project, name)
    if deployment is None:
        tuned = tuned_model(session, name)
        return name if tuned is None else tuned.name
    if deployment.state == FAILED:
        raise ApiError(
            404,
            f"The deployment '{name}' has failed: {deployment.error} Delete it and deploy a "
            "model that loads.",
            code="DeploymentNotFound",
        )
    if deployment.state != SUCCEEDED:
        raise ApiError(
            404,
            f"The deployment '{name}' is still being made ({deployment.state}). Try again in some "
            "seconds.",
            code="DeploymentNotReady",
        )
    return deployment.model
