"""A job's story: its events, each told once, and what its models are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server import metrics
from tunewise.server.database import now
from tunewise.server.ids import new_id
from tunewise.server.jobs.tables import Job, JobEvent

OVER = frozenset({"succeeded", "failed", "cancelled"})
"""Statuses that a job never leaves."""


def tell(
    session: Session,
    job: Job,
    mark: str,
    message: str,
    *,
    level: str = "info",
    data: Mapping[str, Any] | None = None,
) -> bool:
    """Add an event, unless the job has one with this mark; whether it was added.

    Args:
        mark: what happened, unique within the job.
        data: makes it an event of type ``metrics``.
    """
    known = select(JobEvent.seq).where(JobEvent.job_id == job.id, JobEvent.mark == mark)
    if session.scalar(known) is not None:
        return False
    session.add(
        JobEvent(
            id=new_id("ftevent"),
            project=job.project,
            job_id=job.id,
            mark=mark,
            level=level,
            message=message,
            type="message" if data is None else "metrics",
            data=dict(data or {}),
        )
    )
    session.flush()
    return True


def end(session: Session, job: Job, status: str, error: Mapping[str, Any] | None = None) -> None:
    """Bring a job to its last status, and tell why it failed."""
    job.status = status
    job.finished_at = now()
    job.estimated_finish = None
    metrics.JOBS.labels(status).inc()
    if error is not None:
        job.error = dict(error)
        text = f"The job failed: {error['message']}"
        tell(session, job, "failed", text, level="error")


def model_name(job: Job, organization: str, step: int | None = None) -> str:
    """``ft:<base>:<organisation>:<suffix>:<8 characters>``, with ``:ckpt-step-N`` for a step."""
    name = f"ft:{job.model}:{organization}:{job.suffix or ''}:{job.tail}"
    return name if step is None else f"{name}:ckpt-step-{step}"
