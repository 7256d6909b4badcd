"""Bootstrap and permutation, vectorised over resamples."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tunewise.verdict.intervals import FloatArray, Limits, normal_quantile

IntArray = npt.NDArray[np.int64]

_CHUNK = 1 << 21  # draws held at once, about 16 MB of indices
_MOST_DRAWS = 200_000_000  # beyond this the resamples are cut, never under _FEWEST
_FEWEST = 2_000


def affordable(resamples: int, n: int) -> int:
    """The resamples that are drawn for ``n`` rows: fewer for very large tests, at least 2,000."""
    return min(resamples, max(_FEWEST, _MOST_DRAWS // max(n, 1)))


def resampled_rows(n: int, resamples: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Blocks of row indices drawn with replacement, each of shape (resamples in block, n)."""
    block = max(1, _CHUNK // n)
    for start in range(0, resamples, block):
        yield rng.integers(0, n, size=(min(block, resamples - start), n))


def random_flips(n: int, resamples: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Blocks of random 0/1 of shape (resamples in block, n)."""
    block = max(1, _CHUNK // n)
    for start in range(0, resamples, block):
        yield rng.integers(0, 2, size=(min(block, resamples - start), n))


def bootstrap_means(values: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Means of ``resamples`` bootstrap samples of ``values``, shape (resamples,)."""
    blocks = resampled_rows(len(values), resamples, rng)
    return np.concatenate([values[rows].mean(axis=1) for rows in blocks])


def jackknife_means(values: FloatArray) -> FloatArray:
    """Means with each row left out once, shape (n,)."""
    n = len(values)
    return np.asarray((values.sum() - values) / (n - 1), dtype=np.float64)


def bca_limits(
    estimate: float, resampled: FloatArray, left_out: FloatArray, *, alpha: float = 0.05
) -> Limits | None:
    """Bias-corrected and accelerated limits (Efron 1987); None where they do not exist.

    They do not exist where all resamples lie on one side of the estimate, or where the
    acceleration runs past its pole.

    Args:
        estimate: the statistic of the data.
        resampled: the statistic of each bootstrap sample.
        left_out: the statistic with each unit left out once.
    """
    normal = NormalDist()
    # Rounding must not decide on which side an equal value lies.
    slack = 1e-12 * max(1.0, abs(estimate))
    below = np.count_nonzero(resampled < estimate - slack)
    upto = np.count_nonzero(resampled <= estimate + slack)
    share = (below + upto) / (2 * len(resampled))
    if not 0.0 < share < 1.0:
        return None
    bias = normal_quantile(share)
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum())
    acceleration = float((pull**3).sum()) / (6.0 * spread**1.5) if spread > 0 else 0.0
    levels = []
    for tail in (alpha / 2, 1 - alpha / 2):
        shifted = bias + normal_quantile(tail)
        room = 1 - acceleration * shifted
        if room <= 0:
            return None
        levels.append(normal.cdf(bias + shifted / room))
    low, high = np.quantile(resampled, levels)
    return Limits(float(low), float(high))


def bca_mean(
    values: FloatArray, *, resamples: int, rng: np.random.Generator, alpha: float = 0.05
) -> Limits | None:
    """BCa limits of the mean of ``values``; None where they do not exist."""
    means = bootstrap_means(values, affordable(resamples, len(values)), rng)
    return bca_limits(float(values.mean()), means, jackknife_means(values), alpha=alpha)


def permutation_p(observed: float, permuted: FloatArray) -> float:
    """Two-sided ``(hits + 1)/(B + 1)``; a tie is a hit."""
    slack = 1e-12 * max(1.0, abs(observed))
    hits = int(np.count_nonzero(np.abs(permuted) >= abs(observed) - slack))
    return (hits + 1) / (len(permuted) + 1)


def sign_flip_p(sums: FloatArray, *, resamples: int, rng: np.random.Generator) -> float:
    """Permutation p-value of "no difference": signs of independent units are flipped at random.

    Args:
        sums: the summed difference of each unit (row or cluster), shape (units,).
    """
    total = float(sums.sum())
    blocks = random_flips(len(sums), affordable(resamples, len(sums)), rng)
    # Flipping a unit takes twice its sum off the total.
    flipped = np.concatenate([total - 2.0 * (flips @ sums) for flips in blocks])
    return permutation_p(total, flipped)
