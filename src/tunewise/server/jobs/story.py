"""A job's story: its events, each told once, and what its models are called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server import metrics
from tunewise.server.database import now
from tunewise.server.ids import LETTERS, new_id
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
    """``ft:<base>:<organisation>:<suffix>:<8 characters>``, with ``:ckpt-step-N`` for a step.

    Each checkpoint has 8 characters of its own, as at OpenAI. They are computed, so that a step
    that is told again has the same name.
    """
    name = f"ft:{job.model}:{organization}:{job.suffix or ''}:"
    if step is None:
        return name + job.tail
    digest = hashlib.sha256(f"{job.id} {step}".encode()).digest()
    own = "".join(LETTERS[byte % len(LETTERS)] for byte in digest[: len(job.tail)])
    return f"{name}{own}:ckpt-step-{step}"
