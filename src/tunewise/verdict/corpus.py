"""Metrics of a whole set (macro-F1, BLEU) that are not the mean of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tunewise.errors import DataError
from tunewise.verdict.intervals import FloatArray, Limits
from tunewise.verdict.resampling import (
    IntArray,
    affordable,
    bca_limits,
    permutation_p,
    random_flips,
    resampled_rows,
)

T = TypeVar("T")

CorpusMetric = Callable[[IntArray], FloatArray]
"""The metric of many picked sets at once.

It is called with row numbers of shape (sets, rows per set) and returns the metric of each set,
shape (sets,), in 0..1. The numbers point into one stack: all rows of the first arm, run after
run, then all rows of the second. So any mixture of arms and rows can be asked for.
"""


def corpus_metric_of(aggregate: Callable[[Sequence[T]], float], *arms: Sequence[T]) -> CorpusMetric:
    """A ``CorpusMetric`` from a function of a sequence of items, one call per picked set.

    Args:
        aggregate: for instance ``Scorer.aggregate``.
        arms: the items of each arm, in the stack's order (runs of an arm one after the other).
    """
    stack = [item for arm in arms for item in arm]

    def metric(picks: IntArray) -> FloatArray:
        sets = ([stack[i] for i in row] for row in picks.tolist())
        return np.fromiter((aggregate(items) for items in sets), np.float64, count=len(picks))

    return metric


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusArm:
    """The rows of one arm inside the stack of a ``CorpusMetric``.

    Attributes:
        offset: where the arm begins in the stack.
        runs: how many runs (or samples) it has.
        n: rows per run.
    """

    metric: CorpusMetric
    offset: int
    runs: int
    n: int

    def scores(self, rows: IntArray) -> FloatArray:
        """The metric of each run on each set of rows, shape (runs, sets)."""
        picked = [self.metric(self.offset + run * self.n + rows) for run in range(self.runs)]
        scores = np.asarray(picked, dtype=np.float64)
        if scores.shape != (self.runs, len(rows)) or not np.isfinite(scores).all():
            raise DataError(
                "the corpus metric did not give one finite number for each resampled set",
                hint="A metric must be defined for every set of rows, also where a label is absent "
                "(count its score as 0).",
            )
        return scores

    def whole(self) -> FloatArray:
        """The metric of each run on all rows, shape (runs,)."""
        return self.scores(np.arange(self.n)[None, :])[:, 0]

    def linearised(self) -> FloatArray:
        """Jackknife pseudo-values ``n·θ − (n − 1)·θ_without_i``, shape (runs, n).

        They stand for item scores wherever a variance is needed: their rows may be clustered and
        their runs crossed like those of any other score (Efron & Tibshirani 1993, chapter 11).
        """
        left_out = np.concatenate([self.scores(rows) for rows in _left_out_rows(self.n)], axis=1)
        return np.asarray(
            self.n * self.whole()[:, None] - (self.n - 1) * left_out, dtype=np.float64
        )


def _left_out_rows(n: int) -> Iterator[IntArray]:
    """Blocks of all row numbers but one, (sets, n − 1) each, in order of the row left out."""
    block = max(1, (1 << 21) // n)
    columns = np.arange(n - 1)
    for start in range(0, n, block):
        without = np.arange(start, min(n, start + block))[:, None]
        yield columns + (columns >= without)


def corpus_bca(
    first: CorpusArm,
    second: CorpusArm | None,
    *,
    differences: FloatArray,
    resamples: int,
    rng: np.random.Generator,
    alpha: float,
) -> Limits | None:
    """BCa limits of the (difference of the) metric; both arms see the same resampled rows.

    Args:
        differences: pseudo-values of the difference, shape (n,); give the acceleration.
    """

    def score(rows: IntArray) -> FloatArray:
        scores = first.scores(rows).mean(axis=0)
        if second is not None:
            scores = scores - second.scores(rows).mean(axis=0)
        return np.asarray(scores, dtype=np.float64)

    n = first.n
    estimate = float(score(np.arange(n)[None, :])[0])
    blocks = resampled_rows(n, affordable(resamples, n), rng)
    resampled = np.concatenate([score(rows) for rows in blocks])
    left_out = (n * estimate - differences) / (n - 1)
    return bca_limits(estimate, resampled, left_out, alpha=alpha)


def swap_p(
    first: CorpusArm,
    second: CorpusArm,
    *,
    units: IntArray,
    resamples: int,
    rng: np.random.Generator,
) -> float:
    """Permutation p-value: answers of whole units change arms at random; single runs only.

    Args:
        units: the unit (row or cluster) of each row, numbered from 0, shape (n,).
    """
    rows = np.arange(first.n)
    observed = float(first.whole()[0] - second.whole()[0])
    count = int(units.max()) + 1
    permuted = []
    for flips in random_flips(count, affordable(resamples, max(count, first.n)), rng):
        swapped = flips[:, units].astype(bool)
        one = np.where(swapped, second.offset + rows, first.offset + rows)
        other = np.where(swapped, first.offset + rows, second.offset + rows)
        permuted.append(first.metric(one) - first.metric(other))
    return permutation_p(observed, np.concatenate(permuted))
