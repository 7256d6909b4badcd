"""Fine-tuning jobs as Azure's clients ask for them: ``trainingType`` and ``prompt_loss_weight``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, field_validator
from sqlalchemy.orm import Session

from tunewise.server.jobs import service
from tunewise.server.jobs.schema import CreateJob
from tunewise.server.jobs.story import tell
from tunewise.server.jobs.tables import Job
from tunewise.server.settings import ServerSettings

TRAINING_TYPES = ("Standard", "GlobalStandard", "Developer")
_SPELLINGS = {name.lower(): name for name in TRAINING_TYPES} | {
    "developertier": "Developer",  # in some of Azure's pages
    "1": "Standard",  # a number, from LiteLLM
}


class AzureJob(CreateJob):
    """The body of ``POST /openai/fine_tuning/jobs``.

    Attributes:
        training_type: where Azure would train. It changes nothing here, and is not asked for:
            a request without it is fulfilled, with a warning, since Azure itself refuses it in
            words that hide the reason.
    """

    training_type: str | None = Field(None, alias="trainingType")

    @field_validator("training_type", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value is None:
            return None
        found = _SPELLINGS.get(str(value).lower())
        if found is None or isinstance(value, bool):
            raise ValueError(
                f"trainingType must be one of {', '.join(TRAINING_TYPES)}, not {str(value)[:40]!r}."
            )
        return found

    def remarks(self) -> Iterator[tuple[str, str, str]]:
        """What the job's events say of Azure's own fields: mark, level, text."""
        if self.training_type is None:
            yield (
                "training type",
                "warn",
                "trainingType was not given. This server needs none, but Azure refuses the same "
                "request with 'The specified base model does not support fine-tuning': add "
                "trainingType (Standard, GlobalStandard or Developer) before you send it there.",
            )
        else:
            text = f"Training type {self.training_type}: this server trains on its own hardware."
            yield "training type", "info", text
        own = self.method.body.hyperparameters if self.method else None
        if "prompt_loss_weight" in {**(self.hyperparameters or {}), **(own or {})}:
            text = (
                "prompt_loss_weight has no effect: only the assistant's words are learnt, as with "
                "every chat model."
            )
            yield "prompt loss weight", "warn", text


def create_job(session: Session, settings: ServerSettings, project: str, asked: AzureJob) -> Job:
    """Make a job; inside ``database.writing``.

    Raises:
        JobRefused: see ``service.create``.
    """
    job = service.create(session, settings, project, asked)
    for mark, level, text in asked.remarks():
        tell(session, job, mark, text, level=level)
    return job
