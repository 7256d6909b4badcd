"""Forgetting as non-inferiority, and the learning curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from tunewise.errors import DataError, UsageError
from tunewise.verdict.compare import compare
from tunewise.verdict.curve import LearningCurve, NoFit, fit_learning_curve
from tunewise.verdict.forgetting import (
    ONE_SIDED,
    UNMEASURED,
    Suite,
    lost_items,
    measure_forgetting,
    planned_looks,
    suite_change,
)
from tunewise.verdict.intervals import newcombe_tango_limits, two_sided_alpha
from tunewise.verdict.sequential import obrien_fleming
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


@dataclass(frozen=True)
class Lost:
    """A suite of ``n`` items, the base's accuracy, the change in points, the items that differ."""

    n: int
    base: float
    change: float
    differ: float


def asked_until_decided(lost: Lost, draws: int) -> tuple[float, float, float]:
    """Shares of runs that pass and that fail, and the mean number of items asked."""
    rng = np.random.default_rng(5)
    gained = (lost.differ + lost.change / 100) / 2
    fallen = lost.differ - gained
    shares = [lost.base - fallen, gained, fallen, 1 - lost.base - gained]
    looks = planned_looks(lost.n)
    alphas = [ONE_SIDED]
    if len(looks) > 1:
        alphas = [two_sided_alpha(z) for z in obrien_fleming(looks, alpha=ONE_SIDED)]
    tables = np.zeros((draws, 4), int)
    passed = failed = 0
    asked, live, seen = np.full(draws, lost.n), np.arange(draws), 0
    for look, alpha in zip(looks, alphas, strict=True):
        tables[live] += rng.multinomial(look - seen, shares, size=len(live))
        seen = look
        low, high = newcombe_tango_limits(*tables[live].T, alpha=alpha)
        kept, gone = 100 * low > -MARGIN, 100 * high < -MARGIN
        passed, failed = passed + int(kept.sum()), failed + int(gone.sum())
        asked[live[kept | gone]] = look
        live = live[~(kept | gone)]
    return passed / draws, failed / draws, float(asked.mean())


MARGIN = 3.0
AT_THE_MARGIN = (Lost(720, 0.6, -3, 0.06), Lost(720, 0.2, -3, 0.15), Lost(300, 0.9, -3, 0.06))
ALL_AT_THE_MARGIN = [
    Lost(n, base, -3, differ)
    for n in (90, 150, 300, 720, 2000)
    for base in (0.2, 0.6, 0.9)
    for differ in (0.04, 0.06, 0.1, 0.15)
]


def holds_its_level(lost: Lost, draws: int) -> None:
    """A loss of the very margin: passing and failing are both wrong in one run of twenty."""
    passed, failed, _ = asked_until_decided(lost, draws)
    assert max(passed, failed) <= 0.05 + 3 * sqrt(0.05 * 0.95 / draws), lost


@pytest.mark.parametrize("lost", AT_THE_MARGIN)
def test_asking_until_it_is_decided_errs_no_more_often(lost: Lost) -> None:
    holds_its_level(lost, 4000)


@pytest.mark.soak
@pytest.mark.parametrize("lost", ALL_AT_THE_MARGIN)
def test_asking_until_it_is_decided_errs_no_more_often_anywhere(lost: Lost) -> None:
    holds_its_level(lost, 40_000)


@pytest.mark.parametrize(
    ("lost", "share", "most"),
    [
        (Lost(720, 0.6, -20, 0.25), 0.99, 240),  # a large loss is shown early
        (Lost(720, 0.6, -8, 0.12), 0.97, 450),
        (Lost(720, 0.6, 0, 0.02), 0.97, 400),  # next to nothing lost: half of the suite
        (Lost(720, 0.6, 0, 0.10), 0.75, 600),
    ],
)
def test_it_is_decided_before_all_is_asked(lost: Lost, share: float, most: float) -> None:
    passed, failed, asked = asked_until_decided(lost, 2000)
    assert (passed if lost.change == 0 else failed) >= share
    assert asked <= most


def test_looks_are_even_and_few_rows_are_looked_at_once() -> None:
    assert planned_looks(720) == (90, 180, 270, 360, 450, 540, 630, 720)
    assert planned_looks(119) == (119,) and planned_looks(0) == (0,)
    assert planned_looks(150) == (75, 150)


def test_a_suite_is_judged_by_the_look_that_it_was_stopped_at() -> None:
    looks = planned_looks(720)
    whole, part = suite(720, 0.9), suite(180, 0.9)
    early = suite_change("s", replace(part, looks=looks), MARGIN)
    z = obrien_fleming(looks, alpha=ONE_SIDED)
    expected = compare(part.tuned, part.base, binary=True, alpha=two_sided_alpha(z[1]))
    assert (early.low, early.high) == (expected.low, expected.high)
    assert (early.n, early.of, early.decided) == (180, 720, False)
    last = suite_change("s", replace(whole, looks=looks), MARGIN)
    assert last.status is ForgettingStatus.FAILED and last.decided
    gone = suite_change("s", replace(suite(180, 0.5), looks=looks), MARGIN)
    assert gone.status is ForgettingStatus.FAILED and gone.decided


def test_a_base_that_cannot_do_it_is_asked_no_further_once_that_is_certain() -> None:
    looks = planned_looks(720)
    at_first = suite_change("s", replace(suite(90, 1.0, base=0.0), looks=looks), MARGIN)
    later = suite_change("s", replace(suite(360, 1.0, base=0.0), looks=looks), MARGIN)
    assert at_first.status is later.status is ForgettingStatus.UNMEASURED
    assert not at_first.decided and later.decided


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
