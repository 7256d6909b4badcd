"""The grader of a reinforcement job: checked when the job is made, its models made local."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewise.scoring.graders.errors import GraderError
from tunewise.scoring.graders.schema import parse_grader


def local_grader(grader: Mapping[str, Any], models: Mapping[str, str]) -> dict[str, Any]:
    """A grader as the worker runs it: names of models replaced by the local models behind them.

    A grader may ask only models that the server offers: no other name reaches the worker, where
    it could mean a paid service or a folder.

    Args:
        models: names that requests may use, and local models.

    Raises:
        GraderError: it cannot be meant as written, or asks a model that is not here.
    """
    parse_grader(grader)
    found = _replaced(grader, models, "grader")
    assert isinstance(found, dict)
    return found


def _replaced(value: Any, models: Mapping[str, str], where: str) -> Any:
    if isinstance(value, list):
        return [_replaced(item, models, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    made = {key: _replaced(item, models, f"{where}.{key}") for key, item in value.items()}
    if value.get("type") in ("score_model", "label_model"):
        name = str(value.get("model"))
        if name not in models:
            raise GraderError(
                f"the model {name[:100]!r} is not on this server",
                where=f"{where}.model",
                hint=f"There is: {', '.join(sorted(models)) or '(none)'}.",
            )
        made["model"] = models[name]
    return made
