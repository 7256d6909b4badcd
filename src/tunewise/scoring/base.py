"""The joint to a metric: a score for one answer, and one for a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunewise.data.chat import Completion, Example


@dataclass(frozen=True, slots=True)
class ItemScore:
    """The score of one answer.

    Attributes:
        value: in 0..1.
        details: what explains it (``{"valid_json": True, …}``), for the report.
        data: what a corpus metric needs to be recomputed from items (gold and predicted label,
            n-gram counts); JSON values only.
    """

    value: float
    details: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None


class Scorer(Protocol):
    """A metric.

    Attributes:
        name: as written in the study file.
        binary: every item score is 0 or 1.
        corpus: ``aggregate`` is not the mean of the items (macro-F1, BLEU).
    """

    name: str
    binary: bool
    corpus: bool

    def score(self, example: Example, completion: Completion) -> ItemScore:
        """Score one answer. Never raises on a bad answer: that is a 0 with the reason."""
        ...

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        """The score of a set, in 0..1; the mean of the items unless ``corpus``."""
        ...
