"""BLEU and chrF: metrics of a whole set, kept as sufficient statistics of each row.

The statistics are sacrebleu's; only the last step, from summed statistics to the score, is written
anew, for thousands of resampled sets at once. Tests hold it to sacrebleu's own score.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tunewise.scoring.answers import AnswerScorer
from tunewise.scoring.base import ItemScore
from tunewise.scoring.resampling import resampled_sums

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ORDERS = 4


class _Summed(AnswerScorer):
    """A score that is a function of summed statistics of the rows."""

    corpus: ClassVar[bool] = True

    @property
    def _metric(self) -> Any:
        raise NotImplementedError

    def _from_sums(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        raise NotImplementedError

    def compare(self, gold: str, answer: str) -> ItemScore:
        """The row's own score in 0..1 as ``value``; its statistics in ``data``."""
        import numpy as np

        statistics = self._statistics(gold, answer)
        if gold.strip() == answer.strip():
            return ItemScore(1.0, data=statistics)
        return ItemScore(float(self._from_sums(np.array([statistics], float))[0]), data=statistics)

    def failed(self, gold: str, reason: str) -> ItemScore:
        """0; counts as an empty answer."""
        return ItemScore(0.0, {"reason": reason}, self._statistics(gold, ""))

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        """The score of the set from its summed statistics, in 0..1."""
        import numpy as np

        if not items:
            return 0.0
        return float(self.aggregate_indices(items, np.arange(len(items))[None, :])[0])

    def aggregate_indices(
        self, items: Sequence[ItemScore], index_matrix: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """The score of each picked set, shape (sets,)."""
        import numpy as np

        statistics = np.array([item.data for item in items], dtype=np.float64)
        return self._from_sums(resampled_sums(statistics, index_matrix))

    def _statistics(self, gold: str, answer: str) -> list[int]:
        # sacrebleu has no public way to a row's statistics; this one has stood since 2.0.
        rows = self._metric._extract_corpus_statistics([answer], [[gold]])
        return [int(count) for count in rows[0]]


@dataclass(frozen=True)
class Bleu(_Summed):
    """BLEU-4 of the set, as sacrebleu computes it; rows show their sentence BLEU."""

    name: ClassVar[str] = "bleu"

    tokenize: Literal["13a", "intl", "char", "zh", "none"] = Field(
        "13a", description="sacrebleu's tokenizer; char or zh for Chinese, intl for other scripts"
    )
    lowercase: bool = Field(False, description="A is a")

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.bleu import BLEU

        return BLEU(
            tokenize=self.tokenize, lowercase=self.lowercase, effective_order=True, force=True
        )

    def _from_sums(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Papineni et al. 2002, exponential smoothing; orders longer than any answer left out."""
        import numpy as np

        given, wanted = sums[:, 0], sums[:, 1]
        right, total = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS :]
        used = np.cumprod(total > 0, axis=1).astype(bool)
        missed = used & (right == 0)
        smoothed = 1.0 / (2.0 ** np.cumsum(missed, axis=1) * np.maximum(total, 1))
        precision = np.where(missed, smoothed, right / np.maximum(total, 1))
        logs = np.where(used, np.log(np.where(used, precision, 1.0)), 0.0)
        order = np.maximum(used.sum(axis=1), 1)
        brevity = np.minimum(0.0, 1.0 - wanted / np.maximum(given, 1))
        score = np.exp(brevity + logs.sum(axis=1) / order)
        return np.asarray(np.where(right.any(axis=1), np.minimum(score, 1.0), 0.0))


@dataclass(frozen=True)
class Chrf(_Summed):
    """chrF of the set, as sacrebleu computes it; chrF++ with ``word_order: 2``."""

    name: ClassVar[str] = "chrf"

    char_order: int = Field(6, ge=1, le=20, description="longest run of characters")
    word_order: int = Field(0, ge=0, le=10, description="longest run of words; 2 is chrF++")
    beta: int = Field(2, ge=1, le=10, description="recall counts beta times as much as precision")
    lowercase: bool = Field(False, description="A is a")

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
        )

    def _from_sums(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Popović 2015: F of the mean precision and recall over the orders that both sides have."""
        import numpy as np

        given, wanted, right = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
        both = (given > 0) & (wanted > 0)
        orders = np.maximum(both.sum(axis=1), 1)
        precision = (both * right / np.maximum(given, 1)).sum(axis=1) / orders
        recall = (both * right / np.maximum(wanted, 1)).sum(axis=1) / orders
        factor = float(self.beta**2)
        below = factor * precision + recall
        score = (1 + factor) * precision * recall / np.where(below > 0, below, 1.0)
        return np.asarray(np.minimum(score, 1.0), dtype=np.float64)
