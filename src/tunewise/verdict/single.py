"""The interval of one candidate's score, for bars and for "the target is met"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError
from tunewise.verdict import intervals
from tunewise.verdict.clusters import Clusters, cluster_rows, clustered_variance
from tunewise.verdict.corpus import CorpusArm, CorpusMetric, corpus_bca
from tunewise.verdict.intervals import FloatArray, Limits
from tunewise.verdict.resampling import bca_mean
from tunewise.verdict.seeds import row_variance

BOOTSTRAP_FROM = 300
"""With fewer rows the BCa bootstrap covers only 90 to 93 %, and t is used."""

_ROUNDING = 1e-24  # a variance below this is of scores that never vary


def effective_rows(scores: FloatArray, clusters: Clusters | None) -> float:
    """How many independent rows clustered rows are worth; never more than there are.

    n over the design effect of the scores; the number of clusters where no score varies.
    """
    n = len(scores)
    if clusters is None or clusters.singletons:
        return float(n)
    independent = float(np.var(scores)) / n
    if independent <= 0 or clusters.count < 2:
        return float(clusters.count)
    effect = clustered_variance(scores, clusters) / independent
    return min(float(n), max(n / effect, 1.0)) if effect > 0 else float(n)


def by_variance(
    score: float, values: FloatArray, clusters: Clusters | None, *, alpha: float
) -> Limits:
    """Student's t around ``score``, by the (clustered) variance of the rows' values."""
    if len(values) < 2:
        return Limits(0.0, 1.0)
    variance, df = row_variance(values, clusters)
    if not np.isfinite(variance):
        return Limits(0.0, 1.0)
    if variance <= _ROUNDING:
        units = len(values) if clusters is None else clusters.count
        return intervals.zero_variance(score, units, alpha=alpha)
    return intervals.t_limits(score, variance**0.5, df, alpha=alpha)


def mean_interval(
    values: FloatArray,
    clusters: Clusters | None,
    *,
    alpha: float,
    resamples: int,
    rng: np.random.Generator,
) -> Limits:
    """The interval of a mean of scores, each 0..1 (one for each row).

    0/1: Wilson, at the effective number of rows. Others: t, from 300 rows on BCa; where nearly
    all rows score alike, ``rare_limits`` around that score. (Wilson covers 100 % for scores that
    are not 0/1, since it takes the largest variance possible.)
    """
    score = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all() or len(values) < 2:
        return intervals.wilson(score, effective_rows(values, clusters), alpha=alpha)
    if clusters is None or clusters.singletons:
        kinds, counts = np.unique(values, return_counts=True)
        common = float(kinds[counts.argmax()])
        if intervals.few_events(values - common):
            low, high = intervals.rare_limits(values - common, alpha=alpha)
            return Limits(common + low, common + high).within(0.0, 1.0)
        if len(values) >= BOOTSTRAP_FROM:
            found = bca_mean(values, resamples=resamples, rng=rng, alpha=alpha)
            if found is not None:
                return found.within(0.0, 1.0)
    return by_variance(score, values, clusters, alpha=alpha).within(0.0, 1.0)


def score_interval(
    scores: npt.ArrayLike,
    *,
    clusters: Sequence[object] | npt.NDArray[np.generic] | None = None,
    corpus_metric: CorpusMetric | None = None,
    alpha: float = 0.05,
    resamples: int = 10_000,
    rng_seed: int = 0,
) -> Limits:
    """The interval of one score, in points; see ``mean_interval``.

    Runs are averaged per row first. A corpus metric takes a BCa bootstrap over the rows, or the
    clustered variance of its pseudo-values with t.

    Args:
        scores: in 0..1, shape (n,) or (runs, n).

    Raises:
        DataError: no rows, or not one group per row.
    """
    arm = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if arm.size == 0:
        raise DataError("there are no scores to make an interval from")
    n = arm.shape[1]
    groups = cluster_rows(clusters, n) if clusters is not None else None
    if corpus_metric is not None and n > 1:
        corpus = CorpusArm(metric=corpus_metric, offset=0, runs=arm.shape[0], n=n)
        values = corpus.linearised().mean(axis=0)
        score = float(corpus.whole().mean())
        limits = None
        if groups is None or groups.singletons:
            limits = corpus_bca(
                corpus,
                None,
                differences=values,
                resamples=resamples,
                rng=np.random.default_rng(rng_seed),
                alpha=alpha,
            )
        if limits is None:
            limits = by_variance(score, values, groups, alpha=alpha)
    else:
        limits = mean_interval(
            arm.mean(axis=0),
            groups,
            alpha=alpha,
            resamples=resamples,
            rng=np.random.default_rng(rng_seed),
        )
    limits = limits.within(0.0, 1.0)
    return Limits(100 * limits.low, 100 * limits.high)
