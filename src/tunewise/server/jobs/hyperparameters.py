"""Hyper-parameters: what a request may say, and what ``auto`` turns into.

``auto`` follows what OpenAI has published: the epochs of the notebook *Data preparation and
analysis for chat model fine-tuning*, and a batch of about 0.2 % of the rows.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunewise.data.tokens import default_epochs
from tunewise.server.jobs.training_files import Method

MAX_BATCH_SIZE = 256
BATCH_SHARE = 0.002
DEFAULT_BETA = 0.1
"""Of DPO (Rafailov et al., 2305.18290)."""

TRAINERS: Mapping[Method, str] = {"supervised": "sft", "dpo": "dpo", "reinforcement": "grpo"}
"""What the trainer calls each method."""

EVAL_INTERVAL = 10
MOST_EVAL_SAMPLES = 100
"""Of the validation file, for a look between two epochs where the request leaves it open."""

AUTO = "auto"
FORMS = ("chat", "raw")
"""Of rows of a prompt and its completion: through the chat template, or as they stand."""
EFFORTS = ("default", "low", "medium", "high")


class HyperparameterError(ValueError):
    """A hyper-parameter that cannot be meant.

    Attributes:
        name: which one.
        message: what is wrong and what may be written.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


@dataclass(frozen=True, slots=True)
class Range:
    """What one hyper-parameter may be, beside ``auto``.

    Attributes:
        low, high: the bounds; ``high`` is included.
        whole: only whole numbers.
        open: ``low`` itself is excluded.
    """

    low: float
    high: float = math.inf
    whole: bool = False
    open: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.open else value >= self.low
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.low:g}" if self.open else f"from {self.low:g}"
        return f"{kind} {low}" + (f" up to {self.high:g}" if math.isfinite(self.high) else "")


_COMMON = {
    "n_epochs": Range(1, 50, whole=True),
    "batch_size": Range(1, MAX_BATCH_SIZE, whole=True),
    "learning_rate_multiplier": Range(0, open=True),
}
RANGES: Mapping[Method, Mapping[str, Range]] = {
    "supervised": _COMMON,
    "dpo": {**_COMMON, "beta": Range(0, 2, open=True)},
    "reinforcement": {
        **_COMMON,
        "compute_multiplier": Range(0.00001, 10),
        "eval_interval": Range(1, whole=True),
        "eval_samples": Range(1, whole=True),
    },
}
# Azure's tutorials send it; OpenAI has not known it since 2023. It never had an effect on chats.
_IGNORED = frozenset({"prompt_loss_weight"})


def requested(method: Method, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The hyper-parameters of a request, checked; what is not said is ``auto``.

    Args:
        given: from ``method.<type>.hyperparameters``, or the deprecated field of the request.
            ``-1`` is Azure's word for ``auto``; null is ``auto`` too. Names that the method does
            not know are left out, see :func:`unknown`.

    Raises:
        HyperparameterError: a value outside of its range.
    """
    ranges = RANGES[method]
    values: dict[str, Any] = dict.fromkeys(ranges, AUTO)
    if method == "reinforcement":
        values["reasoning_effort"] = "default"
    for name, value in (given or {}).items():
        if name == "reasoning_effort" and method == "reinforcement":
            if value is not None and value not in EFFORTS:
                raise HyperparameterError(name, f"must be one of {', '.join(EFFORTS)}")
            values[name] = value or "default"
            continue
        if name == "form" and method == "supervised":
            if value not in (None, AUTO, *FORMS):
                raise HyperparameterError(name, f"must be 'auto' or one of {', '.join(FORMS)}")
            values[name] = value or AUTO
            continue
        if name in ranges:
            values[name] = _checked(name, value, ranges[name])
    return values


def unknown(method: Method, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that have no effect, as at OpenAI, and a sentence about each.

    Args:
        given: as for :func:`requested`.
    """
    words = {"reinforcement": ["reasoning_effort"], "supervised": ["form"], "dpo": []}
    known = [*RANGES[method], *words[method]]
    for name in given:
        if name in known or name in _IGNORED:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(known)}."
        yield (
            name[:40],
            f"The hyperparameter '{name[:40]}' has no effect, since the method '{method}' does not "
            f"know it: {hint}",
        )


def _checked(name: str, value: Any, allowed: Range) -> float | str:
    if value is None or value == AUTO or (value == -1 and not isinstance(value, bool)):
        return AUTO
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise HyperparameterError(name, f"must be 'auto' or {allowed}")
    if not allowed.holds(value) or (allowed.whole and value != int(value)):
        raise HyperparameterError(name, f"must be 'auto' or {allowed}, not {value}")
    return int(value) if allowed.whole else value


def resolved(values: Mapping[str, Any], rows: int, validation_rows: int = 0) -> dict[str, Any]:
    """The hyper-parameters that a job runs with, once its rows are counted.

    Args:
        values: from ``requested``.
        rows: examples of the training file.
        validation_rows: of the validation file.
    """
    defaults: dict[str, Any] = {
        "n_epochs": default_epochs(rows),
        "batch_size": default_batch_size(rows),
        "learning_rate_multiplier": 1.0,
        "beta": DEFAULT_BETA,
        "form": "chat",
        "compute_multiplier": 1.0,
        "eval_interval": EVAL_INTERVAL,
        "eval_samples": max(1, min(validation_rows, MOST_EVAL_SAMPLES)),
    }
    return {name: defaults[name] if value == AUTO else value for name, value in values.items()}


def remarks(values: Mapping[str, Any], validation_rows: int) -> Iterator[tuple[str, str]]:
    """What has no effect on this job: the hyper-parameter and a sentence about it.

    Args:
        values: from ``requested``.
    """
    effort = values.get("reasoning_effort", "default")
    if effort != "default":
        yield (
            "reasoning_effort",
            f"reasoning_effort={effort} has no effect on this model, which has no levels of "
            "reasoning effort; its answers are sampled as it gives them.",
        )
    given = [n for n in ("eval_interval", "eval_samples") if values.get(n, AUTO) != AUTO]
    if given and not validation_rows:
        yield given[0], f"{' and '.join(given)} mean nothing without a validation_file."


def default_batch_size(rows: int) -> int:
    """About 0.2 % of the rows: one row for all small files."""
    return max(1, min(MAX_BATCH_SIZE, round(rows * BATCH_SHARE)))


def learning_rate(spec: str, method: Method, multiplier: float) -> float:
    """The peak rate: the trainer's usual one for an adapter on this model, times ``multiplier``.

    Args:
        spec: of the base model; its weights are counted, not loaded.

    Raises:
        ModelError: the model is not there.
    """
    from tunewise.training.sweep import count_parameters, default_learning_rates

    return default_learning_rates(count_parameters(spec), "lora", TRAINERS[method])[1] * multiplier
