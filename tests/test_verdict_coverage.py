"""What the intervals promise, held by simulation; one side at a time, for only one side misleads.

The cells are those in which simpler intervals miss: few rows differ, scores near the ceiling, small
tests, metrics of a whole set. `make soak` draws more tables, and from all cells.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import sqrt

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from tunewise.verdict import intervals
from tunewise.verdict.compare import compare
from tunewise.verdict.intervals import FloatArray
from tunewise.verdict.single import score_interval
from tunewise.verdict.words import Method

PAIRS = ((0.0, 0.02), (0.0, 0.2), (0.02, 0.02), (0.02, 0.06), (0.05, 0.05), (0.05, 0.1), (0.1, 0.2))
"""Gain of the first system, and share of rows on which the two differ."""

ROWS = (50, 100, 200, 300, 500, 1000)
CELLS = [
    (n, accuracy, gain, differ)
    for n, accuracy, (gain, differ) in product(
        (50, 100, 200, 300, 500, 1000), (0.5, 0.8, 0.95), PAIRS
    )
    if accuracy + (differ + gain) / 2 <= 1.0 and accuracy >= (differ - gain) / 2
]


def tables(
    n: int, accuracy: float, gain: float, differ: float, draws: int, seed: int
) -> FloatArray:
    """Tables of two 0/1 scores, shape (4, draws); the second system has the accuracy given."""
    first, second = (differ + gain) / 2, (differ - gain) / 2
    both = accuracy - second
    shares = np.clip([both, first, second, 1 - both - first - second], 0, 1)
    return np.asarray(np.random.default_rng(seed).multinomial(n, shares, size=draws).T, float)


def most(share: float, draws: int) -> float:
    """A share that a simulation of a true ``share`` does not exceed."""
    return share + 3 * sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("cell", [c for c in CELLS if c[0] in (50, 100, 300)], ids=str)
def test_right_and_wrong_err_on_neither_side(cell: tuple[int, float, float, float]) -> None:
    n, accuracy, gain, differ = cell
    low, high = intervals.newcombe_tango_limits(*tables(n, accuracy, gain, differ, 8_000, n))
    assert np.mean(low > gain + 1e-12) <= most(0.026, 8_000)
    assert np.mean(high < gain - 1e-12) <= most(0.026, 8_000)


@pytest.mark.soak
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_right_and_wrong_err_on_neither_side_thoroughly(
    cell: tuple[int, float, float, float],
) -> None:
    n, accuracy, gain, differ = cell
    low, high = intervals.newcombe_tango_limits(*tables(n, accuracy, gain, differ, 40_000, n + 1))
    assert np.mean(low > gain + 1e-12) <= most(0.026, 40_000)
    assert np.mean(high < gain - 1e-12) <= most(0.026, 40_000)


def test_newcombe_alone_errs_where_few_rows_differ() -> None:
    """Why the envelope: no row is lost, two in a hundred are won."""
    drawn = tables(100, 0.5, 0.02, 0.02, 20_000, 1)
    _, high = intervals.newcombe_limits(*drawn)
    assert np.mean(high < 0.02 - 1e-12) > 0.09
    low, _ = intervals.tango_limits(*drawn)
    assert np.mean(low > 0.02 + 1e-12) <= most(0.05, 20_000)


@pytest.mark.parametrize("table", [(36, 12, 2, 0), (90, 2, 0, 8), (43, 0, 1, 0), (10, 5, 9, 20)])
def test_tango_agrees_with_the_likelihood_maximised_numerically(
    table: tuple[int, int, int, int],
) -> None:
    a, b, c, d = table
    n = sum(table)

    def score(delta: float) -> float:
        """Tango's statistic, its nuisance share found by a search."""

        def against(q: float) -> float:
            shares = (q + delta, q, 1 - 2 * q - delta)
            counts = (b, c, a + d)
            return -sum(
                k * np.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k
            )

        lowest, highest = max(0.0, -delta), (1 - delta) / 2
        q = minimize_scalar(
            against, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}
        ).x
        return float((b - c - n * delta) / sqrt(n * (2 * q + delta - delta**2)))

    z = norm.ppf(0.975)
    low, high = (float(x) for x in intervals.tango_limits(*table))
    assert low == pytest.approx(brentq(lambda x: score(x) - z, -0.9999, (b - c) / n), abs=1e-4)
    assert high == pytest.approx(brentq(lambda x: score(x) + z, (b - c) / n, 0.9999), abs=1e-4)


def rare(
    n: int,
    share: float,
    up: float,
    size: Callable[[np.random.Generator, int], FloatArray],
    rng: np.random.Generator,
) -> FloatArray:
    sign = np.where(rng.random(n) < up, 1.0, -1.0)
    return np.asarray((rng.random(n) < share) * sign * size(rng, n), float)


SIZES: dict[str, tuple[Callable[[np.random.Generator, int], FloatArray], float]] = {
    "even": (lambda rng, n: rng.random(n), 0.5),
    "small, seldom large": (lambda rng, n: rng.beta(1, 5, n), 1 / 6),
    "two kinds": (lambda rng, n: np.where(rng.random(n) < 0.1, 1.0, 0.2), 0.28),
    "whole": (lambda rng, n: np.ones(n), 1.0),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    ("n", "share", "up"), [(50, 0.05, 1.0), (100, 0.03, 0.8), (300, 0.03, 0.5)]
)
def test_rare_differences_are_covered(name: str, n: int, share: float, up: float) -> None:
    """Student's t covers 78 to 90 % of these."""
    size, mean = SIZES[name]
    truth, rng = share * (2 * up - 1) * mean, np.random.default_rng(n)
    missed = tried = 0
    while tried < 800:
        values = rare(n, share, up, size, rng)
        if not intervals.few_events(values):
            continue
        low, high = intervals.rare_limits(values)
        missed += not low <= truth <= high
        tried += 1
    assert missed / tried <= most(0.06, tried)


def test_the_comparison_takes_it_where_few_rows_differ() -> None:
    other = np.full(100, 0.5)
    one = other.copy()
    one[:3] += (0.3, 0.2, 0.4)
    found = compare(one, other, binary=False)
    assert found.method is Method.RARE_EVENTS and found.low < 0.9 < found.high
    back = compare(other, one, binary=False)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    one[:40] += 0.1
    assert compare(one, other, binary=False).method is Method.PAIRED_T


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> FloatArray:
    """Of each set, over three labels; shape (sets, rows) -> (sets,)."""
    total = np.zeros(gold.shape[0])
    for label in range(3):
        right = ((gold == label) & (predicted == label)).sum(-1)
        named = (gold == label).sum(-1) + (predicted == label).sum(-1)
        total += np.where(named > 0, 2 * right / np.maximum(named, 1), 0.0)
    return np.asarray(total / 3)


def labelled(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gold, hard = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.random(n)
    wrong = rng.integers(0, 3, (2, n))
    picked = [
        np.where(rng.random(n) / 2 + hard / 2 < accuracy, gold, wrong[k])
        for k, accuracy in enumerate((0.8, 0.7))
    ]
    return gold, picked[0], picked[1]


@pytest.mark.parametrize("draws", [250, pytest.param(2_000, marks=pytest.mark.soak)])
def test_a_metric_of_a_small_set_is_covered(draws: int) -> None:
    """BCa alone covers 91.6 % here; the wider of it and t 95.5 %."""
    rng, n = np.random.default_rng(7), 50
    gold, one, other = labelled(500_000, rng)
    truth = 100 * float((macro_f1(gold[None], one[None]) - macro_f1(gold[None], other[None]))[0])
    missed = 0
    for seed in range(draws):
        gold, one, other = labelled(n, rng)
        answers, wanted = np.concatenate([one, other]), np.concatenate([gold, gold])
        found = compare(
            np.zeros(n),
            np.zeros(n),
            binary=False,
            corpus_metric=lambda picks, w=wanted, a=answers: macro_f1(w[picks], a[picks]),
            resamples=400,
            rng_seed=seed,
        )
        missed += not found.low <= truth <= found.high
    assert missed / draws <= most(0.06, draws)


@pytest.mark.parametrize("kind", ["spread", "near the ceiling"])
def test_one_score_is_covered_and_not_by_everything(kind: str) -> None:
    """Wilson covers 100 % of scores with partial credit: it is too wide by far."""
    rng, n, draws = np.random.default_rng(3), 120, 1_500
    missed, width = 0, 0.0
    for _ in range(draws):
        if kind == "spread":
            scores, truth = rng.beta(3, 2, n), 60.0
        else:
            scores, truth = np.where(rng.random(n) < 0.06, rng.random(n), 1.0), 97.0
        low, high = score_interval(scores)
        missed += not low <= truth <= high
        width += high - low
    assert missed / draws <= most(0.06, draws)
    if kind == "spread":
        assert missed / draws >= 0.03 and width / draws < 8.0
