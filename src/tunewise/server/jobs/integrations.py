"""A job's ``integrations``: trackers that its worker feeds, with this server's own access.

A request says where in a tracker a run belongs. Keys and addresses come from the environment of
the server alone, so that nobody can have figures sent to a place of their own choosing, or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunewise.errors import TrainingError
from tunewise.server.jobs.schema import Tracking

_VARIABLES: Mapping[Tracking, Mapping[str, str]] = {
    "wandb": {"project": "WANDB_PROJECT", "entity": "WANDB_ENTITY", "tags": "WANDB_TAGS"},
    "trackio": {"project": "TRACKIO_PROJECT"},
    "mlflow": {"project": "MLFLOW_EXPERIMENT_NAME"},
}
"""How each tracker reads what a request says."""


def unavailable(kind: Tracking) -> str | None:
    """Why this server cannot report to a tracker, in a sentence; None where it can."""
    from tunewise.training.trackers import TRACKERS, check_trackers

    try:
        check_trackers([kind])
    except TrainingError as error:
        return f"{error.message}. {error.hint}" if error.hint else f"{error.message}."
    lacking = getattr(TRACKERS.load(kind), "unattended_without", lambda: None)()
    return f"the environment of this server holds no {lacking}." if lacking else None


def notices(integrations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What to tell about a job's integrations: level and text of each event."""
    told = []
    for place, integration in enumerate(integrations):
        kind: Tracking = integration["type"]
        if any(kind == other["type"] for other in integrations[:place]):
            told.append(("warn", f"Of several integrations of type {kind}, the first one counts"))
        elif reason := unavailable(kind):
            text = (
                f"The integration {kind} is recorded with the job, but nothing is sent: {reason} "
                "Every figure is in the job's events and its result file"
            )
            told.append(("warn", text))
        else:
            told.append(("info", f"The job's figures are reported to {kind}"))
    return told


def trackers(integrations: Sequence[Mapping[str, Any]] | None) -> dict[str, dict[str, str]]:
    """Trackers that a job reports to, each with the environment variables that say where."""
    found: dict[str, dict[str, str]] = {}
    for integration in integrations or ():
        kind: Tracking = integration["type"]
        if kind not in found and unavailable(kind) is None:
            asked = integration[kind]
            found[kind] = {
                variable: ",".join(value) if isinstance(value, list) else str(value)
                for name, variable in _VARIABLES[kind].items()
                if (value := asked.get(name))
            }
    return found
