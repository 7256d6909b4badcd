"""What a request for a job means: each of its fields checked and made into what a job holds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.scoring.graders.errors import GraderError
from tunewise.server.azure.names import tuned_model
from tunewise.server.file_store import visible_files
from tunewise.server.jobs import hyperparameters
from tunewise.server.jobs.graders import local_grader
from tunewise.server.jobs.refused import JobRefused
from tunewise.server.jobs.resolve import base_of, usable
from tunewise.server.jobs.schema import CreateJob, MethodRequest
from tunewise.server.jobs.story import OVER
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.settings import ServerSettings
from tunewise.server.tables import File


@dataclass(frozen=True, slots=True)
class Start:
    """What a job begins with.

    Attributes:
        model: name of the base model, which the names of tuned models begin with.
        base: the local model behind it.
        parent: the tuned model or checkpoint whose weights are trained on; None for the base.
    """

    model: str
    base: str
    parent: str | None


def start_of(session: Session, settings: ServerSettings, project: str, name: str) -> Start:
    """What a job on the model ``name`` begins with: a base model, or a tuned one on its base.

    Raises:
        JobRefused: ``model_not_found``, or ``wrong_state`` for a checkpoint that may still be
            removed.
    """
    base = base_of(settings, name)
    if base is not None:
        return Start(name, base, None)
    azure = tuned_model(session, name)
    ours = name if azure is None else azure.name
    tuned = session.scalar(usable(project).where(TunedModel.name == ours))
    if tuned is None:
        known = ", ".join(sorted(settings.models)) or "(none)"
        raise JobRefused(
            "model_not_found",
            f"The model {name[:100]!r} is not available for fine-tuning or does not exist. Base "
            f"models here: {known}; tuned models of this project can be trained further. Other "
            "base models are added under `models` in the server's settings.",
            "model",
        )
    made = select(Job).where(Job.id == tuned.job_id)
    if tuned.step is not None and _goes_on(session.scalar(made)):
        raise JobRefused(
            "wrong_state",
            f"The job that made the checkpoint {name[:200]!r} is not over, and its older "
            "checkpoints are removed as it goes on. Wait for its end, or cancel it.",
            "model",
        )
    return Start(tuned.model, tuned.base, tuned.name)


def _goes_on(job: Job | None) -> bool:
    """Whether a job may still remove checkpoints, a cancelled one until its process has ended."""
    if job is None or job.status == "succeeded":
        return False
    return job.has_worker or job.status not in OVER


def method_of(asked: CreateJob) -> MethodRequest:
    """How the model is to learn; supervised where the request does not say.

    Raises:
        JobRefused: ``invalid_method``.
    """
    from tunewise.training.methods import METHODS

    method = asked.method or MethodRequest(type="supervised")
    if hyperparameters.TRAINERS[method.type] not in METHODS:
        raise JobRefused(
            "invalid_method", f"This server cannot train with the method {method.type!r}.", "method"
        )
    return method


def grader_of(method: MethodRequest, settings: ServerSettings) -> dict[str, Any] | None:
    """The grader of a reinforcement job as its worker runs it; None for other methods.

    Raises:
        JobRefused: ``invalid_grader``.
    """
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
        return local_grader(method.body.grader, settings.bases)
    except GraderError as error:
        where = (error.where or "").removeprefix("grader")
        hint = f" {error.hint}" if error.hint else ""
        message = f"{error.message[:1].upper()}{error.message[1:]}.{hint}"
        raise JobRefused("invalid_grader", message, place + where) from None


def hyperparameters_of(asked: CreateJob, method: MethodRequest) -> dict[str, Any]:
    """Those of the method, over those of the deprecated field; what is not said is ``auto``.

    Raises:
        JobRefused: ``invalid_hyperparameter``.
    """
    try:
        return hyperparameters.requested(method.type, _given(asked, method))
    except hyperparameters.HyperparameterError as error:
        own = error.name in (method.body.hyperparameters or {})
        place = f"method.{method.type}.hyperparameters" if own else "hyperparameters"
        raise JobRefused(
            "invalid_hyperparameter",
            f"The hyperparameter '{error.name[:60]}' {error.message}.",
            f"{place}.{error.name[:60]}",
        ) from None


def unknown_hyperparameters(asked: CreateJob, method: MethodRequest) -> list[tuple[str, str]]:
    """Names that the method does not know, ten at most, and a sentence about each."""
    return list(itertools.islice(hyperparameters.unknown(method.type, _given(asked, method)), 10))


def _given(asked: CreateJob, method: MethodRequest) -> dict[str, Any]:
    return {**(asked.hyperparameters or {}), **(method.body.hyperparameters or {})}


def require_file(session: Session, project: str, file_id: str | None, param: str) -> None:
    """See that the project has this file, uploaded for fine-tuning.

    Args:
        param: the field of the request that names it.

    Raises:
        JobRefused: ``invalid_file``.
    """
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
