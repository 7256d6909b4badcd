"""What can be done with jobs, for one project; no HTTP here, so that each dialect can call it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from tunewise.scoring.graders.errors import GraderError
from tunewise.server.azure.names import deployment_of_job
from tunewise.server.database import now
from tunewise.server.file_store import visible_files
from tunewise.server.ids import new_id
from tunewise.server.jobs import hyperparameters
from tunewise.server.jobs.graders import local_grader
from tunewise.server.jobs.resolve import base_of
from tunewise.server.jobs.schema import CreateJob, MethodRequest
from tunewise.server.jobs.story import OVER, end, tell
from tunewise.server.jobs.tables import CheckpointPermission, Job, JobLabel, TunedModel
from tunewise.server.settings import ServerSettings
from tunewise.server.tables import File, Project

_WAITING = ("validating_files", "queued")


class JobRefused(Exception):
    """A request about a job that cannot be fulfilled.

    Attributes:
        code: ``job_not_found``, ``model_not_found``, ``permission_not_found``, ``invalid_file``,
            ``invalid_hyperparameter``, ``invalid_method``, ``invalid_grader``, ``wrong_state``,
            ``too_many_jobs``, ``project_not_found``; each dialect has its own words and statuses
            for them.
        message: what is wrong, for the user.
        param: which field of the request.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def create(session: Session, settings: ServerSettings, project: str, asked: CreateJob) -> Job:
    """Make a job; the queue checks its files next. Inside ``database.writing``.

    Raises:
        JobRefused: ``model_not_found``, ``invalid_file``, ``invalid_hyperparameter``,
            ``invalid_method``, ``invalid_grader`` or ``too_many_jobs``.
    """
    base = base_of(settings, asked.model)
    if base is None:
        raise JobRefused("model_not_found", _no_such_model(session, settings, project, asked.model))
    method = _method(asked)
    grader = _grader(method, settings)
    values = _hyperparameters(asked, method)
    for param in ("training_file", "validation_file"):
        _require_file(session, project, getattr(asked, param), param)
    waiting = select(func.count()).where(
        Job.project == project, Job.status.in_(_WAITING), Job.deleted_at.is_(None)
    )
    if (session.scalar(waiting) or 0) >= settings.max_queued_jobs:
        raise JobRefused(
            "too_many_jobs",
            f"{settings.max_queued_jobs} jobs of this project wait already. Wait until one has "
            "started, or cancel one.",
        )
    job = Job(
        id=new_id("ftjob"),
        project=project,
        model=asked.model,
        base=base,
        method=method.model_dump(exclude_none=True),
        requested=values,
        grader=grader,
        seed=asked.seed if asked.seed is not None else secrets.randbelow(2**31),
        suffix=asked.suffix,
        tail=new_id("", 8),
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        integrations=[i.as_dict() for i in asked.integrations or ()] or None,
        labels=asked.metadata,
        result_files=[],
    )
    session.add(job)
    session.flush()
    for key, value in (asked.metadata or {}).items():
        session.add(JobLabel(job_id=job.id, key=key, value=value))
    tell(session, job, "created", f"Created fine-tuning job: {job.id}")
    if unknown := asked.unknown():
        text = f"Fields that mean nothing here: {', '.join(name[:40] for name in unknown[:10])}"
        tell(session, job, "unknown fields", text, level="warn")
    files = f"Validating training file: {job.training_file}"
    if job.validation_file:
        files += f" and validation file: {job.validation_file}"
    tell(session, job, "validating", files)
    return job


def find(session: Session, project: str, job_id: str) -> Job:
    """The project's job with this id.

    Raises:
        JobRefused: ``job_not_found``.
    """
    job = session.scalar(select(Job).where(*owned(project), Job.id == job_id))
    if job is None:
        raise JobRefused(
            "job_not_found", f"Could not find fine tune: {job_id[:100]}", "fine_tuning_job_id"
        )
    return job


def owned(project: str) -> list[ColumnElement[bool]]:
    """Conditions: the project's own jobs that are not deleted."""
    return [Job.project == project, Job.deleted_at.is_(None)]


def labelled(labels: Mapping[str, str] | None) -> list[ColumnElement[bool]]:
    """Conditions: jobs with all these pairs in their metadata; None is jobs without any."""
    if labels is None:
        return [Job.id.not_in(select(JobLabel.job_id))]
    return [
        Job.id.in_(select(JobLabel.job_id).where(JobLabel.key == key, JobLabel.value == value))
        for key, value in labels.items()
    ]


def cancel(session: Session, project: str, job_id: str) -> Job:
    """End a job for good.

    Raises:
        JobRefused: ``job_not_found``, or ``wrong_state`` where it is over.
    """
    job = find(session, project, job_id)
    if job.status in OVER:
        raise JobRefused(
            "wrong_state", f"Job has already completed: {job.id} (it {_was(job.status)})."
        )
    tell(session, job, "cancelled", "Fine-tuning job cancelled")
    job.has_worker = job.started_at is not None  # then the queue also clears up after it
    end(session, job, "cancelled")
    return job


def pause(session: Session, project: str, job_id: str) -> Job:
    """Let a job stop where it is; its process makes a checkpoint and ends.

    Raises:
        JobRefused: ``job_not_found``, or ``wrong_state`` where it is over or paused.
    """
    job = find(session, project, job_id)
    if job.status in OVER or job.status == "paused":
        raise JobRefused("wrong_state", f"The job {_was(job.status)}, so it cannot be paused.")
    if job.status == "validating_files":
        raise JobRefused("wrong_state", "The job's files are being checked; pause it after that.")
    job.status = "paused"
    job.estimated_finish = None
    tell(session, job, _again("paused"), "Fine-tuning job paused")
    return job


def resume(session: Session, project: str, job_id: str) -> Job:
    """Let a paused job go on from its last checkpoint, as soon as a worker is free.

    Raises:
        JobRefused: ``job_not_found``, or ``wrong_state`` where it is not paused or one of its
            checkpoints is deployed.
    """
    job = find(session, project, job_id)
    if job.status != "paused":
        raise JobRefused("wrong_state", f"The job {_was(job.status)}; only a paused job resumes.")
    deployment = deployment_of_job(session, job.id)
    if deployment is not None:
        raise JobRefused(
            "wrong_state",
            f"A checkpoint of the job is deployed as '{deployment.name}', and older checkpoints "
            "are removed as it goes on. Delete the deployment first.",
        )
    job.status = "queued"
    job.attempts = 0
    tell(session, job, _again("resumed"), "Fine-tuning job resumed")
    return job


def delete(session: Session, project: str, job_id: str) -> Job:
    """Forget a job that is over; its models stay.

    Raises:
        JobRefused: ``job_not_found``, or ``wrong_state`` where it is not over.
    """
    job = find(session, project, job_id)
    if job.status not in OVER:
        raise JobRefused("wrong_state", f"The job {_was(job.status)}; cancel it first.")
    job.deleted_at = now()
    return job


def file_user(session: Session, file_id: str) -> str | None:
    """Which job still needs a file; for ``ServerState.file_users``."""
    job = session.scalar(
        select(Job.id).where(
            (Job.training_file == file_id) | (Job.validation_file == file_id),
            Job.status.not_in(OVER),
        )
    )
    return None if job is None else f"The fine-tuning job {job}"


def permit(session: Session, name: str, grantees: list[str]) -> list[CheckpointPermission]:
    """Let other projects use a model; those that may already are in the answer too.

    Raises:
        JobRefused: ``model_not_found`` or ``project_not_found``.
    """
    model = tuned(session, name)
    made = []
    for grantee in dict.fromkeys(grantees):
        if session.get(Project, grantee) is None:
            raise JobRefused(
                "project_not_found", f"No such project: {grantee[:100]}", "project_ids"
            )
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


def _method(asked: CreateJob) -> MethodRequest:
    from tunewise.training.methods import METHODS

    method = asked.method or MethodRequest(type="supervised")
    if hyperparameters.TRAINERS[method.type] not in METHODS:
        raise JobRefused(
            "invalid_method", f"This server cannot train with the method {method.type!r}.", "method"
        )
    return method


def _grader(method: MethodRequest, settings: ServerSettings) -> dict[str, Any] | None:
    if method.type != "reinforcement":
        return None
    place = "method.reinforcement.grader"
    if not method.body.grader:
        raise JobRefused(
            "invalid_grader",
            "Reinforcement needs a grader, which says how good an answer is.",
            place,
        )
    try:
        return local_grader(method.body.grader, settings.models)
    except GraderError as error:
        where = (error.where or "").removeprefix("grader")
        hint = f" {error.hint}" if error.hint else ""
        message = f"{error.message[:1].upper()}{error.message[1:]}.{hint}"
        raise JobRefused("invalid_grader", message, place + where) from None


def _hyperparameters(asked: CreateJob, method: MethodRequest) -> dict[str, Any]:
    given = {**(asked.hyperparameters or {}), **(method.body.hyperparameters or {})}
    try:
        return hyperparameters.requested(method.type, given)
    except hyperparameters.HyperparameterError as error:
        own = error.name in (method.body.hyperparameters or {})
        place = f"method.{method.type}.hyperparameters" if own else "hyperparameters"
        raise JobRefused(
            "invalid_hyperparameter",
            f"The hyperparameter '{error.name[:60]}' {error.message}.",
            f"{place}.{error.name[:60]}",
        ) from None


def _require_file(session: Session, project: str, file_id: str | None, param: str) -> None:
    if file_id is None:
        return
    file = session.scalar(select(File).where(*visible_files(project), File.id == file_id))
    if file is None:
        raise JobRefused("invalid_file", f"invalid {param}: {file_id[:100]}: no such file.", param)
    if file.purpose != "fine-tune":
        raise JobRefused(
            "invalid_file",
            f"invalid {param}: {file_id} was uploaded for {file.purpose!r}; upload it with the "
            "purpose 'fine-tune'.",
            param,
        )


def _no_such_model(session: Session, settings: ServerSettings, project: str, name: str) -> str:
    known = ", ".join(sorted(settings.models)) or "(none)"
    own = select(TunedModel.seq).where(TunedModel.project == project, TunedModel.name == name)
    if session.scalar(own) is not None:
        return (
            f"The model {name[:100]!r} is tuned already, and this server trains from base models "
            f"only. Base models here: {known}."
        )
    return (
        f"The model {name[:100]!r} is not available for fine-tuning or does not exist. Models "
        f"here: {known}. Others are added under `models` in the server's settings."
    )


def _again(what: str) -> str:
    """A mark for something that may happen several times."""
    return f"{what} {new_id('', 8)}"


def _was(status: str) -> str:
    return {
        "validating_files": "is having its files checked",
        "queued": "waits for a worker",
        "running": "is running",
        "paused": "is paused",
        "succeeded": "has succeeded",
        "failed": "has failed",
        "cancelled": "was cancelled",
    }[status]
