"""Grouped rows and several training runs, against slow direct formulas and simulation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from tunewise.errors import DataError
from tunewise.verdict import seeds
from tunewise.verdict.clusters import (
    cluster_rows,
    clustered_variance,
    design_effect,
    hidden_grouping,
)
from tunewise.verdict.compare import compare
from tunewise.verdict.intervals import FloatArray
from tunewise.verdict.single import effective_rows, score_interval
from tunewise.verdict.words import About, Method, SignificanceTest


def slow_cluster_limits(d: FloatArray, groups: list[str]) -> tuple[float, float]:
    """The method's formula, written as it stands on paper."""
    n, mean = len(d), sum(d) / len(d)
    members: dict[str, list[float]] = {}
    for value, group in zip(d.tolist(), groups, strict=True):
        members.setdefault(group, []).append(value)
    variance = 0.0
    for values in members.values():
        r = sum(value - mean for value in values)
        variance += (r / (1 - len(values) / n)) ** 2 / n**2
    df = max(1.0, n**2 / sum(len(v) ** 2 for v in members.values()) - 1)
    half = stats.t.ppf(0.975, df) * sqrt(variance)
    return 100 * (mean - half), 100 * (mean + half)


@pytest.mark.parametrize("binary", [True, False])
def test_clustered_limits_agree_with_the_formula(binary: bool) -> None:
    rng = np.random.default_rng(1)
    groups = [f"doc{g}" for g in rng.integers(0, 12, 90) ** 2 // 12]
    one, other = rng.random(90), rng.random(90)
    if binary:
        one, other = (one < 0.7) * 1.0, (other < 0.6) * 1.0
    result = compare(one, other, binary=binary, clusters=groups)
    assert (result.low, result.high) == pytest.approx(slow_cluster_limits(one - other, groups))
    assert (result.method, result.test) == (Method.CLUSTER_T, SignificanceTest.CLUSTER_SIGN_FLIP)
    assert result.clusters == len(set(groups))


def test_clustered_variance_is_the_jackknife_over_clusters() -> None:
    rng = np.random.default_rng(2)
    d, codes = rng.normal(size=50), rng.integers(0, 8, 50)
    left_out = [d[codes != g].mean() for g in range(8)]
    expected = sum((d.mean() - x) ** 2 for x in left_out)
    assert clustered_variance(d, cluster_rows(codes, 50)) == pytest.approx(expected)


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    one, other, groups = rng.random(60), rng.random(60), rng.integers(0, 9, 60)
    shuffled = rng.permutation(60)
    first = compare(one, other, binary=False, clusters=groups)
    second = compare(one[shuffled], other[shuffled], binary=False, clusters=groups[shuffled])
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_groups_of_one_row_are_independent_rows() -> None:
    rng = np.random.default_rng(4)
    one, other = (rng.random(80) < 0.8) * 1.0, (rng.random(80) < 0.7) * 1.0
    alone = compare(one, other, binary=True)
    grouped = compare(one, other, binary=True, clusters=range(80))
    assert (grouped.low, grouped.high, grouped.method) == (alone.low, alone.high, alone.method)
    assert (grouped.clusters, alone.clusters) == (80, None)


def test_few_groups_are_said_to_be_too_few() -> None:
    rng = np.random.default_rng(5)
    result = compare(rng.random(50), rng.random(50), binary=False, clusters=np.arange(50) % 5)
    assert result.too_few_clusters
    assert any("fewer than 6" in warning for warning in result.warnings)
    six = compare(rng.random(50), rng.random(50), binary=False, clusters=np.arange(50) % 6)
    assert not six.too_few_clusters


def test_one_group_shows_nothing() -> None:
    result = compare([1.0, 1, 1], [0.0, 0, 1], binary=True, clusters=["a", "a", "a"])
    assert (result.low, result.high, result.method) == (-100, 100, Method.WHOLE_RANGE)


def test_labels_must_match_the_rows() -> None:
    with pytest.raises(DataError, match="2 group labels were given for 3 rows"):
        cluster_rows(["a", "b"], 3)


def test_typical_size_and_df_of_skewed_groups() -> None:
    groups = cluster_rows([0] * 8 + [1] * 2, 10)
    assert groups.typical_size == pytest.approx(68 / 10)
    assert groups.df == pytest.approx(max(1.0, 100 / 68 - 1))


def test_hidden_grouping_gives_the_figures_of_the_sentence() -> None:
    hidden = hidden_grouping(gain=12.0, se=2.5, minimal_gain=2.0)
    assert hidden.widening == pytest.approx(1.4832, abs=1e-4)
    assert hidden.flips_above == pytest.approx((10 / (1.959964 * 2.5)) ** 2, rel=1e-6)
    assert "1.48 times wider" in hidden.sentence()
    assert "more than 4.2 times" in hidden.sentence()
    assert hidden_grouping(gain=3.0, se=2.5, minimal_gain=2.0).flips_above is None
    assert hidden_grouping(gain=3.0, se=0.0, minimal_gain=2.0).flips_above is None


def skewed(rng: np.random.Generator) -> list[int]:
    """Twenty clusters, a few of them large."""
    return sorted(rng.geometric(0.1, 20).tolist())


@pytest.mark.parametrize("even", [True, False])
def test_clustered_limits_cover(even: bool) -> None:
    """ICC 0.3: taking the rows as independent claims a gain wrongly 31 % of the time."""
    rng = np.random.default_rng(6)
    draws = 1_500
    sizes = [10] * 20 if even else skewed(rng)
    codes = np.repeat(np.arange(20), sizes)
    groups = cluster_rows(codes, len(codes))
    critical = stats.t.ppf(0.975, groups.df)
    covered = above = naive = 0
    for _ in range(draws):
        d = rng.normal(0, sqrt(0.3), 20)[codes] + rng.normal(0, sqrt(0.7), len(codes))
        half = critical * sqrt(clustered_variance(d, groups))
        covered += abs(d.mean()) <= half
        above += d.mean() - half > 0
        naive += abs(d.mean()) > 1.96 * d.std() / sqrt(len(d))
    assert covered / draws >= 0.945 - 3 * sqrt(0.945 * 0.055 / draws)
    assert above / draws <= 0.025 + 3 * sqrt(0.025 * 0.975 / draws)
    assert naive / draws > 0.2


def test_effective_rows_shrink_with_likeness() -> None:
    rng = np.random.default_rng(7)
    codes = np.repeat(np.arange(40), 5)
    alike = (rng.random(40) < 0.7)[codes] * 1.0
    groups = cluster_rows(codes, 200)
    assert effective_rows(alike, groups) == pytest.approx(40, rel=0.1)
    assert effective_rows(np.ones(200), groups) == 40
    assert effective_rows(alike, None) == 200
    assert effective_rows(rng.random(200), groups) <= 200
    wide, narrow = score_interval(alike, clusters=codes), score_interval(alike)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert design_effect(5, 1.0) == 5


def slow_two_level(d: FloatArray) -> tuple[float, float]:
    """V and df of the method, written as they stand on paper."""
    S, n = d.shape
    item, seed, grand = d.mean(0), d.mean(1), d.mean()
    A = sum((item - grand) ** 2) / (n - 1) / n
    B = sum((seed - grand) ** 2) / (S - 1) / S
    rest = sum((d[s, i] - seed[s] - item[i] + grand) ** 2 for s in range(S) for i in range(n)) / (
        (n - 1) * (S - 1)
    )
    C = rest / (n * S)
    V = A + max(0.0, B - C)
    if B <= C:
        return V, n - 1
    df = V**2 / (A**2 / (n - 1) + B**2 / (S - 1) + C**2 / ((n - 1) * (S - 1)))
    return V, max(S - 1, df)


@pytest.mark.parametrize(("spread", "above"), [(0.0, False), (0.1, True)])
def test_two_level_agrees_with_the_formula(spread: float, above: bool) -> None:
    rng = np.random.default_rng(8)
    d = rng.normal(size=(3, 40)) * 0.3 + rng.normal(size=40) * 0.3
    # Equal run means: B is 0, and only the rows count.
    d = d - d.mean(axis=1, keepdims=True) + spread * np.array([[-1.0], [0.0], [1.0]])
    V, df = slow_two_level(d)
    level = seeds.two_level((d,))
    assert (level.variance, level.df) == pytest.approx((V, df))
    assert (level.seed_variance > 0) is above


def test_runs_of_one_arm_are_the_same_as_runs_of_the_difference() -> None:
    rng = np.random.default_rng(9)
    tuned, base = rng.random((4, 50)), rng.random(50)
    result = compare(tuned, base, binary=False)
    V, df = slow_two_level(tuned - base)
    half = 100 * stats.t.ppf(0.975, df) * sqrt(V)
    assert (result.low, result.high) == pytest.approx((result.gain - half, result.gain + half))
    assert (result.method, result.about, result.seeds) == (Method.TWO_LEVEL_T, About.RECIPE, 4)
    assert result.test is SignificanceTest.T
    assert result.seed_sd == pytest.approx(100 * np.std(tuned.mean(1), ddof=1))


def test_orders_of_the_baseline_add_their_own_part() -> None:
    rng = np.random.default_rng(10)
    tuned, base = rng.random((3, 60)), rng.random((3, 60))
    tuned[0] *= 0.8
    base[1] *= 0.7
    both = seeds.two_level((tuned, base))
    one = seeds.two_level((tuned, base.mean(0, keepdims=True)))
    other = seeds.two_level((tuned.mean(0, keepdims=True), base))
    assert both.seed_variance == pytest.approx(one.seed_variance + other.seed_variance)
    assert both.row_variance == pytest.approx(one.row_variance)


def test_two_runs_speak_of_the_checkpoint_and_are_averaged() -> None:
    rng = np.random.default_rng(11)
    tuned, base = (rng.random((2, 100)) < 0.7) * 1.0, (rng.random(100) < 0.6) * 1.0
    result = compare(tuned, base, binary=True)
    averaged = compare(tuned.mean(0), base, binary=False)
    assert (result.low, result.high) == (averaged.low, averaged.high)
    assert (result.about, result.method) == (About.CHECKPOINT, Method.PAIRED_T)
    assert result.flip_rate == pytest.approx(np.mean(tuned[0] != tuned[1]))


def test_samples_are_averaged_and_never_taken_for_runs() -> None:
    rng = np.random.default_rng(12)
    tuned, base = rng.random((5, 100)), rng.random((5, 100))
    result = compare(tuned, base, binary=False, repeats="samples")
    averaged = compare(tuned.mean(0), base.mean(0), binary=False)
    assert (result.low, result.high) == (averaged.low, averaged.high)
    assert (result.about, result.method) == (About.CHECKPOINT, Method.PAIRED_T)


@pytest.mark.parametrize("n", [100, 300])
def test_two_level_limits_cover_where_the_recipe_does_nothing(n: int) -> None:
    """Runs spread by 2 points: one run alone claims a gain in 7 to 12 % of studies."""
    rng = np.random.default_rng(13)
    draws = 1_500
    covered = above = 0
    for _ in range(draws):
        # Differences of 0/1 scores: 20 % of the rows differ, of which most in every run.
        shared = rng.choice([-1.0, 0.0, 1.0], n, p=[0.08, 0.84, 0.08])
        noise = rng.choice([-1.0, 0.0, 1.0], (3, n), p=[0.02, 0.96, 0.02])
        d = shared + noise + rng.normal(0, 0.02, (3, 1))
        level = seeds.two_level((d,))
        half = stats.t.ppf(0.975, level.df) * sqrt(level.variance)
        covered += abs(d.mean()) <= half
        above += d.mean() - half > 0
    least = 0.945 - 3 * sqrt(0.945 * 0.055 / draws) if n >= 200 else 0.94
    assert covered / draws >= least
    assert above / draws <= 0.025 + 3 * sqrt(0.025 * 0.975 / draws)


def test_clustered_runs_use_the_clustered_row_part() -> None:
    rng = np.random.default_rng(14)
    codes = np.repeat(np.arange(15), 4)
    tuned, base = rng.random((3, 60)), rng.random(60)
    groups = cluster_rows(codes, 60)
    level = seeds.two_level((tuned, base[None, :]), groups)
    assert level.row_variance == pytest.approx(clustered_variance(tuned.mean(0) - base, groups))
    result = compare(tuned, base, binary=False, clusters=codes)
    assert (result.method, result.clusters) == (Method.TWO_LEVEL_T, 15)
    assert result.se == pytest.approx(100 * sqrt(level.variance))
