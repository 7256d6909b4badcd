"""The joint to a metric: a score for one answer, and one for a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from tunewise.data.chat import Completion, Example, Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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

    Its class may have ``files``, the options whose values are paths, and ``joints``, what the
    program and not the study gives it (see ``registry.get_scorer``).
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


@runtime_checkable
class ResampledScorer(Protocol):
    """A corpus metric that can score many picked sets at once; all of Tunewise's own do."""

    def aggregate_indices(
        self, items: Sequence[ItemScore], index_matrix: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """The metric of each picked set, in 0..1, shape (sets,).

        Args:
            items: the stack that the numbers point into, shape (rows,).
            index_matrix: row numbers, repeats allowed, shape (sets, rows per set).
        """
        ...


@runtime_checkable
class SetFigures(Protocol):
    """A metric with more to say about a set than its one score."""

    def figures(self, items: Sequence[ItemScore]) -> Mapping[str, float]:
        """Further figures of a set by name (``precision``, ``valid_json``…), in 0..1."""
        ...


@runtime_checkable
class SetWarnings(Protocol):
    """A metric that can say when its own figures are to be doubted."""

    def warnings(self, items: Sequence[ItemScore]) -> list[str]:
        """Sentences for the report; empty where there is nothing to say."""
        ...


@runtime_checkable
class BatchScorer(Protocol):
    """A metric that is quicker on many answers at once: a judge that asks a model."""

    def score_all(
        self,
        examples: Sequence[Example],
        completions: Sequence[Completion],
        progress: Progress | None = None,
    ) -> list[ItemScore]:
        """What ``score`` gives for each pair, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two answers is better.

    Attributes:
        winner: ``one``, ``other`` or ``tie``.
        details: both verdicts, lengths and, where something failed, the reason.
    """

    winner: Literal["one", "other", "tie"]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """1 where the first answer is better, 0 where the other is, 0.5 for a tie."""
        return {"one": 1.0, "tie": 0.5, "other": 0.0}[self.winner]


class PairScorer(Protocol):
    """Compares two answers to one example."""

    def compare(self, example: Example, one: Completion, other: Completion) -> Preference:
        """Which is better. A failed answer loses; two failed answers tie."""
        ...
