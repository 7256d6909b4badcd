"""Has the tuned model lost what the base could do? A test of non-inferiority.

A suite is asked in parts, in random order, until it is decided: after each part its limits are
those of an O'Brien-Fleming look, so that all looks together err as often as one look at the whole
suite would. A large loss shows after a part; that next to nothing was lost needs more rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy.typing as npt

from tunewise.verdict.intervals import two_sided_alpha, wilson
from tunewise.verdict.sequential import obrien_fleming
from tunewise.verdict.words import ForgettingStatus

ONE_SIDED = 0.10
"""Two-sided alpha whose limits are one-sided 95 % bounds."""
LOOKS = 8
_FEWEST_A_LOOK = 60
"""Rows; the closed intervals of fewer say too little at the levels of early looks."""


def planned_looks(n: int) -> tuple[int, ...]:
    """After how many rows a suite of ``n`` is looked at: up to eight even steps, the whole last."""
    looks = max(1, min(LOOKS, n // _FEWEST_A_LOOK))
    return tuple(round(n * look / looks) for look in range(1, looks + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite's scores in 0..1 of the same items, adapter off and on.

    Attributes:
        base: shape (n,). tuned: shape (n,) or (runs, n).
        clusters: the group of each item, where items share one.
        looks: numbers of items after which it was planned to look; n is one of them. None where
            the whole suite was asked at once.
    """

    base: npt.ArrayLike
    tuned: npt.ArrayLike
    binary: bool = True
    clusters: Sequence[object] | None = None
    looks: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteChange:
    """How one suite changed; in points.

    Attributes:
        change: tuned − base. low, high: its one-sided 95 % bounds, over all looks together.
        n: items asked. of: items in the suite.
        decided: no further item could change the status.
    """

    name: str
    status: ForgettingStatus
    base: float
    tuned: float
    change: float
    low: float
    high: float
    margin: float
    n: int
    of: int
    decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """The outcome over all suites.

    Attributes:
        lost: ids of must-pass items that the base passed and the tuned model does not.
    """

    status: ForgettingStatus
    suites: tuple[SuiteChange, ...] = ()
    lost: tuple[str, ...] = ()


UNMEASURED = Forgetting(status=ForgettingStatus.UNMEASURED)
"""There was no suite."""


def lost_items(
    ids: Sequence[str], base_passed: Sequence[bool], tuned_passed: Sequence[bool]
) -> tuple[str, ...]:
    """The must-pass items that the base passed and the tuned model fails."""
    rows = zip(ids, base_passed, tuned_passed, strict=True)
    return tuple(name for name, before, after in rows if before and not after)


def measure_forgetting(
    suites: Mapping[str, Suite],
    *,
    margin: float = 3.0,
    lost: Sequence[str] = (),
    rng_seed: int = 0,
) -> Forgetting:
    """Judge each suite, then all of them together.

    Passed: every one-sided 95 % lower bound is above −margin and no must-pass item is lost.
    Failed: an upper bound below −margin, or an item lost. Else unproven. A suite on which the
    base itself scores less than the margin could not show any loss: it is unmeasured, and does
    not count. Without any measured suite all is unmeasured, unless a must-pass item is lost.

    Args:
        suites: scores by name of the suite.
        margin: points that may be lost.
        lost: what ``lost_items`` found.

    Raises:
        DataError: as ``compare``.
    """
    changes = tuple(
        suite_change(name, suite, margin, rng_seed=rng_seed) for name, suite in suites.items()
    )
    found = {change.status for change in changes} - {ForgettingStatus.UNMEASURED}
    if lost or ForgettingStatus.FAILED in found:
        status = ForgettingStatus.FAILED
    elif ForgettingStatus.UNPROVEN in found:
        status = ForgettingStatus.UNPROVEN
    elif found:
        status = ForgettingStatus.PASSED
    else:
        status = ForgettingStatus.UNMEASURED
    return Forgetting(status=status, suites=changes, lost=tuple(lost))


def suite_change(name: str, suite: Suite, margin: float, *, rng_seed: int = 0) -> SuiteChange:
    """How a suite changed, by the limits of the look that its number of items is.

    Raises:
        DataError: as ``compare``.
    """
    from tunewise.verdict.compare import compare

    n = len(suite.base)  # type: ignore[arg-type]
    looks = suite.looks or (n,)
    alpha = _alphas(looks)[looks.index(n)]
    result = compare(
        suite.tuned,
        suite.base,
        clusters=suite.clusters,
        binary=suite.binary,
        alpha=alpha,
        rng_seed=rng_seed,
    )
    if result.without_score < margin:
        status = ForgettingStatus.UNMEASURED
    elif result.too_few_clusters:
        status = ForgettingStatus.UNPROVEN
    elif result.low > -margin:
        status = ForgettingStatus.PASSED
    elif result.high < -margin:
        status = ForgettingStatus.FAILED
    else:
        status = ForgettingStatus.UNPROVEN
    hopeless = 100 * wilson(result.without_score / 100, result.n, alpha=alpha).high < margin
    return SuiteChange(
        name=name,
        status=status,
        base=result.without_score,
        tuned=result.with_score,
        change=result.gain,
        low=result.low,
        high=result.high,
        margin=margin,
        n=n,
        of=looks[-1],
        decided=status in (ForgettingStatus.PASSED, ForgettingStatus.FAILED)
        or (status is ForgettingStatus.UNMEASURED and hopeless)
        or n == looks[-1],
    )


@cache
def _alphas(looks: tuple[int, ...]) -> tuple[float, ...]:
    """Two-sided alpha of each look."""
    if len(looks) == 1:
        return (ONE_SIDED,)
    return tuple(two_sided_alpha(z) for z in obrien_fleming(looks, alpha=ONE_SIDED))
