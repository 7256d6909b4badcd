"""What the server remembers of jobs, their events, and the models that they made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from tunewise.server.database import Base, Listed


class Job(Listed, Base):
    """One fine-tuning job.

    Attributes:
        status: ``validating_files``, ``queued``, ``running``, ``paused``, ``succeeded``,
            ``failed`` or ``cancelled``: what is wanted. The queue makes it so, and a job that was
            just paused may still have a process that is about to stop.
        has_worker: whether a process may work on it: from before it starts until it is known to
            have ended.
        model: name of the base model; ``base`` is the local model behind it.
        parent: name of the tuned model or checkpoint whose weights training begins with, which
            stays as long as the job is not over; ``asked_model`` as the request named it, in
            either dialect. None where training begins with the base.
        method: as requested, with its grader; ``requested`` the hyper-parameters checked, with
            ``auto``; ``resolved`` those that it runs with, once its rows are counted.
        grader: of a reinforcement job, with local models in place of names.
        rows: of the training file and of the validation file, once they are counted.
        labels: the API's ``metadata``, also in ``JobLabel``.
        tail: the last part of the names of its models.
        priority: of several that wait, the highest comes first.
        step, total_steps: as far as events are stored.
        attempts: starts since the last new step; many mean that it cannot go on.
        deleted_at: the row stays, so that a list can go on after it.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_status", "status"),)

    status: Mapped[str] = mapped_column(String(24), default="validating_files")
    has_worker: Mapped[bool] = mapped_column(default=False, index=True)
    model: Mapped[str] = mapped_column(String(255))
    base: Mapped[str] = mapped_column(Text)
    parent: Mapped[str | None] = mapped_column(String(512), index=True)
    asked_model: Mapped[str | None] = mapped_column(String(512))
    method: Mapped[dict[str, Any]] = mapped_column(JSON)
    requested: Mapped[dict[str, Any]] = mapped_column(JSON)
    resolved: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    grader: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    rows: Mapped[list[int] | None] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    suffix: Mapped[str | None] = mapped_column(String(64))
    tail: Mapped[str] = mapped_column(String(16))
    training_file: Mapped[str] = mapped_column(String(128), index=True)
    validation_file: Mapped[str | None] = mapped_column(String(128), index=True)
    integrations: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    priority: Mapped[int] = mapped_column(Integer, default=0)
    step: Mapped[int] = mapped_column(Integer, default=0)
    total_steps: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    estimated_finish: Mapped[int | None] = mapped_column(BigInteger)
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None] = mapped_column(String(512))
    result_files: Mapped[list[str]] = mapped_column(JSON, default=list)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    deleted_at: Mapped[int | None] = mapped_column(BigInteger)


class JobLabel(Base):
    """One pair of a job's ``metadata``, for the list's filter."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("job_labels_pair", "key", "value"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))


class JobEvent(Listed, Base):
    """One line of a job's story.

    Attributes:
        mark: what happened, as ``step 17``: a step that a restarted worker does again has the
            same mark, and is not told twice.
    """

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "mark"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    mark: Mapped[str] = mapped_column(String(64))
    level: Mapped[str] = mapped_column(String(8), default="info")
    message: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(String(16), default="message")
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class TunedModel(Listed, Base):
    """Weights that a job made: after an epoch (a checkpoint), or at its end.

    Attributes:
        step: optimiser steps done; None for the job's final model.
        base: the local model that the adapter belongs to.
        folder: of the adapter, relative to the server's home.
        sha256: of that folder (``digests.of_folder``); None of models of earlier releases.
        deleted_at: the name stays taken.
    """

    __tablename__ = "tuned_models"

    name: Mapped[str] = mapped_column(String(512), unique=True)
    job_id: Mapped[str] = mapped_column(String(128), index=True)
    model: Mapped[str] = mapped_column(String(255))
    base: Mapped[str] = mapped_column(Text)
    folder: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))
    step: Mapped[int | None] = mapped_column(Integer)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    deleted_at: Mapped[int | None] = mapped_column(BigInteger)


class CheckpointPermission(Listed, Base):
    """Another project's leave to use a model; ``project`` is the model's owner."""

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (UniqueConstraint("model", "grantee"),)

    model: Mapped[str] = mapped_column(String(512))
    grantee: Mapped[str] = mapped_column(String(64), index=True)
