"""What the candidates cost, from their items' tokens and times and the dated price file."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tunewise.pipeline.store import Item
from tunewise.report.document import Cost, CostPoint
from tunewise.study.prices import STALE_DAYS, ModelPrice, Prices, tuned_name
from tunewise.study.schema import CandidateSpec, Study
from tunewise.verdict import cost as money
from tunewise.verdict import prices as rates
from tunewise.verdict.intervals import FloatArray


@dataclass(frozen=True)
class CandidateCost:
    """US dollars of one candidate.

    Attributes:
        per_request: of each test request in the items' order, or one number, or None if unknown.
        fixed: one-off and monthly.
        reason: why ``per_request`` is unknown.
    """

    per_request: FloatArray | None
    fixed: rates.Fixed
    reason: str | None = None

    @property
    def per_1k(self) -> float | None:
        """Of 1,000 requests."""
        return None if self.per_request is None else 1000 * float(np.mean(self.per_request))

    def per_month(self, requests: float, horizon_months: float) -> float | None:
        """At a volume, one-off costs spread over the horizon."""
        if self.per_request is None:
            return None
        return rates.cost_per_month(
            float(np.mean(self.per_request)),
            self.fixed,
            requests_per_month=requests,
            horizon_months=horizon_months,
        )


def candidate_cost(
    study: Study,
    spec: CandidateSpec,
    items: Sequence[Item],
    prices: Prices | None,
    train_usd: float | None,
) -> CandidateCost:
    """The cost of one candidate.

    Args:
        items: its answers on test; several seeds are averaged by row beforehand.
        train_usd: of one training run, for a fine-tuned candidate; None if unknown.
    """
    model = billed_as(study, spec)
    price = prices.models.get(model) if prices and model else None
    monthly = spec.usd_per_month or (price.usd_per_month if price else None) or 0.0
    fixed = rates.Fixed(once=_once(study, spec, train_usd), per_month=monthly)
    if spec.usd_per_1k_requests is not None:
        return CandidateCost(np.asarray(spec.usd_per_1k_requests / 1000), fixed)
    if spec.traits.free:
        return CandidateCost(np.asarray(0.0), fixed)
    if prices is None:
        return CandidateCost(None, fixed, "no price file (`costs.prices`)")
    if price is None:
        return CandidateCost(None, fixed, f"the price file has no {model or spec.name}")
    per_request = _per_request(study, price, items)
    if per_request is None:
        return CandidateCost(None, fixed, f"{spec.name}: its answers come without tokens or times")
    return CandidateCost(per_request, fixed)


def billed_as(study: Study, spec: CandidateSpec) -> str | None:
    """How a price file calls the model that a candidate asks."""
    model = spec.model or study.model
    return tuned_name(model) if model and spec.traits.trained else model


def request_usd(
    price: ModelPrice,
    usage: rates.Usage | None,
    *,
    seconds: npt.ArrayLike | None = None,
    hit_rate: float | None = None,
) -> FloatArray | None:
    """US dollars of each request: by token, by the request, by the hour of a machine.

    The one formula for what is measured, what is planned and what is spent.

    Args:
        usage: its tokens; None where they were not counted.
        seconds: that it took; None where that is unknown.
        hit_rate: of a prompt cache; None: as billed (``usage.cached``).

    Returns:
        Shape () or (n,); None where the price file names no price, or what it goes by is unknown.
    """
    parts: list[FloatArray] = []
    if price.usd_per_request is not None or price.usd_per_month is not None:
        parts.append(np.asarray(price.usd_per_request or 0.0))
    if price.usd_per_hour is not None:
        if seconds is None:
            return None
        parts.append(np.asarray(seconds, dtype=np.float64) * price.usd_per_hour / 3600)
    if price.input is not None and price.output is not None:
        if usage is None:
            return None
        bill = rates.Prices(
            input=price.input,
            output=price.output,
            cached=price.cached,
            cache_write=price.cache_write,
        )
        if hit_rate is not None:
            usage = replace(usage, cached=None)
        elif usage.cached is not None:
            usage = replace(usage, cached=np.minimum(usage.cached, usage.input))
        parts.append(rates.cost_per_request(usage, bill, hit_rate=hit_rate or 0.0))
    return np.asarray(sum(parts)) if parts else None


def _per_request(study: Study, price: ModelPrice, items: Sequence[Item]) -> FloatArray | None:
    answered = [i for i in items if not i.error]
    usage, seconds = None, None
    if all(i.prompt_tokens is not None for i in answered):
        usage = rates.Usage(
            input=np.array([i.prompt_tokens or 0 for i in items]),
            output=np.array([i.completion_tokens or 0 for i in items]),
            static=np.array([i.static_tokens or 0 for i in items]),
            cached=np.array([i.cached_tokens or 0 for i in items]),
        )
    if all(i.latency_s is not None for i in answered):
        seconds = np.array([i.latency_s or 0.0 for i in items])
    found = request_usd(price, usage, seconds=seconds, hit_rate=study.costs.cache_hit_rate)
    return None if found is None else np.asarray(np.broadcast_to(found, (len(items),)))


def _once(study: Study, spec: CandidateSpec, train_usd: float | None) -> float:
    own = spec.usd_once or 0.0
    if not spec.is_fine_tuned:
        return own
    costs = study.costs
    # The runs of this study are sunk whatever the verdict; only what is still to come counts.
    return own + rates.once(
        labels=costs.labels or 0,
        usd_per_label=costs.label or 0.0,
        hours=costs.hours or 0.0,
        usd_per_hour=costs.hour or 0.0,
        horizon_months=study.traffic.horizon_months,
        retrains_per_year=costs.retrains_per_year,
        usd_per_retrain=train_usd or 0.0,
    )


def compare(study: Study, with_: CandidateCost, without: CandidateCost) -> money.CostComparison:
    """The two champions' costs against each other."""
    return money.compare_costs(
        with_.per_request,
        without.per_request,
        with_fixed=with_.fixed,
        without_fixed=without.fixed,
        requests_per_month=study.traffic.requests_per_month,
        horizon_months=study.traffic.horizon_months,
        rng_seed=study.seed,
    )


def document(
    study: Study,
    prices: Prices | None,
    with_: CandidateCost,
    without: CandidateCost,
    result: money.CostComparison,
    gain: float | None,
) -> Cost:
    """The cost part of ``verdict.json``."""
    reason = None
    if result.cost_class == "unknown":
        reason = with_.reason or without.reason
        if reason is None and study.traffic.requests_per_month is None:
            reason = "the volume is unknown (`traffic.requests_per_month`)"
    part = Cost(
        status=result.cost_class.value,
        reason=reason,
        requests_per_month=study.traffic.requests_per_month,
        horizon_months=study.traffic.horizon_months,
        prices_date=str(prices.date) if prices else None,
        prices_source=prices.source if prices else None,
    )
    if with_.per_request is None or without.per_request is None:
        return part
    break_even = result.break_even
    points = _curve(with_, without, study, break_even.requests if break_even else None)
    return part.model_copy(
        update={
            "saving_per_month": result.saving_per_month,
            "saving_interval": tuple(result.saving_limits) if result.saving_limits else None,
            "fixed_usd": with_.fixed.once - without.fixed.once,
            "monthly_usd": with_.fixed.per_month - without.fixed.per_month,
            "usd_per_request_with": float(np.mean(with_.per_request)),
            "usd_per_request_without": float(np.mean(without.per_request)),
            "break_even_requests": break_even.requests if break_even else None,
            "break_even_interval": (break_even.low, break_even.high)
            if break_even and break_even.requests is not None
            else None,
            "break_even_kind": str(break_even.kind) if break_even else None,
            "value_per_correct_needed": _value_needed(gain, result),
            "payback_months": result.payback_months,
            "curve": points,
        }
    )


def _value_needed(gain: float | None, result: money.CostComparison) -> float | None:
    """v*; None where fine-tuning pays without counting the better answers at all."""
    value = money.break_even_value(gain=gain, cost=result) if gain is not None else None
    return value if value is not None and value > 0 else None


def _curve(
    with_: CandidateCost, without: CandidateCost, study: Study, break_even: float | None
) -> list[CostPoint]:
    volume = study.traffic.requests_per_month or 100_000.0
    around = sorted(v for v in (volume, break_even) if v and v > 0)
    low, high = (around[0] / 100, around[-1] * 100) if around else (1e3, 1e7)
    horizon = study.traffic.horizon_months
    return [
        CostPoint(
            requests_per_month=float(q),
            with_usd=with_.per_month(float(q), horizon) or 0.0,
            without_usd=without.per_month(float(q), horizon) or 0.0,
        )
        for q in np.geomspace(low, high, 33)
    ]


def price_warnings(
    study: Study, prices: Prices | None, today: datetime.date, asked: Collection[str] = ()
) -> list[str]:
    """What the reader must know about the prices before believing a cost.

    Args:
        asked: the models that answered, as the price file calls them.
    """
    if prices is None:
        return []
    found = []
    age = prices.age_days(today)
    if age > STALE_DAYS:
        found.append(f"The prices are {age} days old ({prices.date}); check them.")
    if age < 0:
        found.append(f"The price file is dated in the future ({prices.date}).")
    if study.costs.cache_hit_rate:
        found += [
            f"The price file has no `cached` price of {name}, so cached prompt tokens cost as "
            "others."
            for name in sorted(asked)
            if name in prices.models
            and prices.models[name].input is not None
            and prices.models[name].cached is None
        ]
    if study.costs.hours is None:
        found.append("Engineer hours are not counted: set `costs.hours` and `costs.hour`.")
    return found
