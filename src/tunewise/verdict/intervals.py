"""Intervals and tests with closed formulas. Everything here is in units of the score (0..1)."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Limits(NamedTuple):
    """Lower and upper limit of an interval."""

    low: float
    high: float

    def within(self, low: float, high: float) -> Limits:
        """The same limits, cut to ``low..high``."""
        return Limits(min(max(self.low, low), high), max(min(self.high, high), low))

    def mirrored(self) -> Limits:
        """The limits of the negated quantity."""
        return Limits(-self.high, -self.low)


def normal_quantile(probability: float) -> float:
    """The standard normal quantile, from the standard library so that nothing heavy loads."""
    return NormalDist().inv_cdf(probability)


def two_sided_z(alpha: float) -> float:
    """z(1 − alpha/2)."""
    return normal_quantile(1.0 - alpha / 2.0)


def two_sided_alpha(z: float) -> float:
    """The alpha whose ``two_sided_z`` is ``z``; turns a declared look's bound into an interval."""
    return 2.0 * NormalDist().cdf(-abs(z))


def t_quantile(probability: float, df: float) -> float:
    """Student's t quantile for any (also fractional) degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def t_two_sided_p(t: float, df: float) -> float:
    """Two-sided p-value of a t statistic."""
    from scipy.special import stdtr

    return float(2.0 * stdtr(df, -abs(t)))


def wilson(share: float, n: float, *, alpha: float = 0.05) -> Limits:
    """Wilson's score interval for a proportion (Wilson 1927).

    For scores that are not 0/1 but lie in 0..1 it is conservative: their variance is at most
    ``share·(1 − share)``.

    Args:
        share: the observed proportion or mean, 0..1.
        n: number of rows; may be an effective number (rows over design effect).
    """
    z = two_sided_z(alpha)
    low, high = _wilson(np.asarray(share), np.asarray(n), z)
    return Limits(float(low), float(high))


def _wilson(share: FloatArray, n: FloatArray, z: float) -> tuple[FloatArray, FloatArray]:
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and 1 the limit is exactly 0 or 1; rounding must not move it past.
    low = np.where(share <= 0, 0.0, (centre - half) / scale)
    high = np.where(share >= 1, 1.0, (centre + half) / scale)
    return low, high


def newcombe_limits(
    both: npt.ArrayLike,
    only_first: npt.ArrayLike,
    only_second: npt.ArrayLike,
    neither: npt.ArrayLike,
    *,
    alpha: float = 0.05,
) -> tuple[FloatArray, FloatArray]:
    """Newcombe's hybrid-score interval for a paired difference, method 10, for many tables.

    Source: Newcombe (1998), Statistics in Medicine 17, 2635-2650. The difference is
    first − second; all four counts broadcast.
    """
    a, b, c, d = (np.asarray(x, dtype=np.float64) for x in (both, only_first, only_second, neither))
    n = a + b + c + d
    z = two_sided_z(alpha)
    p1, p2 = (a + b) / n, (a + c) / n
    l1, u1 = _wilson(p1, n, z)
    l2, u2 = _wilson(p2, n, z)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    cross = a * d - b * c
    cross = np.where(cross > 0, np.maximum(cross - n / 2, 0.0), cross)
    phi = np.divide(cross, np.sqrt(margins), out=np.zeros_like(cross), where=margins > 0)

    def distance(first: FloatArray, second: FloatArray) -> FloatArray:
        squared = first**2 - 2 * phi * first * second + second**2
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)), dtype=np.float64)

    difference = p1 - p2
    return difference - distance(p1 - l1, u2 - p2), difference + distance(u1 - p1, p2 - l2)


def newcombe(
    both: int, only_first: int, only_second: int, neither: int, *, alpha: float = 0.05
) -> Limits:
    """``newcombe_limits`` of one table; (36, 12, 2, 0) gives 0.0569 to 0.3404."""
    low, high = newcombe_limits(both, only_first, only_second, neither, alpha=alpha)
    return Limits(float(low), float(high))


def mcnemar_midp(only_first: npt.ArrayLike, only_second: npt.ArrayLike) -> FloatArray:
    """McNemar's mid-p (Fagerland, Lydersen & Laake 2013); the counts broadcast.

    ``2F(k) − f(k)`` equals ``F(k) + F(k − 1)``, which needs no probability mass and cannot
    cancel. Equal counts give exactly 1.
    """
    from scipy.special import bdtr

    b, c = np.broadcast_arrays(np.asarray(only_first), np.asarray(only_second))
    k, m = np.minimum(b, c), b + c
    below = np.where(k > 0, bdtr(np.maximum(k - 1, 0), np.maximum(m, 1), 0.5), 0.0)
    p = bdtr(k, np.maximum(m, 1), 0.5) + below
    return np.asarray(np.where(b == c, 1.0, np.minimum(p, 1.0)), dtype=np.float64)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """McNemar's exact conditional p-value, for those who must use it; it is conservative."""
    from scipy.special import bdtr

    m = only_first + only_second
    return min(1.0, 2.0 * float(bdtr(min(only_first, only_second), m, 0.5))) if m else 1.0


def t_limits(estimate: float, se: float, df: float, *, alpha: float = 0.05) -> Limits:
    """``estimate ± t(df)·se``."""
    half = t_quantile(1 - alpha / 2, df) * se
    return Limits(estimate - half, estimate + half)


def standard_error(differences: FloatArray) -> float:
    """Standard error of the mean of independent rows."""
    return float(np.std(differences, ddof=1)) / sqrt(len(differences))


def zero_variance(
    estimate: float, n: int, *, alpha: float = 0.05, score_range: float = 1.0
) -> Limits:
    """The interval where all rows differ by the same amount: ``D ± range·(1 − (alpha/2)^(1/n))``.

    A share of rows up to that bound may differ without one of them having been drawn.

    Args:
        n: number of independent units (rows, or clusters).
        score_range: the range of one score.
    """
    half = score_range * (1.0 - (alpha / 2.0) ** (1.0 / n))
    return Limits(estimate - half, estimate + half)
