"""Wire shapes: what a request for a job may hold, and jobs, events and checkpoints as sent."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from tunewise.scoring.graders import with_names
from tunewise.server.jobs.tables import CheckpointPermission, Job, JobEvent, TunedModel
from tunewise.server.jobs.training_files import Method

_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Label = Annotated[str, StringConstraints(max_length=64)]
LabelValue = Annotated[str, StringConstraints(max_length=512)]


class _Open(BaseModel):
    """The published requests are open objects; what is not known here is told in an event."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def unknown(self) -> list[str]:
        """Names of fields that mean nothing here."""
        return sorted(self.model_extra or {})


Tracking = Literal["wandb", "trackio", "mlflow"]
"""Trackers that a job can report to; the published request knows the first only."""


class TrackedAs(_Open):
    """Where a run is shown in a tracker."""

    project: str = Field(min_length=1, max_length=128)
    name: str | None = None
    entity: str | None = None
    tags: list[str] | None = None


class Integration(_Open):
    """A tracker that is told about the run; the field of its own name says where."""

    type: Tracking
    wandb: TrackedAs | None = None
    trackio: TrackedAs | None = None
    mlflow: TrackedAs | None = None

    @model_validator(mode="after")
    def _has_place(self) -> Integration:
        if getattr(self, self.type) is None:
            raise ValueError(f"An integration of type '{self.type}' needs the field '{self.type}'.")
        return self

    def as_dict(self) -> dict[str, Any]:
        """As a job shows it; of its fields only ``tags`` may not be null there."""
        shown = getattr(self, self.type).model_dump()
        if shown["tags"] is None:
            del shown["tags"]
        return {"type": self.type, self.type: shown}


class MethodBody(_Open):
    """Of one method: its hyper-parameters, and for reinforcement its grader."""

    hyperparameters: dict[str, Any] | None = None
    grader: dict[str, Any] | None = None


class MethodRequest(_Open):
    """How the model is to learn."""

    type: Method
    supervised: MethodBody | None = None
    dpo: MethodBody | None = None
    reinforcement: MethodBody | None = None

    @property
    def body(self) -> MethodBody:
        """What is said about the method that was chosen."""
        found: MethodBody | None = getattr(self, self.type)
        return found or MethodBody()


class CreateJob(_Open):
    """The body of ``POST /v1/fine_tuning/jobs``."""

    model: str = Field(min_length=1, max_length=512)
    training_file: str = Field(min_length=1, max_length=128)
    validation_file: str | None = Field(None, max_length=128)
    suffix: str | None = Field(None, min_length=1, max_length=64)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    method: MethodRequest | None = None
    hyperparameters: dict[str, Any] | None = None
    integrations: list[Integration] | None = Field(None, max_length=5)
    metadata: dict[Label, LabelValue] | None = Field(None, max_length=16)

    @field_validator("suffix")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and not _SUFFIX.fullmatch(value):
            raise ValueError(
                "A suffix becomes part of the model's name: letters, digits, '-', '_' and '.' "
                "only, beginning with a letter or digit."
            )
        return value


class Permit(BaseModel):
    """The body of ``POST …/permissions``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_ids: list[Annotated[str, StringConstraints(max_length=64)]] = Field(max_length=100)


def job_object(job: Job, organization: str) -> dict[str, Any]:
    """A job as ``fine_tuning.job``.

    OpenAI's document has no status for a paused job, and its clients refuse one that they do not
    know: such a job waits, so it is ``queued``, and the field ``paused`` is ours.
    """
    values = job.resolved or job.requested
    kind = job.method["type"]
    common = ("n_epochs", "batch_size", "learning_rate_multiplier")
    body: dict[str, Any] = {"hyperparameters": values}
    if kind == "reinforcement":
        body["grader"] = with_names(job.method[kind]["grader"])
    return {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": job.asked_model or job.model,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": organization,
        "result_files": job.result_files,
        "status": "queued" if job.status == "paused" else job.status,
        "paused": job.status == "paused",
        "validation_file": job.validation_file,
        "training_file": job.training_file,
        "hyperparameters": {name: values[name] for name in common},
        "trained_tokens": job.trained_tokens,
        "error": job.error,
        "seed": job.seed,
        "estimated_finish": job.estimated_finish,
        "integrations": job.integrations or [],
        "metadata": job.labels,
        "method": {"type": kind, kind: body},
        "user_provided_suffix": job.suffix,
    }


def event_object(event: JobEvent) -> dict[str, Any]:
    """An event as ``fine_tuning.job.event``."""
    return {
        "object": "fine_tuning.job.event",
        "id": event.id,
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def checkpoint_object(model: TunedModel) -> dict[str, Any]:
    """A checkpoint as ``fine_tuning.job.checkpoint``."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": model.id,
        "created_at": model.created_at,
        "fine_tuned_model_checkpoint": model.name,
        "step_number": model.step,
        "metrics": model.metrics,
        "fine_tuning_job_id": model.job_id,
    }


def permission_object(permission: CheckpointPermission) -> dict[str, Any]:
    """A permission as ``checkpoint.permission``."""
    return {
        "object": "checkpoint.permission",
        "id": permission.id,
        "created_at": permission.created_at,
        "project_id": permission.grantee,
    }
