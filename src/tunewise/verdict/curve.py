"""Would more training rows help? A power law through the scores at growing sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError, UsageError
from tunewise.verdict.intervals import FloatArray

FEWEST_SIZES = 4
FARTHEST = 4.0
"""A forecast beyond this multiple of the largest size is not given."""

_CELLS = 1 << 20  # numbers held at once by the bootstrap
_EXPONENTS = np.linspace(0.01, 1.0, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """No curve could be drawn, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """``f(N) = a·N^−b + c``, the share of the score that is still missing (0..1).

    Attributes:
        sizes: training rows. scores: the mean score at each, in points.
        doubling_gain: f(N) − f(2N) at the largest N, in points; low, high: its 90 % limits.
        more_data: the lower limit exceeds the minimal gain.
    """

    a: float
    b: float
    c: float
    sizes: tuple[int, ...]
    scores: tuple[float, ...]
    doubling_gain: float
    low: float
    high: float
    minimal_gain: float
    more_data: bool

    def score(self, rows: float) -> float:
        """The forecast score in points after training on ``rows``.

        Raises:
            UsageError: beyond four times the largest size that was tried.
        """
        if not 0 < rows <= FARTHEST * self.sizes[-1]:
            raise UsageError(
                f"the learning curve does not reach {rows:g} rows",
                hint=f"It says nothing beyond {FARTHEST * self.sizes[-1]:g}.",
            )
        return 100 * float(1 - self.a * rows**-self.b - self.c)


def fit_learning_curve(
    scores: Mapping[int, Sequence[npt.ArrayLike]],
    *,
    minimal_gain: float,
    resamples: int = 1_000,
    rng_seed: int = 0,
) -> LearningCurve | NoFit:
    """Fit the curve; its error comes from a joint bootstrap of items and subsets.

    Least squares with a, c ≥ 0 and b on a grid of 0.01 … 1 (for each b the other two are linear).
    In each resample the same items are drawn at every size, and at each size the subsets are
    drawn anew, so that errors shared between sizes do not look like a slope. ``low`` is the
    lower limit of a two-sided 90 % interval, the stricter reading of the method's text.

    Args:
        scores: for each number of training rows the item scores (0..1, the same items in the same
            order everywhere) of each training subset of that size; sizes are nested.
        minimal_gain: M in points.

    Raises:
        DataError: scores of different length, or outside 0..1.
    """
    sizes = sorted(scores)
    if len(sizes) < FEWEST_SIZES:
        return NoFit(
            reason=f"{len(sizes)} training size(s) were tried; a curve needs {FEWEST_SIZES}"
        )
    arms = [_subsets(scores[size], size) for size in sizes]
    n = arms[0].shape[1]
    if any(arm.shape[1] != n for arm in arms):
        raise DataError(
            "the learning curve's sizes were scored on different rows",
            hint="Score every size on the same dev rows.",
        )
    if sizes[0] < 1 or n < 2:
        return NoFit(reason="a curve needs at least one training row and two scored rows")
    x = np.asarray(sizes, dtype=np.float64) / sizes[-1]
    missing = np.asarray([[1 - arm.mean() for arm in arms]])
    a, b, c = (float(v[0]) for v in _fit(x, missing))
    rng = np.random.default_rng(rng_seed)
    resampled = _resample(arms, resamples, rng)
    some_a, some_b, _ = _fit(x, resampled)
    doublings = 100 * some_a * (1 - 2.0**-some_b)
    low, high = np.quantile(doublings, (0.05, 0.95))
    return LearningCurve(
        # The fit runs on N/N_max; in rows the factor takes N_max^b along.
        a=a * sizes[-1] ** b,
        b=b,
        c=c,
        sizes=tuple(sizes),
        scores=tuple(100 * float(1 - m) for m in missing[0]),
        doubling_gain=100 * a * (1 - 2.0**-b),
        low=float(low),
        high=float(high),
        minimal_gain=minimal_gain,
        more_data=bool(low > minimal_gain),
    )


def _subsets(scores: Sequence[npt.ArrayLike], size: int) -> FloatArray:
    rows = [np.asarray(subset, dtype=np.float64) for subset in scores]
    if not rows or any(r.ndim != 1 or r.shape != rows[0].shape for r in rows):
        raise DataError(f"the training subsets of {size} rows were scored on different rows")
    arm = np.stack(rows)
    if arm.size == 0 or not np.isfinite(arm).all() or arm.min() < 0 or arm.max() > 1:
        raise DataError(f"the scores after {size} training rows are missing or outside 0 to 1")
    return arm


def _resample(arms: Sequence[FloatArray], resamples: int, rng: np.random.Generator) -> FloatArray:
    """Missing scores of each resample at each size, shape (resamples, sizes)."""
    n = arms[0].shape[1]
    missing = np.empty((resamples, len(arms)))
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        # How often each item was drawn; the same draw for every size.
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=count).T / n
        for k, arm in enumerate(arms):
            means = arm @ drawn  # (subsets, count)
            subsets = rng.integers(0, len(arm), (len(arm), count))
            chosen = np.take_along_axis(means, subsets, axis=0)
            missing[start : start + count, k] = 1 - chosen.mean(axis=0)
    return missing


def _fit(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """a, b, c of each row of ``y`` (curves, sizes): non-negative least squares for each b."""
    basis = x[None, :] ** -_EXPONENTS[:, None]  # (b, sizes)
    mean_y = y.mean(axis=1, keepdims=True)
    centred = basis - basis.mean(axis=1, keepdims=True)
    a = np.maximum((y - mean_y) @ centred.T / (centred**2).sum(axis=1), 0.0)  # (curves, b)
    c = mean_y - a * basis.mean(axis=1)
    # Where the best line has c < 0 the best one allowed goes through c = 0.
    through_zero = np.maximum(y @ basis.T / (basis**2).sum(axis=1), 0.0)
    a = np.where(c < 0, through_zero, a)
    c = np.maximum(c, 0.0)
    squares = (
        (y**2).sum(axis=1, keepdims=True)
        + a**2 * (basis**2).sum(axis=1)
        + len(x) * c**2
        - 2 * a * (y @ basis.T)
        - 2 * c * y.sum(axis=1, keepdims=True)
        + 2 * a * c * basis.sum(axis=1)
    )
    best = squares.argmin(axis=1)
    row = np.arange(len(y))
    return a[row, best], _EXPONENTS[best], c[row, best]
