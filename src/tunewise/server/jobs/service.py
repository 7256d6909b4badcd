"""What can be done with jobs, for one project; no HTTP here, so that each dialect can call it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from tunewise.server.azure.names import deployment_of_job
from tunewise.server.database import now
from tunewise.server.ids import new_id
from tunewise.server.jobs.refused import JobRefused
from tunewise.server.jobs.request import (
    grader_of,
    hyperparameters_of,
    method_of,
    require_file,
    start_of,
    unknown_hyperparameters,
)
from tunewise.server.jobs.schema import CreateJob
from tunewise.server.jobs.story import OVER, end, tell
from tunewise.server.jobs.tables import Job, JobLabel
from tunewise.server.settings import ServerSettings

_WAITING = ("validating_files", "queued")


def create(session: Session, settings: ServerSettings, project: str, asked: CreateJob) -> Job:
    """Make a job; the queue checks its files next. Inside ``database.writing``.

    Raises:
        JobRefused: ``model_not_found``, ``invalid_file``, ``invalid_hyperparameter``,
            ``invalid_method``, ``invalid_grader``, ``too_many_jobs``, or ``wrong_state`` where
            the model is a checkpoint that may still be removed.
    """
    start = start_of(session, settings, project, asked.model)
    method = method_of(asked)
    grader = grader_of(method, settings)
    values = hyperparameters_of(asked, method)
    for param in ("training_file", "validation_file"):
        require_file(session, project, getattr(asked, param), param)
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
        model=start.model,
        base=start.base,
        parent=start.parent,
        asked_model=asked.model if start.parent else None,
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
    if start.parent:
        tell(session, job, "parent", f"Training begins with the weights of {asked.model}")
    for name, text in unknown_hyperparameters(asked, method):
        tell(session, job, f"hyperparameter {name}"[:64], text, level="warn")
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

    A paused job stays as it is: a client whose connection broke simply asks again.

    Raises:
        JobRefused: ``job_not_found``, or ``wrong_state`` where it is over.
    """
    job = find(session, project, job_id)
    if job.status in OVER:
        raise JobRefused("wrong_state", f"The job {_was(job.status)}, so it cannot be paused.")
    if job.status == "paused":
        return job
    job.status = "paused"
    job.estimated_finish = None
    tell(session, job, _again("paused"), "Fine-tuning job paused")
    return job


def resume(session: Session, project: str, job_id: str) -> Job:
    """Let a paused job go on from its last checkpoint, as soon as a worker is free.

    A job that goes on already stays as it is, for the same reason as with :func:`pause`.

    Raises:
        JobRefused: ``job_not_found``, or ``wrong_state`` where it is over or one of its
            checkpoints is deployed.
    """
    job = find(session, project, job_id)
    if job.status in OVER:
        raise JobRefused("wrong_state", f"The job {_was(job.status)}; only a paused job resumes.")
    if job.status != "paused":
        return job
    deployment = deployment_of_job(session, job.id)
    if deployment is not None:
        raise JobRefused(
            "wrong_state",
            f"A checkpoint of the job is deployed as '{deployment.name}', and older checkpoints "
            "are removed as it goes on. Delete the deployment first.",
        )
    # One that was paused while its files were checked has no numbers yet to run with.
    job.status = "queued" if job.resolved is not None else "validating_files"
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
