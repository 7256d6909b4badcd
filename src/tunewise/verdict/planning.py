"""How many rows a test needs, and what it can show. Gains and spreads are in points (0..100)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

POWER_Z = 2.80
"""z(.975) + z(.80): a true effect of so many standard errors is found in 4 tests of 5."""

POWER = 0.80
"""The chance with which a test that is planned is to decide."""

GUESSED_DISCORDANCE = 0.2
"""Share of rows on which two systems are taken to differ before anything was measured."""

MOST_LOOKS = 5
"""Looks at the same test rows that a verdict may rest on; after them a new test is needed."""

EQUIVALENCE_Z = 3.24
"""z(.975) + z(.90): the same for showing that two systems are alike."""


def mde(se: float) -> float:
    """Minimum detectable effect against 0, in points, from the standard error in points."""
    return POWER_Z * se


def mde_decide(se: float, minimal_gain: float) -> float:
    """The true gain from which the test would decide for fine-tuning 4 times in 5."""
    return minimal_gain + mde(se)


def mde_from_discordance(discordance: float, n: float, *, design_effect: float = 1.0) -> float:
    """The quick form before anything was measured: ``2.80·√(discordance/n)``, in points.

    Args:
        discordance: share of rows (0..1) on which the two systems differ.
        design_effect: factor on the variance for grouped rows (``clusters.design_effect``).
    """
    return 100 * POWER_Z * sqrt(discordance * design_effect / n)


def rows_to_detect(sd_difference: float, gain: float) -> int:
    """Rows from which a true ``gain`` is found 4 times in 5 (Miller 2024, arXiv 2411.00640)."""
    return ceil((POWER_Z * sd_difference / gain) ** 2)


def rows_for_equivalence(sd_difference: float, minimal_gain: float) -> int | None:
    """Rows that show two equal systems to lie within ±M; None for M = 0 (never)."""
    if minimal_gain <= 0:
        return None
    return ceil((EQUIVALENCE_Z * sd_difference / minimal_gain) ** 2)


class Remedy(StrEnum):
    """What would turn "undecided" into a decision."""

    ROWS = "label_more_rows"
    SEEDS = "train_more_seeds"
    GROUPS = "test_on_more_groups"
    TEST = "take_a_new_test"
    COST = "more_rows_will_not_decide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The test rows that would decide.

    Attributes:
        remedy: what helps; rows, seeds or groups, or nothing but the cost.
        total: test rows wanted in all; None where rows do not help.
        more: rows beyond the present ones.
        chance: that a test on ``total`` rows decides (0..1) if the gain is as measured.
    """

    remedy: Remedy
    total: int | None = None
    more: int | None = None
    chance: float | None = None


def labels_to_decide(
    *,
    gain: float,
    minimal_gain: float,
    sd_difference: float,
    n: int,
    seed_se: float = 0.0,
    boundary: float | None = None,
    z: float = NormalDist().inv_cdf(0.975),
) -> Labels:
    """The rows needed: ``n = ((z + z(.80))·sd/|gain − M|)²``.

    The distance is at least M/2 (1 point if M = 0), and sd² at least 3/n (three rows that differ
    might just not have been drawn). Where the distance was raised so and the rows are already
    there, more rows will not decide. With crossed training runs only the row part shrinks with
    rows: what the runs leave over is taken off first, and where nothing is left more runs are
    needed instead.

    Args:
        gain, minimal_gain, sd_difference, seed_se: points; see ``PairedComparison``.
        z: of the interval that will decide (``sequential.look_alpha`` of the next look).
        n: present test rows.
        boundary: the limit in question, M by default; −M where only "no worse" is open.
    """
    limit = minimal_gain if boundary is None else boundary
    least = minimal_gain / 2 if minimal_gain > 0 else 1.0
    distance = max(abs(gain - limit), least)
    variance = max(sd_difference**2, 100.0**2 * 3 / n)
    room = (distance / (z + NormalDist().inv_cdf(POWER))) ** 2 - seed_se**2
    if room <= 0:
        return Labels(remedy=Remedy.SEEDS)

    def rows(total: int) -> Labels:
        se = sqrt(variance / total + seed_se**2)
        chance = NormalDist().cdf(abs(gain - limit) / se - z)
        return Labels(remedy=Remedy.ROWS, total=total, more=total - n, chance=chance)

    total = ceil(variance / room)
    if total > n:
        return rows(total)
    if distance > abs(gain - limit):
        return Labels(remedy=Remedy.COST)
    # Enough by the normal formula, yet undecided: the interval used is wider than ±1.96 SE
    # (small n, few groups). Twice the rows is what any interval that reaches M needs.
    return rows(2 * n)


def more_seeds_wanted(*, gain: float, minimal_gain: float, se: float) -> bool:
    """The gain lies within one standard error of M: five runs in place of three.

    Only if this step was declared beforehand.
    """
    return abs(gain - minimal_gain) < se


def mcnemar_power(*, n: int, discordance: float, gain: float, alpha: float = 0.05) -> float:
    """Power of McNemar's mid-p test, summed over every possible table (no simulation).

    Args:
        n: rows.
        discordance: true share of rows on which the systems differ, 0..1.
        gain: true gain in points; at most ``100·discordance``.
    """
    import numpy as np
    from scipy.special import bdtr, xlog1py, xlogy
    from scipy.special import gammaln as lgamma

    # The number m of differing rows is binomial; the others cannot matter.
    m = np.arange(n + 1)
    log_mass = (
        lgamma(n + 1)
        - lgamma(m + 1)
        - lgamma(n - m + 1)
        + xlogy(m, discordance)
        + xlog1py(n - m, -discordance)
    )
    mass = np.exp(log_mass)
    m, mass = m[mass > 1e-14], mass[mass > 1e-14]
    first_wins = min(1.0, (1 + gain / 100 / discordance) / 2)
    critical = _critical_counts(int(m[-1]), alpha)[m]
    low = np.where(critical >= 0, bdtr(np.maximum(critical, 0), np.maximum(m, 1), first_wins), 0.0)
    high = np.where(
        critical >= 0, bdtr(np.maximum(critical, 0), np.maximum(m, 1), 1 - first_wins), 0.0
    )
    return float((mass * (low + high)).sum())


def _critical_counts(most: int, alpha: float) -> npt.NDArray[np.int64]:
    """For each m = 0 … most the largest smaller count that mid-p rejects; −1 for none."""
    import numpy as np

    from tunewise.verdict.intervals import mcnemar_midp

    m = np.arange(most + 1)
    low, high = np.full(most + 1, -1), m // 2
    # Mid-p grows with the count, so each m's edge is found by bisection, all m at once.
    while np.any(high > low):
        middle = np.maximum((low + high + 1) // 2, 0)
        rejects = (high > low) & (mcnemar_midp(middle, m - middle) <= alpha)
        high = np.where((high > low) & ~rejects, middle - 1, high)
        low = np.where(rejects, middle, low)
    return low


def mde_by_power(
    *, n: int, discordance: float, power: float = 0.80, alpha: float = 0.05
) -> float | None:
    """The smallest gain in points that mid-p finds with ``power``.

    None where even the largest gain possible at this discordance (all differing rows on one
    side) is found less often.
    """

    def reached(gain: float) -> bool:
        found = mcnemar_power(n=n, discordance=discordance, gain=gain, alpha=alpha)
        return found >= power

    low, high = 0.0, 100.0 * discordance
    if not reached(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
