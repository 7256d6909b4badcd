"""Bootstrap and permutation against scipy, exact enumeration and simulation."""

from __future__ import annotations

from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from tunewise.errors import DataError
from tunewise.verdict import resampling
from tunewise.verdict.compare import compare
from tunewise.verdict.corpus import CorpusArm, corpus_metric_of
from tunewise.verdict.intervals import FloatArray, standard_error
from tunewise.verdict.words import Method, SignificanceTest


def partial_credit(n: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Two correlated scores with many ties at 0 and 1, as list or token F1 give them."""
    rng = np.random.default_rng(seed)
    skill = rng.normal(0.6, 0.4, n)
    one = np.clip(skill + rng.normal(0.05, 0.2, n), 0, 1)
    other = np.clip(skill + rng.normal(0, 0.2, n), 0, 1)
    return one, other


@pytest.mark.parametrize(("n", "seed"), [(300, 1), (500, 2)])
def test_bca_agrees_with_scipy(n: int, seed: int) -> None:
    one, other = partial_credit(n, seed)
    ours = compare(one, other, binary=False)
    theirs = stats.bootstrap(
        (one, other),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        batch=1_000,
        method="BCa",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert ours.method is Method.BCA
    within = 0.2 * 100 * standard_error(one - other)
    assert ours.low == pytest.approx(100 * theirs.low, abs=within)
    assert ours.high == pytest.approx(100 * theirs.high, abs=within)


def test_bca_formula_agrees_with_scipy_on_the_same_resamples() -> None:
    """Same seed, same draws: what is left is the formula alone."""
    values = np.random.default_rng(3).exponential(1.0, 60)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4_000, method="BCa", rng=np.random.default_rng(5)
    )
    ours = resampling.bca_limits(
        float(values.mean()), theirs.bootstrap_distribution, resampling.jackknife_means(values)
    )
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert ours == pytest.approx(expected, abs=1e-12)


def test_bca_of_right_and_wrong_lies_near_newcombe() -> None:
    rng = np.random.default_rng(4)
    one, other = (rng.random(400) < 0.8) * 1.0, (rng.random(400) < 0.7) * 1.0
    exact = compare(one, other, binary=True)
    boot = compare(one, other, binary=False)
    assert (exact.method, boot.method) == (Method.NEWCOMBE_TANGO, Method.BCA)
    assert boot.low == pytest.approx(exact.low, abs=0.6 * exact.se)
    assert boot.high == pytest.approx(exact.high, abs=0.6 * exact.se)


def test_bca_does_not_exist_where_all_resamples_lie_on_one_side() -> None:
    assert resampling.bca_limits(1.0, np.zeros(50), np.arange(9.0)) is None


def test_sign_flip_agrees_with_all_flips_enumerated() -> None:
    sums = np.array([0.3, -0.1, 0.5, 0.2, 0.0, 0.4, -0.2, 0.1, 0.6, 0.1])
    signs = np.array(list(product((-1, 1), repeat=len(sums))))
    exact = np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12)
    rng = np.random.default_rng(0)
    got = resampling.sign_flip_p(sums, resamples=200_000, rng=rng)
    assert got == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / 200_000))


def test_ties_are_hits() -> None:
    rng = np.random.default_rng(0)
    assert resampling.sign_flip_p(np.zeros(20), resamples=100, rng=rng) == 1.0


def test_blocks_hold_every_resample() -> None:
    n = 700_000  # three rows of a block
    blocks = list(resampling.resampled_rows(n, 5, np.random.default_rng(0)))
    assert sum(len(block) for block in blocks) == 5
    assert {block.shape[1] for block in blocks} == {n}


def test_very_large_tests_draw_fewer_resamples_but_never_few() -> None:
    assert resampling.affordable(10_000, 1_000) == 10_000
    assert resampling.affordable(10_000, 50_000) == 4_000
    assert resampling.affordable(10_000, 10**7) == 2_000


def labels(n: int, seed: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(gold, predicted) of two classifiers over three skewed labels."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    arms = []
    for accuracy in (0.85, 0.7):
        wrong = rng.integers(0, 3, n)
        predicted = np.where(rng.random(n) < accuracy, gold, wrong)
        arms.append(list(zip(gold.tolist(), predicted.tolist(), strict=True)))
    return arms[0], arms[1]


def macro_f1(items: list[tuple[int, int]]) -> float:
    table = np.zeros((3, 3))
    for gold, predicted in items:
        table[gold, predicted] += 1
    right = np.diag(table)
    total = table.sum(axis=0) + table.sum(axis=1)
    return float(np.mean(np.divide(2 * right, total, out=np.zeros(3), where=total > 0)))


def test_a_corpus_metric_is_recomputed_in_each_resample() -> None:
    one, other = labels(300, 1)
    metric = corpus_metric_of(macro_f1, one, other)
    zeros = np.zeros(300)
    ours = compare(zeros, zeros, binary=False, corpus_metric=metric, resamples=1_000)
    gold, first, second = (np.array(x) for x in ([g for g, _ in one], *map(_second, (one, other))))
    expected = f1_score(gold, first, average="macro") - f1_score(gold, second, average="macro")
    assert ours.gain == pytest.approx(100 * expected)
    assert (ours.method, ours.test) == (Method.BCA, SignificanceTest.SWAP)

    def difference(rows: np.ndarray) -> float:
        rows = rows.astype(int)
        return macro_f1([one[i] for i in rows]) - macro_f1([other[i] for i in rows])

    theirs = stats.bootstrap(
        (np.arange(300),),
        difference,
        vectorized=False,
        n_resamples=1_000,
        method="BCa",
        rng=np.random.default_rng(9),
    )
    # Two bootstraps of 1,000: each limit has an error of about 0.1 SE of its own.
    within = 0.45 * 100 * theirs.standard_error
    assert ours.low == pytest.approx(100 * theirs.confidence_interval.low, abs=within)
    assert ours.high == pytest.approx(100 * theirs.confidence_interval.high, abs=within)
    assert ours.se == pytest.approx(100 * theirs.standard_error, rel=0.1)
    assert ours.p_value < 0.01
    assert not ours.warnings


def _second(items: list[tuple[int, int]]) -> list[int]:
    return [predicted for _, predicted in items]


def test_a_mean_as_a_corpus_metric_gives_what_the_mean_gives() -> None:
    one, other = partial_credit(320, 5)
    stack = np.concatenate([one, other])
    plain = compare(one, other, binary=False)
    corpus = compare(one, other, binary=False, corpus_metric=lambda picks: stack[picks].mean(1))
    assert corpus.gain == pytest.approx(plain.gain)
    assert (corpus.low, corpus.high) == pytest.approx((plain.low, plain.high), abs=1e-9)
    assert corpus.se == pytest.approx(plain.se)
    assert corpus.p_value == pytest.approx(plain.p_value, abs=0.02)


@pytest.mark.parametrize("runs", [1, 3])
def test_pseudo_values_of_a_mean_are_the_items(runs: int) -> None:
    rng = np.random.default_rng(6)
    one, other, groups = rng.random((runs, 60)), rng.random(60), np.arange(60) // 4
    stack = np.concatenate([one.ravel(), other])
    arm = CorpusArm(metric=lambda picks: stack[picks].mean(1), offset=0, runs=runs, n=60)
    assert arm.linearised() == pytest.approx(one)
    plain = compare(one, other, binary=False, clusters=groups)
    corpus = compare(
        one,
        other,
        binary=False,
        clusters=groups,
        corpus_metric=lambda picks: stack[picks].mean(1),
        resamples=500,
    )
    assert corpus.method is plain.method
    assert (corpus.low, corpus.high) == pytest.approx((plain.low, plain.high))


def test_few_rows_warn_about_a_corpus_metric() -> None:
    one, other = labels(60, 2)
    metric = corpus_metric_of(macro_f1, one, other)
    result = compare(np.zeros(60), np.zeros(60), binary=False, corpus_metric=metric, resamples=200)
    assert any("whole set" in warning for warning in result.warnings)


def test_a_corpus_metric_that_is_undefined_says_so() -> None:
    with pytest.raises(DataError, match="one finite number"):
        compare(
            np.zeros(5),
            np.zeros(5),
            binary=False,
            corpus_metric=lambda picks: np.full(len(picks), np.nan),
        )


def coverage_of_means(n: int, draws: int, resamples: int) -> tuple[float, float]:
    """Shares of intervals that hold the true difference, and that lie wholly above it."""
    truth = float(np.mean(np.subtract(*partial_credit(2_000_000, 99))))
    rng = np.random.default_rng(1)
    covered = above = 0
    for seed in range(draws):
        differences = np.subtract(*partial_credit(n, seed))
        limits = resampling.bca_mean(differences, resamples=resamples, rng=rng)
        assert limits is not None
        covered += limits.low <= truth <= limits.high
        above += limits.low > truth
    return covered / draws, above / draws


def test_bca_covers() -> None:
    coverage, above = coverage_of_means(300, draws=500, resamples=1_000)
    assert coverage >= 0.945 - 3 * sqrt(0.945 * 0.055 / 500)
    assert above <= 0.025 + 3 * sqrt(0.025 * 0.975 / 500)


@pytest.mark.soak
def test_bca_covers_thoroughly() -> None:
    coverage, above = coverage_of_means(300, draws=4_000, resamples=4_000)
    assert coverage >= 0.945 - 3 * sqrt(0.945 * 0.055 / 4_000)
    assert above <= 0.025 + 3 * sqrt(0.025 * 0.975 / 4_000)
