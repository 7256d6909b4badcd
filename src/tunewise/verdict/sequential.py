"""Looking more than once: O'Brien-Fleming bounds, and which of them a further look needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from tunewise.errors import UsageError
from tunewise.verdict.intervals import FloatArray, two_sided_alpha, two_sided_z
from tunewise.verdict.planning import MOST_LOOKS

_NODES = 160  # of Gauss-Legendre quadrature over the continuation region
_MOST_LOOKS = 20


@cache
def look_alpha(look: int, *, alpha: float = 0.05) -> float:
    """1 − the level of the interval at the ``look``-th look at the same test rows.

    The first look is a test like any other. Looks that follow were not planned: whether there is
    one, and at how many rows, hangs on what the last one showed. The bound that the *last* of so
    many planned looks has (1.977, 2.004, …) is no help then: whoever labels as many rows as the
    program asks for is told wrongly to fine-tune in 6 to 7 % of tests. A further look therefore
    needs the bound that the *first* of so many has (two: 2.797, three: 3.471, then 4.049, 4.562),
    which holds 2.5 % on either side, and about 0.3 % more for all further looks together;
    ``tests/test_verdict_looks.py`` follows the advice and counts.

    Args:
        look: 1 for the first; beyond ``MOST_LOOKS`` as the last.
    """
    if look <= 1:
        return alpha
    return two_sided_alpha(obrien_fleming(min(look, MOST_LOOKS), alpha=alpha)[0])


def obrien_fleming(looks: int | Sequence[float], *, alpha: float = 0.05) -> tuple[float, ...]:
    """The z that each look needs; look j uses its z in the interval itself.

    O'Brien & Fleming (1979): ``z_j = C/√t_j`` with C such that the looks together have level
    ``alpha``, by the recursion of Armitage, McPherson & Rowe (1969). Two equal looks: 2.797,
    1.977; three: 3.471, 2.454, 2.004.

    Args:
        looks: their number if equally spaced, or the rows (or the shares) seen at each.

    Raises:
        UsageError: looks that do not grow, or more than twenty.
    """
    steps = [float(j) for j in range(1, looks + 1)] if isinstance(looks, int) else list(looks)
    growing = all(b > a for a, b in zip([0.0, *steps], steps, strict=False))
    if not steps or not growing or len(steps) > _MOST_LOOKS:
        raise UsageError(
            "interim looks must be declared as growing numbers of rows",
            hint=f"Give one to {_MOST_LOOKS} looks.",
        )
    times = np.asarray(steps) / steps[-1]
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    low, high = two_sided_z(alpha), 10.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _crossing(middle, times, nodes, weights) > alpha else (low, middle)
        )
    return tuple(float(high / t**0.5) for t in times)


def _crossing(bound: float, times: FloatArray, nodes: FloatArray, weights: FloatArray) -> float:
    """Chance that Brownian motion is outside ±bound at one of ``times``."""
    x, w = bound * nodes, bound * weights
    density = _normal_density(x, times[0])
    for step in np.diff(times):
        density = _normal_density(x[:, None] - x[None, :], step) @ (w * density)
    return 1.0 - float(w @ density)


def _normal_density(x: FloatArray, variance: float) -> FloatArray:
    return np.asarray(np.exp(-(x**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))
