"""Names of models into weights: what a project may use, and what stands behind it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller
from tunewise.server.azure.names import deployment_of, our_name
from tunewise.server.azure.tables import Deployment
from tunewise.server.database import now
from tunewise.server.errors import ApiError
from tunewise.server.inference.protocol import ModelRef
from tunewise.server.jobs.story import OVER
from tunewise.server.jobs.tables import CheckpointPermission, Job, TunedModel
from tunewise.server.settings import ServerSettings

_SHOWN = 30


@dataclass(frozen=True, slots=True)
class VisibleModel:
    """A model that a project may use.

    Attributes:
        name: in requests.
        created_at: seconds since 1970; None for a base model.
        tuned: whether a job of this server made it.
        own: whether the project may delete it.
    """

    name: str
    created_at: int | None
    tuned: bool
    own: bool


def resolve(session: Session, caller: Caller, name: str) -> ModelRef:
    """The weights behind a name in a request: a model's, in either dialect, or a deployment's.

    Raises:
        ApiError: 404 ``model_not_found`` with the names that there are, or as ``our_name`` says
            of deployments that are not ready.
    """
    found = _find(session, caller, our_name(session, caller.project, name))
    if found is None:
        raise _not_found(name, [model.name for model in visible(session, caller)])
    return replace(found, name=name)


def weights(session: Session, caller: Caller, name: str) -> ModelRef:
    """The weights of a mapped base, or of a tuned model or checkpoint of the caller's.

    Raises:
        ApiError: 404 ``model_not_found`` with the names that there are.
    """
    found = _find(session, caller, name)
    if found is None:
        raise _not_found(name, [model.name for model in visible(session, caller)])
    return found


def _find(session: Session, caller: Caller, name: str) -> ModelRef | None:
    settings = _settings(session)
    tuned = session.scalar(usable(caller.project).where(TunedModel.name == name))
    if tuned is not None:
        return ModelRef(tuned.base, str(settings.home / tuned.folder), name, tuned.sha256)
    base = base_of(settings, name)
    return None if base is None else ModelRef(base, None, name)


def visible(session: Session, caller: Caller) -> list[VisibleModel]:
    """All models that the caller may use: base models, then tuned ones in order of creation."""
    bases = [VisibleModel(name, None, False, False) for name in sorted(_settings(session).models)]
    rows = session.scalars(usable(caller.project).order_by(TunedModel.seq)).all()
    return bases + [
        VisibleModel(row.name, row.created_at, True, row.project == caller.project) for row in rows
    ]


def remove(session: Session, caller: Caller, name: str) -> Path:
    """Forget a tuned model of the caller's project; inside ``database.writing``.

    Returns:
        The folder of its weights, to be removed once the transaction is committed.

    Raises:
        ApiError: 404, there is none; 403, it is a base model or another project's; 409, it is
            deployed, or a job that is not over begins with it.
    """
    row = session.scalar(usable(caller.project).where(TunedModel.name == name))
    if row is None:
        resolve(session, caller, name)  # says what there is
        raise ApiError(
            403,
            f"The model {name!r} is a base model; it is removed in the server's settings.",
            code="insufficient_permissions",
        )
    if row.project != caller.project:
        raise ApiError(
            403,
            f"The model {name!r} belongs to another project, which let this one use it.",
            code="insufficient_permissions",
        )
    deployment = deployment_of(session, row.name)
    if deployment is not None:
        raise ApiError(
            409,
            f"The model {name!r} is deployed{_where(deployment, caller)}. Delete the deployment "
            "first.",
            code="model_deployed",
        )
    child = session.scalar(
        select(Job).where(Job.parent == row.name, Job.has_worker | Job.status.not_in(OVER)).limit(1)
    )
    if child is not None:
        whose = child.id if child.project == caller.project else "of another project"
        raise ApiError(
            409,
            f"The fine-tuning job {whose} begins with the model {name!r}. Wait until the job is "
            "over, or cancel it.",
            code="model_in_use",
        )
    row.deleted_at = now()
    return _settings(session).home / row.folder


def _where(deployment: Deployment, caller: Caller) -> str:
    own = deployment.project == caller.project
    return f" as {deployment.name!r}" if own else " by another project"


def base_of(settings: ServerSettings, name: str) -> str | None:
    """The local model that a base name stands for, or None."""
    return settings.bases.get(name)


def usable(project: str) -> Select[TunedModel]:
    """The tuned models and checkpoints that a project may use: its own, and those permitted."""
    shared = select(CheckpointPermission.model).where(CheckpointPermission.grantee == project)
    mine: ColumnElement[bool] = TunedModel.project == project
    return select(TunedModel).where(
        TunedModel.deleted_at.is_(None), mine | TunedModel.name.in_(shared)
    )


def _settings(session: Session) -> ServerSettings:
    settings = session.info["settings"]
    assert isinstance(settings, ServerSettings)
    return settings


def _not_found(name: str, known: Sequence[str]) -> ApiError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ApiError(
        404,
        f"The model {name[:200]!r} does not exist or you do not have access to it. {guess}"
        f"There is: {', '.join(known[:_SHOWN]) or '(none)'}{more}.",
        code="model_not_found",
        param="model",
    )
