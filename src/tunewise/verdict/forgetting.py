"""Has the tuned model lost what the base could do? A test of non-inferiority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy.typing as npt

from tunewise.verdict.words import ForgettingStatus

ONE_SIDED = 0.10
"""Two-sided alpha whose limits are one-sided 95 % bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite's scores in 0..1 of the same items, adapter off and on.

    Attributes:
        base: shape (n,). tuned: shape (n,) or (runs, n).
        clusters: the group of each item, where items share one.
    """

    base: npt.ArrayLike
    tuned: npt.ArrayLike
    binary: bool = True
    clusters: Sequence[object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteChange:
    """How one suite changed; in points.

    Attributes:
        change: tuned − base. low, high: its one-sided 95 % bounds.
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
    changes = tuple(_change(name, suite, margin, rng_seed) for name, suite in suites.items())
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


def _change(name: str, suite: Suite, margin: float, rng_seed: int) -> SuiteChange:
    from tunewise.verdict.compare import compare

    result = compare(
        suite.tuned,
        suite.base,
        clusters=suite.clusters,
        binary=suite.binary,
        alpha=ONE_SIDED,
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
    return SuiteChange(
        name=name,
        status=status,
        base=result.without_score,
        tuned=result.with_score,
        change=result.gain,
        low=result.low,
        high=result.high,
        margin=margin,
        n=result.n,
    )
