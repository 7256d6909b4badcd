"""Files, jobs, events, checkpoints and models in Azure's shapes (authoring API 2024-06-01).

Each is OpenAI's object with Azure's words in it, so that either client reads it; what is null is
left out, since Azure's schema knows no null.
"""

from __future__ import annotations

import re
from typing import Any

from tunewise.server.azure.names import checkpoint_id, model_name, our_checkpoint_id
from tunewise.server.jobs import schema
from tunewise.server.jobs.hyperparameters import AUTO
from tunewise.server.jobs.routes import Dialect
from tunewise.server.jobs.story import model_name as our_model_name
from tunewise.server.jobs.tables import Job, JobEvent, TunedModel

STATUSES = {"validating_files": "created", "queued": "pending"}
"""Azure's words for the statuses that have others; ``notRunning`` has no equal here."""
LEVELS = {"warn": "warning"}

NEVER = 4102444800
"""1 January 2100: the schema wants a date of retirement, and nothing is retired here."""


def job_object(job: Job, organization: str) -> dict[str, Any]:
    """A job as ``FineTuningJob``; ``auto`` is -1."""
    shown = schema.job_object(job, organization)
    shown["status"] = STATUSES.get(job.status, job.status)
    del shown["paused"]  # Azure has a status for it
    shown["organisation_id"] = organization
    shown["suffix"] = shown.pop("user_provided_suffix")
    shown["hyperparameters"] = {
        name: -1 if value == AUTO else value for name, value in shown["hyperparameters"].items()
    }
    if job.fine_tuned_model is not None:
        shown["fine_tuned_model"] = model_name(job)
    return {key: value for key, value in shown.items() if value is not None}


def v1_job_object(job: Job, organization: str) -> dict[str, Any]:
    """A job as ``/openai/v1`` shows it: OpenAI's object, with Azure's status and name."""
    shown = schema.job_object(job, organization)
    shown["status"] = job.status
    if job.fine_tuned_model is not None:
        shown["fine_tuned_model"] = model_name(job)
    return shown


def event_object(event: JobEvent, job: Job, organization: str) -> dict[str, Any]:
    """An event as ``FineTuningJobEvent``; models in its text have Azure's names."""
    shown = v1_event_object(event, job, organization)
    shown["level"] = LEVELS.get(event.level, event.level)
    return shown


def v1_event_object(event: JobEvent, job: Job, organization: str) -> dict[str, Any]:
    """An event as ``/openai/v1`` shows it: OpenAI's object, with Azure's names in its text."""
    shown = schema.event_object(event)
    ours = our_model_name(job, organization).removesuffix(job.tail)  # of checkpoints too
    pattern = rf"{re.escape(ours)}[A-Za-z0-9]{{{len(job.tail)}}}"
    shown["message"] = re.sub(pattern, lambda _: model_name(job), event.message)
    return shown


def checkpoint_object(model: TunedModel, job: Job) -> dict[str, Any]:
    """A checkpoint as ``FineTuningJobCheckpoint``."""
    shown = schema.checkpoint_object(model)
    shown["id"] = checkpoint_id(model.id)
    shown["fine_tuned_model_checkpoint"] = model_name(job, model.step)
    return shown


def model_object(
    name: str, created: int, owner: str, *, tuned: TunedModel | None = None
) -> dict[str, Any]:
    """A model as ``Model``.

    Args:
        name: as Azure's programs shall write it.
        created: seconds since 1970.
        tuned: its row; None for a base model.
    """
    shown: dict[str, Any] = {
        "object": "model",
        "id": name,
        "created_at": created,
        "created": created,
        "owned_by": owner,
        "status": "succeeded",
        "capabilities": {
            "fine_tune": tuned is None,
            "inference": True,
            "completion": True,
            "chat_completion": True,
            "embeddings": True,
        },
        "lifecycle_status": "generally-available",
        "deprecation": {"inference": NEVER},
    }
    if tuned is None:
        shown["deprecation"]["fine_tune"] = NEVER
    else:
        shown |= {"model": tuned.model, "fine_tune": tuned.job_id}
    return shown


CLASSIC = Dialect(job_object, event_object, checkpoint_object, our_checkpoint_id)
V1 = Dialect(v1_job_object, v1_event_object, checkpoint_object, our_checkpoint_id)
"""OpenAI's shapes at Azure: its names, its ids of checkpoints, its word for a paused job."""
