"""Forgetting as non-inferiority, and the learning curve."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from tunewise.errors import DataError, UsageError
from tunewise.verdict.compare import compare
from tunewise.verdict.curve import LearningCurve, NoFit, fit_learning_curve
from tunewise.verdict.forgetting import UNMEASURED, Suite, lost_items, measure_forgetting
from tunewise.verdict.words import ForgettingStatus


def suite(n: int, kept: float, base: float = 0.8) -> Suite:
    """The base passes ``base`` of n items; the tuned model keeps the share ``kept`` of those."""
    passed = np.arange(n) < round(base * n)
    still = np.arange(n) < round(base * kept * n)
    return Suite(base=passed * 1.0, tuned=still * 1.0)


@pytest.mark.parametrize(
    ("n", "kept", "status"),
    [
        (700, 1.0, ForgettingStatus.PASSED),
        (700, 0.965, ForgettingStatus.UNPROVEN),
        (700, 0.9, ForgettingStatus.FAILED),
        (40, 1.0, ForgettingStatus.UNPROVEN),
    ],
)
def test_one_suite(n: int, kept: float, status: ForgettingStatus) -> None:
    result = measure_forgetting({"general": suite(n, kept)})
    assert result.status is status
    change = result.suites[0]
    expected = compare(suite(n, kept).tuned, suite(n, kept).base, binary=True, alpha=0.1)
    assert (change.low, change.high, change.change) == (expected.low, expected.high, expected.gain)


def test_the_worst_suite_counts() -> None:
    passed, unproven, failed = suite(900, 1.0), suite(40, 1.0), suite(900, 0.8)
    assert measure_forgetting({"a": passed}).status is ForgettingStatus.PASSED
    both = measure_forgetting({"a": passed, "b": unproven})
    assert both.status is ForgettingStatus.UNPROVEN
    all_three = measure_forgetting({"a": passed, "b": unproven, "c": failed})
    assert all_three.status is ForgettingStatus.FAILED


def test_a_lost_must_pass_item_fails() -> None:
    lost = lost_items(["a", "b", "c"], [True, True, False], [True, False, False])
    assert lost == ("b",)
    result = measure_forgetting({"general": suite(900, 1.0)}, lost=lost)
    assert (result.status, result.lost) == (ForgettingStatus.FAILED, ("b",))
    assert measure_forgetting({}, lost=lost).status is ForgettingStatus.FAILED


def test_without_a_suite_nothing_was_measured() -> None:
    assert measure_forgetting({}) == UNMEASURED


def test_a_base_that_cannot_do_the_suite_cannot_forget_it() -> None:
    hopeless = suite(900, 1.0, base=0.02)
    result = measure_forgetting({"general": hopeless})
    assert result.status is ForgettingStatus.UNMEASURED
    assert result.suites[0].status is ForgettingStatus.UNMEASURED
    mixed = measure_forgetting({"general": hopeless, "own": suite(900, 1.0)})
    assert mixed.status is ForgettingStatus.PASSED


def test_few_groups_prove_nothing() -> None:
    one = suite(900, 1.0)
    grouped = Suite(base=one.base, tuned=one.tuned, clusters=[i % 3 for i in range(900)])
    assert measure_forgetting({"general": grouped}).status is ForgettingStatus.UNPROVEN


@pytest.mark.parametrize(("n", "discordance"), [(344, 0.05), (688, 0.10)])
def test_the_rows_that_non_inferiority_needs(n: int, discordance: float) -> None:
    """With these rows a model that lost nothing passes in 80 % of studies."""
    rng = np.random.default_rng(1)
    draws, passed = 300, 0
    for _ in range(draws):
        change = rng.choice(3, n, p=[discordance / 2, 1 - discordance, discordance / 2])
        ordinary = rng.random(n) < 0.6
        base = np.where(change == 0, 1.0, np.where(change == 2, 0.0, ordinary))
        tuned = np.where(change == 0, 0.0, np.where(change == 2, 1.0, ordinary))
        result = measure_forgetting({"s": Suite(base=base, tuned=tuned)})
        passed += result.status is ForgettingStatus.PASSED
    assert passed / draws == pytest.approx(0.8, abs=3 * sqrt(0.16 / draws) + 0.03)


SIZES = (50, 100, 200, 400, 800)


def learnt(
    n: int, seed: int, *, a: float, b: float, c: float, subsets: int = 2
) -> dict[int, list[np.ndarray]]:
    """0/1 scores of nested sizes: hard items stay hard at every size."""
    rng = np.random.default_rng(seed)
    hardness = rng.random(n)
    return {
        size: [(hardness + rng.normal(0, 0.02, n) > a * size**-b + c) * 1.0 for _ in range(subsets)]
        for size in SIZES
    }


def test_the_curve_is_found_again() -> None:
    found = fit_learning_curve(learnt(4000, 1, a=2.0, b=0.5, c=0.1), minimal_gain=1.0)
    assert isinstance(found, LearningCurve)
    true_gain = 100 * 2.0 * (800**-0.5 - 1600**-0.5)
    assert found.doubling_gain == pytest.approx(true_gain, abs=0.5)
    assert found.low < true_gain < found.high
    assert found.score(1600) - found.score(800) == pytest.approx(found.doubling_gain)
    assert found.scores[-1] == pytest.approx(found.score(800), abs=1.0)
    assert found.more_data


def test_the_fit_is_the_least_squares_one() -> None:
    scores = learnt(800, 2, a=2.0, b=0.6, c=0.1)
    found = fit_learning_curve(scores, minimal_gain=1.0, resamples=50)
    assert isinstance(found, LearningCurve)
    x = np.array(SIZES, dtype=float)
    y = np.array([1 - np.mean(scores[size]) for size in SIZES])
    parameters, _ = curve_fit(
        lambda n, a, b, c: a * n**-b + c, x, y, p0=(1, 0.5, 0.1), bounds=((0, 0.01, 0), (99, 1, 1))
    )
    expected = np.sum((parameters[0] * x ** -parameters[1] + parameters[2] - y) ** 2)
    ours = np.sum((found.a * x**-found.b + found.c - y) ** 2)
    assert ours <= expected + 1e-5


def test_a_flat_curve_asks_for_no_more_data() -> None:
    found = fit_learning_curve(learnt(500, 3, a=0.0, b=0.5, c=0.3), minimal_gain=1.0)
    assert isinstance(found, LearningCurve)
    assert not found.more_data and found.doubling_gain < 0.5


def test_falling_scores_forecast_nothing() -> None:
    rising_error = {size: [np.full(50, 0.9 - 0.1 * k)] for k, size in enumerate(SIZES)}
    found = fit_learning_curve(rising_error, minimal_gain=0.0)
    assert isinstance(found, LearningCurve)
    assert (found.a, found.doubling_gain, found.more_data) == (0.0, 0.0, False)


def test_three_sizes_are_no_curve() -> None:
    scores = {size: [np.ones(20)] for size in (10, 20, 40)}
    found = fit_learning_curve(scores, minimal_gain=2.0)
    assert isinstance(found, NoFit) and "needs 4" in found.reason


def test_forecasts_end_at_four_times_the_data() -> None:
    found = fit_learning_curve(learnt(200, 4, a=2.0, b=0.5, c=0.1), minimal_gain=1.0, resamples=20)
    assert isinstance(found, LearningCurve)
    assert found.score(3200) > found.score(800)
    with pytest.raises(UsageError, match="3201"):
        found.score(3201)


def test_sizes_must_be_scored_on_the_same_rows() -> None:
    scores = {size: [np.ones(20)] for size in SIZES}
    with pytest.raises(DataError, match="different rows"):
        fit_learning_curve({**scores, 800: [np.ones(19)]}, minimal_gain=1.0)
    with pytest.raises(DataError, match="800 rows"):
        fit_learning_curve({**scores, 800: [np.ones(20), np.ones(19)]}, minimal_gain=1.0)
    with pytest.raises(DataError, match="outside 0 to 1"):
        fit_learning_curve({**scores, 800: [np.full(20, 1.1)]}, minimal_gain=1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_any_scores_give_a_curve_within_its_bounds(means: list[float]) -> None:
    scores = {size: [np.full(3, m)] for size, m in zip(SIZES, means, strict=True)}
    found = fit_learning_curve(scores, minimal_gain=1.0, resamples=5)
    assert isinstance(found, LearningCurve)
    assert found.a >= 0 and 0 < found.b <= 1 and found.c >= 0
    assert found.doubling_gain >= 0
    assert np.isfinite(found.score(1600))


def test_more_data_is_not_promised_too_often() -> None:
    """A doubling that brings exactly the minimal gain: the lower 90 % limit is above in 5 %."""
    a, b = 1.0, 0.3
    true_gain = 100 * a * 800**-b * (1 - 2**-b)
    draws = 60
    promised = sum(
        found.more_data
        for seed in range(draws)
        if isinstance(
            found := fit_learning_curve(
                learnt(300, seed, a=a, b=b, c=0.05, subsets=3),
                minimal_gain=true_gain,
                resamples=200,
            ),
            LearningCurve,
        )
    )
    assert promised / draws <= 0.05 + 3 * sqrt(0.05 * 0.95 / draws)
