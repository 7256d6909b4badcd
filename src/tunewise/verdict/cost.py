"""Whether fine-tuning saves money, from which volume on, and what a better answer must be worth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError
from tunewise.verdict.intervals import FloatArray, Limits
from tunewise.verdict.prices import Fixed
from tunewise.verdict.resampling import bca_mean
from tunewise.verdict.words import BreakEvenKind, CostClass


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The volume from (or up to) which the fine-tuned candidate is cheaper.

    Attributes:
        requests: per month; None where there is no such volume.
        low, high: limits of it; ``high`` None: unbounded. Both None without a volume.
    """

    kind: BreakEvenKind
    requests: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostComparison:
    """With fine-tuning against without, in US dollars.

    Attributes:
        cost_class: the monthly saving's class; it decides, never the ratio.
        requests_per_month: Q; None if unknown.
        fixed_per_month: K, the fixed cost of fine-tuning beyond the other's.
        saved_per_request: e = cost without − cost with, and its limits.
        saving_per_month: S = Q·e − K and its limits; None where Q is unknown.
        break_even: Q* = K/e.
        payback_months: until the one-off cost is earned back; None if never, or Q unknown.
    """

    cost_class: CostClass
    requests_per_month: float | None = None
    fixed_per_month: float | None = None
    saved_per_request: float | None = None
    saved_limits: Limits | None = None
    saving_per_month: float | None = None
    saving_limits: Limits | None = None
    break_even: BreakEven | None = None
    payback_months: float | None = None


UNKNOWN_COST = CostComparison(cost_class=CostClass.UNKNOWN)
"""There are no prices."""


def compare_costs(
    with_cost: npt.ArrayLike | None,
    without_cost: npt.ArrayLike | None,
    *,
    with_fixed: Fixed | None,
    without_fixed: Fixed | None,
    requests_per_month: float | None,
    horizon_months: float = 12.0,
    alpha: float = 0.05,
    resamples: int = 10_000,
    rng_seed: int = 0,
) -> CostComparison:
    """Compare what two candidates cost a month.

    The limits are a BCa bootstrap over the items, paired. Where the volume is unknown the class
    is still known if it is the same at every volume; otherwise it is ``unknown``.

    Args:
        with_cost, without_cost: US dollars of each request on the same rows, shape (n,), or one
            number where the price of a request is known; None where it is unknown.
        with_fixed, without_fixed: None where unknown; the class is then ``unknown``.

    Raises:
        DataError: arrays of different length, or costs that are no finite numbers.
    """
    if with_cost is None or without_cost is None:
        return UNKNOWN_COST
    saved = _saved(with_cost, without_cost)
    e = float(saved.mean())
    limits = mean_limits(saved, alpha=alpha, resamples=resamples, rng_seed=rng_seed)
    if with_fixed is None or without_fixed is None:
        return replace(UNKNOWN_COST, saved_per_request=e, saved_limits=limits)
    dF = with_fixed.once - without_fixed.once
    dM = with_fixed.per_month - without_fixed.per_month
    K = dF / horizon_months + dM
    saving = saving_limits = payback = None
    if requests_per_month is not None:
        Q = requests_per_month
        saving = Q * e - K
        saving_limits = Limits(Q * limits.low - K, Q * limits.high - K)
        if Q * e > dM:
            payback = max(0.0, dF / (Q * e - dM))
    return CostComparison(
        cost_class=_class_of(saving_limits, limits, K),
        requests_per_month=requests_per_month,
        fixed_per_month=K,
        saved_per_request=e,
        saved_limits=limits,
        saving_per_month=saving,
        saving_limits=saving_limits,
        break_even=break_even(e, K, limits=limits),
        payback_months=payback,
    )


def mean_limits(
    values: FloatArray, *, alpha: float = 0.05, resamples: int = 10_000, rng_seed: int = 0
) -> Limits:
    """Bootstrap limits of the mean over items; values that do not vary have no error."""
    mean = float(values.mean())
    if values.size < 2 or np.ptp(values) <= 1e-12 * np.max(np.abs(values)):
        return Limits(mean, mean)
    # BCa is the same in any unit; dollars per request are too small for absolute tolerances.
    unit = float(np.std(values))
    rng = np.random.default_rng(rng_seed)
    limits = bca_mean(values / unit, resamples=resamples, rng=rng, alpha=alpha)
    if limits is None:  # a handful of rows, all but one alike
        return Limits(float(values.min()), float(values.max()))
    return Limits(limits.low * unit, limits.high * unit)


def _saved(with_cost: npt.ArrayLike, without_cost: npt.ArrayLike) -> FloatArray:
    one = np.asarray(with_cost, dtype=np.float64)
    other = np.asarray(without_cost, dtype=np.float64)
    if one.ndim == 1 and other.ndim == 1 and one.shape != other.shape:
        raise DataError(
            f"costs of {one.size} requests with fine-tuning and {other.size} without",
            hint="Costs are compared on the same rows.",
        )
    saved = np.atleast_1d(other - one)
    if saved.size == 0 or not np.isfinite(saved).all():
        raise DataError("the cost of a request is not a finite number of dollars")
    return np.asarray(saved, dtype=np.float64)


def _class_of(saving: Limits | None, saved: Limits, K: float) -> CostClass:
    if saving is not None:
        if saving.low > 0:
            return CostClass.SAVES
        return CostClass.DEARER if saving.high <= 0 else CostClass.UNCLEAR
    if (saved.low > 0 and K <= 0) or (saved.low >= 0 and K < 0):
        return CostClass.SAVES
    return CostClass.DEARER if saved.high <= 0 and K >= 0 else CostClass.UNKNOWN


def break_even(e: float, K: float, *, limits: Limits | None = None) -> BreakEven:
    """Q* = K/e with its kind.

    e > 0, K > 0: cheaper above; e ≥ 0, K ≤ 0: always; e < 0, K < 0: cheaper below; else never.

    Args:
        e: dollars saved per request. K: dollars a month that fine-tuning costs beyond.
        limits: of e; where they hold 0 the volume is unbounded above.
    """
    if e >= 0 and K <= 0:
        return BreakEven(kind=BreakEvenKind.ALWAYS)
    if e * K <= 0:
        return BreakEven(kind=BreakEvenKind.NEVER)
    kind = BreakEvenKind.ABOVE if e > 0 else BreakEvenKind.BELOW
    if limits is None:
        return BreakEven(kind=kind, requests=K / e)
    steep, flat = (limits.high, limits.low) if e > 0 else (limits.low, limits.high)
    return BreakEven(
        kind=kind,
        requests=K / e,
        low=K / steep,
        high=K / flat if flat * e > 0 else None,
    )


def break_even_value(*, gain: float, cost: CostComparison) -> float | None:
    """v*: the worth in dollars of one more correct answer from which fine-tuning pays.

    ``(K/Q − e)/(gain/100)``; negative where it pays anyway, None without a gain, or without a
    volume where fixed costs are to be spread over it.

    Args:
        gain: in points.
    """
    if gain <= 0:
        return None
    if cost.saving_per_month is not None and cost.requests_per_month:
        return -cost.saving_per_month / cost.requests_per_month / (gain / 100)
    if cost.saved_per_request is None or cost.fixed_per_month != 0:
        return None
    return -cost.saved_per_request / (gain / 100)


def minimal_gain_in_money(*, value_per_correct: float, cost: CostComparison) -> float | None:
    """The gain in points that just pays for itself: ``100(K/Q − e)/v``."""
    if cost.saving_per_month is None or not cost.requests_per_month or value_per_correct <= 0:
        return None
    return -100 * cost.saving_per_month / cost.requests_per_month / value_per_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class NetBenefit:
    """``Q·v·gain/100 + S`` in US dollars a month."""

    value: float
    low: float
    high: float


def net_benefit(
    *,
    value_per_correct: float,
    gain: float,
    gain_limits: Limits,
    cost: CostComparison,
    differences: npt.ArrayLike | None = None,
    saved: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> NetBenefit | None:
    """What fine-tuning brings a month, its worth counted in; None where S is unknown.

    With both item arrays the limits are a bootstrap over the items, gain and saving together.
    Without them the limits of the two are added: wider, but they hold whatever the two have to
    do with each other and whichever method made the gain's (runs, clusters, a corpus metric).

    Args:
        gain, gain_limits: in points.
        differences: score with − without of each row, in −1..1, shape (n,); independent rows.
        saved: US dollars saved on each row, shape (n,) or a number.
    """
    if cost.saving_limits is None or cost.saving_per_month is None:
        return None
    Q = cost.requests_per_month or 0.0
    factor = Q * value_per_correct / 100
    value = factor * gain + cost.saving_per_month
    if differences is None or saved is None:
        return NetBenefit(
            value=value,
            low=factor * gain_limits.low + cost.saving_limits.low,
            high=factor * gain_limits.high + cost.saving_limits.high,
        )
    items = value_per_correct * np.asarray(differences, dtype=np.float64)
    limits = mean_limits(items + np.asarray(saved, dtype=np.float64), alpha=alpha)
    K = cost.fixed_per_month or 0.0
    return NetBenefit(value=value, low=Q * limits.low - K, high=Q * limits.high - K)
