"""The paired comparison of two candidates on the same rows: one entry that picks the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError
from tunewise.verdict import clusters as clustering
from tunewise.verdict import intervals, resampling, seeds
from tunewise.verdict.corpus import CorpusArm, CorpusMetric, corpus_bca, swap_p
from tunewise.verdict.folds import fold_variance
from tunewise.verdict.intervals import FloatArray, Limits
from tunewise.verdict.result import FEWEST_CLUSTERS, Discordance, PairedComparison
from tunewise.verdict.single import BOOTSTRAP_FROM, by_variance, mean_interval
from tunewise.verdict.words import About, Method, SignificanceTest

_ROUNDING = 1e-12  # a standard error below this is a difference that never varies
_MOSTLY_ALONE = 2.0  # rows in the cluster that the average row sees
_FEWEST_BEYOND = 20  # resamples beyond a limit, for it to be read from them

# One row or one cluster tells nothing about the spread: the largest possible is reported.
_UNKNOWN_VARIANCE = seeds.TwoLevel(variance=1.0, row_variance=1.0, seed_variance=0.0, df=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """The two arms as (runs, n) matrices; pseudo-values for a corpus metric."""

    arms: tuple[FloatArray, FloatArray]
    scores: tuple[float, float]
    corpus: tuple[CorpusArm, CorpusArm] | None
    clusters: clustering.Clusters | None
    folds: npt.NDArray[np.generic] | None
    tables: bool
    two_level: bool
    alpha: float
    score_range: float
    resamples: int
    rng_seed: int
    exact: bool

    @property
    def gain(self) -> float:
        return self.scores[0] - self.scores[1]

    @property
    def differences(self) -> FloatArray:
        return np.asarray(self.arms[0].mean(axis=0) - self.arms[1].mean(axis=0), dtype=np.float64)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.rng_seed)


def compare(
    with_scores: npt.ArrayLike,
    without_scores: npt.ArrayLike,
    *,
    clusters: Sequence[object] | npt.NDArray[np.generic] | None = None,
    folds: Sequence[int] | None = None,
    binary: bool,
    corpus_metric: CorpusMetric | None = None,
    repeats: Literal["seeds", "samples"] = "seeds",
    alpha: float = 0.05,
    exact: bool = False,
    score_range: float = 1.0,
    resamples: int = 10_000,
    rng_seed: int = 0,
) -> PairedComparison:
    """Compare two candidates on the same rows; the method follows from the data.

    ========================================  ==================================  ============
    data                                      interval                            p-value
    ========================================  ==================================  ============
    three or more crossed runs in an arm      two-level, Satterthwaite t          t
    groups given, some with several rows      clustered variance, t; where most   sign flip
                                              rows stand alone, no narrower than
                                              for independent rows
    0/1, one run in each arm                  Newcombe and Tango, the envelope    McNemar mid-p
    other means, under 20 rows that differ    rare events (``rare_limits``)       sign flip
    other means, fewer than 300 rows          t(n − 1)                            sign flip
    other means, from 300 rows on             BCa bootstrap, 10,000 resamples     sign flip
    corpus metric                             BCa, recomputed in each resample;   swapped pairs
                                              under 300 rows the wider of it and t
    all rows differ alike                     D ± range·(1 − (alpha/2)^(1/n))     as above
    folds given                               the wider of these and t over rows  as above
                                              and folds (``fold_variance``)
    ========================================  ==================================  ============

    Choices where the method leaves room: groups of one row each are independent rows. One or two
    runs, and ``repeats="samples"``, are averaged per row first. A corpus metric with groups or
    runs enters the same formulas by its jackknife pseudo-values. In a zero-variance interval
    clusters count instead of rows. One row alone gives the whole range. Where a limit would lie
    beyond what the resamples can show, it is the wider one of BCa and t.

    Args:
        with_scores: scores with fine-tuning, in 0..1; shape (n,), or (runs, n).
        without_scores: the same rows without; its own number of runs.
        clusters: the group of each row (document, user, template), or None where unknown.
        folds: which fold each row is of, where each was answered by a system that learnt from the
            others; None where one system answered them all.
        binary: every single score is 0 or 1.
        corpus_metric: for a metric that is not the mean of the rows; it picks from the stack of
            ``with_scores`` (runs one after the other) and then ``without_scores``, of which
            only the shapes matter then.
        repeats: what the first axis is: training seeds (crossed), or samples of one system.
        alpha: 1 − the interval's level; ``sequential.look_alpha`` for a further look.
        exact: McNemar's exact p-value in place of mid-p.
        score_range: the range of one score.

    Raises:
        DataError: arms of different length, no rows, scores outside 0..1 or not 0/1.
    """
    one, other = _arm(with_scores, "with"), _arm(without_scores, "without")
    n = one.shape[1]
    if other.shape[1] != n:
        raise DataError(
            f"{n} rows were scored with fine-tuning and {other.shape[1]} without",
            hint="A paired comparison needs both scores of every row; count a failed answer as 0.",
        )
    if binary and corpus_metric is None and not (_is_binary(one) and _is_binary(other)):
        raise DataError(
            "a score other than 0 or 1 was given for a metric that only knows right and wrong",
            hint="Choose a metric with partial credit, or score each answer 0 or 1.",
        )
    groups = clustering.cluster_rows(clusters, n) if clusters is not None else None
    runs = (one.shape[0], other.shape[0])
    if repeats == "samples" and corpus_metric is None:
        one, other = one.mean(axis=0, keepdims=True), other.mean(axis=0, keepdims=True)
    corpus = None
    scores = (float(one.mean()), float(other.mean()))
    arms = (one, other)
    if corpus_metric is not None:
        corpus = (
            CorpusArm(metric=corpus_metric, offset=0, runs=runs[0], n=n),
            CorpusArm(metric=corpus_metric, offset=runs[0] * n, runs=runs[1], n=n),
        )
        scores = (float(corpus[0].whole().mean()), float(corpus[1].whole().mean()))
        if n > 1:
            arms = (corpus[0].linearised(), corpus[1].linearised())
    problem = _Problem(
        arms=arms,
        scores=scores,
        corpus=corpus,
        clusters=groups if groups is not None and not groups.singletons else None,
        folds=np.asarray(folds) if folds is not None else None,
        tables=binary and corpus is None and runs == (1, 1),
        two_level=repeats == "seeds" and max(runs) >= seeds.FEWEST_SEEDS,
        alpha=alpha,
        score_range=score_range,
        resamples=resamples,
        rng_seed=rng_seed,
        exact=exact,
    )
    return _report(problem, runs=runs, groups=groups, recipe=repeats == "seeds")


def _arm(scores: npt.ArrayLike, name: str) -> FloatArray:
    arm = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if arm.ndim != 2 or arm.size == 0:
        raise DataError(
            f"there are no scores {name} fine-tuning to compare",
            hint="At least one test row must have been answered by both candidates.",
        )
    if not np.isfinite(arm).all() or arm.min() < 0 or arm.max() > 1:
        raise DataError(
            f"a score {name} fine-tuning lies outside 0 to 1",
            hint="Scores of single answers are given in 0..1.",
        )
    return arm


def _is_binary(arm: FloatArray) -> bool:
    return bool(np.isin(arm, (0.0, 1.0)).all())


def _report(
    problem: _Problem,
    *,
    runs: tuple[int, int],
    groups: clustering.Clusters | None,
    recipe: bool,
) -> PairedComparison:
    n = problem.arms[0].shape[1]
    warnings: list[str] = []
    if n > 1:
        level = seeds.two_level(
            problem.arms if problem.two_level else (problem.differences[None, :],),
            problem.clusters,
        )
        limits, method = _limits(problem, level, warnings)
        if problem.folds is not None:
            folded = fold_variance(problem.differences, problem.folds, problem.clusters)
            by_t = intervals.t_limits(
                problem.gain, folded.variance**0.5, folded.df, alpha=problem.alpha
            )
            limits = Limits(min(limits.low, by_t.low), max(limits.high, by_t.high))
            if folded.variance > level.variance:
                # More rows shrink both parts: a fold of more rows, learnt from more.
                level = replace(folded, row_variance=folded.variance, seed_variance=0.0)
        p, test = _p_value(problem, level)
    else:
        level = _UNKNOWN_VARIANCE
        limits, method, p, test = Limits(-1.0, 1.0), Method.WHOLE_RANGE, 1.0, SignificanceTest.NONE
        warnings.append("One row cannot show a difference.")
    if problem.corpus is not None and n < BOOTSTRAP_FROM:
        warnings.append(
            f"The metric is computed over the whole set; with {n} rows (fewer than "
            f"{BOOTSTRAP_FROM}) its interval is approximate."
        )
    if groups is not None and groups.count < FEWEST_CLUSTERS:
        warnings.append(
            f"The rows come from {groups.count} group(s); fewer than "
            f"{FEWEST_CLUSTERS} cannot decide."
        )
    if not np.isfinite(level.variance):
        level = _UNKNOWN_VARIANCE
    several = problem.folds is not None or runs[0] >= seeds.FEWEST_SEEDS
    about = About.RECIPE if recipe and several else About.CHECKPOINT
    limits = limits.within(-1.0, 1.0)
    trained = problem.arms[0]
    t_based = method in (Method.PAIRED_T, Method.CLUSTER_T, Method.TWO_LEVEL_T)
    return PairedComparison(
        gain=100 * problem.gain,
        low=100 * limits.low,
        high=100 * limits.high,
        p_value=p,
        method=method,
        test=test,
        alpha=problem.alpha,
        n=n,
        clusters=groups.count if groups is not None else None,
        folds=len(np.unique(problem.folds)) if problem.folds is not None else None,
        seeds=runs[0],
        seeds_without=runs[1],
        about=about,
        with_score=100 * problem.scores[0],
        without_score=100 * problem.scores[1],
        without_low=100 * _score_low(problem, arm=1),
        discordance=_table(problem) if problem.tables else None,
        se=100 * level.variance**0.5,
        seed_se=100 * level.seed_variance**0.5,
        sd_difference=100 * (level.row_variance * n) ** 0.5,
        df=level.df if t_based else None,
        seed_sd=_points(seeds.seed_sd(trained)) if recipe else None,
        flip_rate=seeds.flip_rate(trained) if recipe and problem.corpus is None else None,
        warnings=tuple(warnings),
    )


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _table(problem: _Problem) -> Discordance:
    one, other = problem.arms[0][0] > 0.5, problem.arms[1][0] > 0.5
    return Discordance(
        both=int(np.count_nonzero(one & other)),
        only_with=int(np.count_nonzero(one & ~other)),
        only_without=int(np.count_nonzero(~one & other)),
        neither=int(np.count_nonzero(~one & ~other)),
    )


def _limits(problem: _Problem, level: seeds.TwoLevel, warnings: list[str]) -> tuple[Limits, Method]:
    gain, alpha = problem.gain, problem.alpha
    if not np.isfinite(level.variance):
        return Limits(-1.0, 1.0), Method.WHOLE_RANGE
    if problem.tables and problem.clusters is None and not problem.two_level:
        table = _table(problem)
        counts = (table.both, table.only_with, table.only_without, table.neither)
        return intervals.newcombe_tango(*counts, alpha=alpha), Method.NEWCOMBE_TANGO
    if level.variance**0.5 <= _ROUNDING:
        units = problem.clusters.count if problem.clusters is not None else len(problem.differences)
        limits = intervals.zero_variance(gain, units, alpha=alpha, score_range=problem.score_range)
        return limits, Method.ZERO_VARIANCE
    by_t = intervals.t_limits(gain, level.variance**0.5, level.df, alpha=alpha)
    if problem.two_level:
        return by_t, Method.TWO_LEVEL_T
    if problem.clusters is not None:
        return _no_narrower(by_t, problem), Method.CLUSTER_T
    if problem.corpus is None and intervals.few_events(problem.differences):
        rare = intervals.rare_limits(
            problem.differences, alpha=alpha, score_range=problem.score_range
        )
        return rare, Method.RARE_EVENTS
    if problem.corpus is None and len(problem.differences) < BOOTSTRAP_FROM:
        return by_t, Method.PAIRED_T
    bca = _bca(problem)
    if bca is None:
        warnings.append("The bootstrap had no BCa interval here; Student's t was used instead.")
        return by_t, Method.PAIRED_T
    drawn = resampling.affordable(problem.resamples, len(problem.differences))
    if len(problem.differences) < BOOTSTRAP_FROM or drawn * alpha / 2 < _FEWEST_BEYOND:
        # A corpus metric of few rows: BCa covers 87 to 94 %, the wider limits of both 94.5 to 96 %.
        bca = Limits(min(bca.low, by_t.low), max(bca.high, by_t.high))
    return bca, Method.BCA


def _no_narrower(by_t: Limits, problem: _Problem) -> Limits:
    """Clustered limits of rows that mostly stand alone, not narrower than if all of them did.

    Where few rows differ, Student's t errs on rows that stand alone as it does without any groups.
    """
    assert problem.clusters is not None
    if problem.clusters.typical_size >= _MOSTLY_ALONE or problem.corpus is not None:
        return by_t
    if problem.tables:
        table = _table(problem)
        counts = (table.both, table.only_with, table.only_without, table.neither)
        alone = intervals.newcombe_tango(*counts, alpha=problem.alpha)
    elif intervals.few_events(problem.differences):
        alone = intervals.rare_limits(
            problem.differences, alpha=problem.alpha, score_range=problem.score_range
        )
    else:
        return by_t
    return Limits(min(by_t.low, alone.low), max(by_t.high, alone.high))


def _bca(problem: _Problem) -> Limits | None:
    if problem.corpus is None:
        return resampling.bca_mean(
            problem.differences,
            resamples=problem.resamples,
            rng=problem.rng(),
            alpha=problem.alpha,
        )
    return corpus_bca(
        *problem.corpus,
        differences=problem.differences,
        resamples=problem.resamples,
        rng=problem.rng(),
        alpha=problem.alpha,
    )


def _p_value(problem: _Problem, level: seeds.TwoLevel) -> tuple[float, SignificanceTest]:
    clusters = problem.clusters
    if problem.tables and clusters is None and not problem.two_level:
        table = _table(problem)
        if problem.exact:
            p = intervals.mcnemar_exact(table.only_with, table.only_without)
            return p, SignificanceTest.MCNEMAR_EXACT
        return float(
            intervals.mcnemar_midp(table.only_with, table.only_without)
        ), SignificanceTest.MCNEMAR_MIDP
    single = problem.arms[0].shape[0] == problem.arms[1].shape[0] == 1
    if not np.isfinite(level.variance):
        return 1.0, SignificanceTest.NONE
    by_t = problem.two_level or (problem.corpus is not None and not single)
    if by_t and level.variance**0.5 > _ROUNDING:
        return intervals.t_two_sided_p(
            problem.gain / level.variance**0.5, level.df
        ), SignificanceTest.T
    if problem.corpus is not None and single:
        units = clusters.codes if clusters is not None else np.arange(len(problem.differences))
        p = swap_p(*problem.corpus, units=units, resamples=problem.resamples, rng=problem.rng())
        return p, SignificanceTest.SWAP if clusters is None else SignificanceTest.CLUSTER_SWAP
    sums = problem.differences if clusters is None else clusters.sums(problem.differences)
    p = resampling.sign_flip_p(sums, resamples=problem.resamples, rng=problem.rng())
    return p, SignificanceTest.SIGN_FLIP if clusters is None else SignificanceTest.CLUSTER_SIGN_FLIP


def _score_low(problem: _Problem, *, arm: int) -> float:
    values = problem.arms[arm].mean(axis=0)
    if problem.corpus is not None:  # pseudo-values may lie outside 0..1
        low = by_variance(problem.scores[arm], values, problem.clusters, alpha=problem.alpha).low
        return min(max(low, 0.0), 1.0)
    rng = problem.rng()
    return mean_interval(
        values, problem.clusters, alpha=problem.alpha, resamples=problem.resamples, rng=rng
    ).low
