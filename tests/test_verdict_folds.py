"""Rows tested fold by fold: each fold has a training of its own, and the interval allows for it."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from tunewise.verdict.compare import compare
from tunewise.verdict.words import About


def drawn(
    rng: np.random.Generator, n: int, k: int, gain: float, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """0/1 scores of two systems; each fold's training is better or worse by chance."""
    folds = np.arange(n) % k
    luck = rng.normal(0.0, spread, k)[folds]
    other = rng.random(n) < 0.6
    # Half of the tuned system's answers are the other's: the two hang together by row.
    own = rng.random(n) < np.clip(0.6 + 2 * (gain + luck), 0.0, 1.0)
    tuned = np.where(rng.random(n) < 0.5, other, own)
    return tuned.astype(float), other.astype(float), folds


def errors(n: int, k: int, spread: float, draws: int) -> tuple[float, float, float]:
    """Shares of one-sided misses with the folds, and of two-sided ones without."""
    rng, gain = np.random.default_rng(n + k), 0.05
    below = above = without = 0
    for _ in range(draws):
        tuned, other, folds = drawn(rng, n, k, gain, spread)
        pair = compare(tuned, other, binary=True, folds=folds.tolist())
        below += pair.low > 100 * gain
        above += pair.high < 100 * gain
        plain = compare(tuned, other, binary=True)
        without += not plain.low <= 100 * gain <= plain.high
    return below / draws, above / draws, without / draws


CELLS = [(100, 5, 0.0), (300, 5, 0.05), (300, 10, 0.05)]


@pytest.mark.parametrize(("n", "k", "spread"), CELLS)
@pytest.mark.parametrize("draws", [500, pytest.param(6_000, marks=pytest.mark.soak)])
def test_the_interval_holds_what_it_promises(n: int, k: int, spread: float, draws: int) -> None:
    below, above, _ = errors(n, k, spread, draws)
    most = 0.03 + 3 * sqrt(0.03 * 0.97 / draws)
    assert below <= most and above <= most


def test_without_the_folds_it_would_not() -> None:
    below, above, without = errors(300, 5, 0.1, 400)
    assert without > 0.15 > below + above


def test_it_is_never_narrower_and_speaks_of_the_recipe() -> None:
    rng = np.random.default_rng(0)
    for n, k in ((60, 3), (200, 5), (120, 10)):
        tuned, other, folds = drawn(rng, n, k, 0.1, 0.1)
        plain = compare(tuned, other, binary=True)
        folded = compare(tuned, other, binary=True, folds=folds.tolist())
        assert folded.low <= plain.low and folded.high >= plain.high
        assert folded.se >= plain.se * 0.999 and folded.gain == plain.gain
        assert (folded.folds, folded.about) == (k, About.RECIPE)
        assert (plain.folds, plain.about) == (None, About.CHECKPOINT)


def test_groups_and_folds_go_together() -> None:
    rng = np.random.default_rng(1)
    tuned, other, _ = drawn(rng, 240, 5, 0.1, 0.0)
    groups = np.arange(240) // 4
    folded = compare(tuned, other, binary=True, clusters=groups, folds=(groups % 5).tolist())
    grouped = compare(tuned, other, binary=True, clusters=groups)
    assert folded.clusters == 60
    assert folded.low <= grouped.low and folded.high >= grouped.high
