"""Rows of a prompt and its completion: trained in the form in which the model will be asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.errors import TunewiseError
from tunewise.models.names import parse_model
from tunewise.models.raw_form import Form, has_chat_template, is_completions_name
from tunewise.models.trained_as import trained_as
from tunewise.models.weights import locate
from tunewise.server.jobs.hyperparameters import AUTO
from tunewise.server.jobs.tables import Job, TunedModel

TOLD: Mapping[Form, str] = {
    "raw": "Prompts and completions are trained as they stand, without a chat template: ask the "
    "model at /v1/completions. The hyperparameter 'form': 'chat' trains for "
    "/v1/chat/completions instead.",
    "chat": "Prompts and completions are trained through the model's chat template: ask the model "
    "at /v1/chat/completions. The hyperparameter 'form': 'raw' trains for /v1/completions "
    "instead.",
}
NO_COMPLETIONS = (
    "The hyperparameter 'form' has no effect: it is for rows of a prompt and its completion, and "
    "these are conversations, which are trained through the model's chat template."
)


def form_of(session: Session, home: Path, job: Job) -> Form:
    """The form that a job's request names; else the one in which its model is asked.

    That is raw for a model with the name of one of completions, and for a base without a chat
    template; a tuned model that is trained further keeps its form.

    Args:
        home: of the server.
    """
    asked = job.requested.get("form", AUTO)
    if asked != AUTO:
        return "raw" if asked == "raw" else "chat"
    try:
        if job.parent is not None:
            folder = session.scalar(select(TunedModel.folder).where(TunedModel.name == job.parent))
            if folder is not None and (before := trained_as(home / folder).form) is not None:
                return before
        if is_completions_name(job.model):
            return "raw"
        base = locate(parse_model(job.base))
        return trained_as(base).form or ("chat" if has_chat_template(base) else "raw")
    except TunewiseError:
        return "chat"  # what the model lacks is told when it is loaded
