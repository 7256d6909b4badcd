"""Costs per request, break-even and worth, against the method's worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewise.errors import DataError
from tunewise.verdict import cost, prices
from tunewise.verdict.cost import CostComparison, break_even, compare_costs
from tunewise.verdict.intervals import Limits
from tunewise.verdict.prices import Fixed, Prices, Usage, cost_per_request
from tunewise.verdict.words import BreakEvenKind, CostClass

MINI = Prices(input=0.40, cached=0.10, output=1.60)
LUNA = Prices(input=0.10, cached=0.01, output=0.50, cache_write=0.125)
SOL = Prices(input=2.00, cached=0.20, output=10.00)
FEW_SHOT = Usage(input=2300, output=100, static=1900)
SHORT = Usage(input=400, output=100)


@pytest.mark.parametrize(
    ("model", "few_shot", "cached", "short"),
    [(MINI, 1.080, 0.510, 0.320), (LUNA, 0.280, 0.109, 0.090), (SOL, 5.600, 2.180, 1.800)],
)
def test_the_worked_prices(model: Prices, few_shot: float, cached: float, short: float) -> None:
    per_1k = 1000 * np.array(
        [
            cost_per_request(FEW_SHOT, model),
            cost_per_request(FEW_SHOT, model, hit_rate=1.0),
            cost_per_request(SHORT, model),
        ]
    )
    assert per_1k == pytest.approx([few_shot, cached, short])


HOSTED = Fixed(once=500.0, per_month=1241.0)
OWN = Fixed(once=500.0, per_month=prices.hosting_per_month(usd_per_hour=2.69))


@pytest.mark.parametrize(
    ("model", "hit_rate", "fixed", "usage", "tuned", "millions"),
    [
        (MINI, 0.0, HOSTED, FEW_SHOT, SHORT, 1.69),
        (MINI, 1.0, HOSTED, FEW_SHOT, SHORT, 6.75),
        (SOL, 0.0, HOSTED, FEW_SHOT, SHORT, 0.34),
        (SOL, 1.0, HOSTED, FEW_SHOT, SHORT, 3.38),
        (MINI, 0.0, OWN, FEW_SHOT, None, 1.86),
        (MINI, 1.0, OWN, FEW_SHOT, None, 3.9),
        (LUNA, 1.0, OWN, FEW_SHOT, None, 18.4),
        (LUNA, 0.0, OWN, SHORT, None, 22.3),
        (SOL, 1.0, OWN, FEW_SHOT, None, 0.92),
    ],
)
def test_the_worked_break_even(
    model: Prices,
    hit_rate: float,
    fixed: Fixed,
    usage: Usage,
    tuned: Usage | None,
    millions: float,
) -> None:
    result = compare_costs(
        cost_per_request(tuned, model) if tuned else 0.0,
        cost_per_request(usage, model, hit_rate=hit_rate),
        with_fixed=fixed,
        without_fixed=Fixed(),
        requests_per_month=1e6,
    )
    assert result.break_even is not None and result.break_even.requests is not None
    assert result.break_even.kind is BreakEvenKind.ABOVE
    digits = len(str(millions).split(".")[1])
    assert round(result.break_even.requests / 1e6, digits) == millions
    expected = CostClass.SAVES if millions < 1 else CostClass.DEARER
    assert result.cost_class is expected


def test_cached_tokens_as_billed_come_before_the_hit_rate() -> None:
    usage = Usage(input=[1000, 1000], output=[0, 0], static=900, cached=[0, 500])
    assert cost_per_request(usage, LUNA, hit_rate=1.0) == pytest.approx(
        [1000 * 0.10e-6, 500 * 0.10e-6 + 500 * 0.01e-6]
    )


def test_a_miss_writes_to_the_cache_only_where_one_is_in_use() -> None:
    usage = Usage(input=1000, output=0, static=1000)
    assert cost_per_request(usage, LUNA) == pytest.approx(1000 * 0.10e-6)
    assert cost_per_request(usage, LUNA, hit_rate=0.9) == pytest.approx(
        (900 * 0.01 + 100 * 0.125) * 1e-6
    )


def test_retries_and_retrieval() -> None:
    priced = Prices(input=1.0, output=1.0, per_request=0.002)
    usage = Usage(input=1000, output=1000)
    assert cost_per_request(usage, priced, retry_rate=0.5) == pytest.approx(0.002 * 1.5 + 0.002)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input=10, output=1, static=11),
        Usage(input=-1, output=1),
        Usage(input=10, output=1, cached=[11, 2]),
    ],
)
def test_impossible_counts_are_refused(usage: Usage) -> None:
    with pytest.raises(DataError, match="contradict"):
        cost_per_request(usage, MINI)


def test_fixed_costs() -> None:
    assert prices.once(
        labels=100,
        usd_per_label=0.5,
        runs=9,
        usd_per_run=2,
        evaluation=3,
        hours=8,
        usd_per_hour=90,
        horizon_months=6,
        retrains_per_year=2,
        usd_per_retrain=10,
    ) == pytest.approx(50 + 18 + 3 + 720 + 10)
    assert prices.train_cost_by_token(tokens=2e6, epochs=3, usd_per_million=0.4) == 2.4
    assert prices.train_cost_by_time(
        tokens=3.6e6, epochs=2, tokens_per_second=1000, usd_per_hour=3
    ) == pytest.approx(6.0)
    assert prices.replicas_needed(peak_requests_per_second=65, measured_per_second=32.3) == 3
    assert prices.replicas_needed(peak_requests_per_second=0, measured_per_second=32.3) == 1
    assert prices.cost_per_month(
        0.001, Fixed(once=120, per_month=5), requests_per_month=1000
    ) == pytest.approx(16.0)


finite = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


@given(finite, finite, st.floats(0.001, 1e6))
def test_break_even_says_at_which_volumes_fine_tuning_is_cheaper(
    e: float, K: float, Q: float
) -> None:
    found = break_even(e, K)
    cheaper = Q * e - K
    match found.kind:
        case BreakEvenKind.ALWAYS:
            assert cheaper >= 0
        case BreakEvenKind.NEVER:
            assert cheaper <= 0
        case BreakEvenKind.ABOVE:
            assert found.requests is not None and found.requests > 0
            assert cheaper > 0 if found.requests * (1 + 1e-9) < Q else True
            assert cheaper < 0 if found.requests * (1 - 1e-9) > Q else True
        case BreakEvenKind.BELOW:
            assert found.requests is not None and found.requests > 0
            assert cheaper > 0 if found.requests * (1 - 1e-9) > Q else True
            assert cheaper < 0 if found.requests * (1 + 1e-9) < Q else True


@pytest.mark.parametrize(
    ("e", "K", "kind"),
    [
        (1, 1, "above"),
        (1, 0, "always"),
        (0, 0, "always"),
        (0, -1, "always"),
        (-1, -1, "below"),
        (0, 1, "never"),
        (-1, 0, "never"),
        (-1, 1, "never"),
    ],
)
def test_kinds_of_break_even(e: float, K: float, kind: str) -> None:
    assert break_even(e, K).kind == kind


def test_break_even_is_unbounded_where_the_saving_may_be_nothing() -> None:
    sure = break_even(2.0, 10.0, limits=Limits(1.0, 4.0))
    assert (sure.low, sure.requests, sure.high) == (2.5, 5.0, 10.0)
    unsure = break_even(2.0, 10.0, limits=Limits(-1.0, 4.0))
    assert (unsure.low, unsure.high) == (2.5, None)
    below = break_even(-2.0, -10.0, limits=Limits(-4.0, -1.0))
    assert (below.low, below.requests, below.high) == (2.5, 5.0, 10.0)
    assert break_even(-2.0, -10.0, limits=Limits(-4.0, 1.0)).high is None


def spread(mean: float, sd: float, n: int = 400) -> np.ndarray:
    values = np.random.default_rng(1).normal(size=n)
    return mean + sd * (values - values.mean()) / values.std()


def classify(e: np.ndarray, K: float, Q: float | None) -> CostComparison:
    return compare_costs(
        np.zeros(len(e)),
        e,
        with_fixed=Fixed(per_month=K),
        without_fixed=Fixed(),
        requests_per_month=Q,
        resamples=2_000,
    )


def test_classes_of_the_saving() -> None:
    e = spread(0.01, 0.05)  # 0.0051 to 0.0149 a request
    assert classify(e, 2.0, 1000).cost_class is CostClass.SAVES
    assert classify(e, 10.0, 1000).cost_class is CostClass.UNCLEAR
    assert classify(e, 20.0, 1000).cost_class is CostClass.DEARER
    assert classify(e, 20.0, None).cost_class is CostClass.UNKNOWN
    saving = classify(e, 2.0, 1000)
    assert saving.saving_per_month == pytest.approx(8.0)
    assert saving.saving_limits == pytest.approx((3.1, 12.9), abs=0.2)


def test_without_prices_all_is_unknown() -> None:
    result = compare_costs(
        None, 0.1, with_fixed=Fixed(), without_fixed=Fixed(), requests_per_month=5
    )
    assert result == cost.UNKNOWN_COST
    partly = compare_costs(0.1, 0.3, with_fixed=None, without_fixed=Fixed(), requests_per_month=5)
    assert partly.cost_class is CostClass.UNKNOWN
    assert partly.saved_per_request == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("e", "K", "expected"),
    [
        (0.1, 0.0, CostClass.SAVES),
        (0.0, -1.0, CostClass.SAVES),
        (-0.1, 0.0, CostClass.DEARER),
        (0.0, 1.0, CostClass.DEARER),
        (0.0, 0.0, CostClass.DEARER),
        (0.1, 1.0, CostClass.UNKNOWN),
        (-0.1, -1.0, CostClass.UNKNOWN),
    ],
)
def test_without_a_volume_the_class_is_known_if_it_is_the_same_at_every_volume(
    e: float, K: float, expected: CostClass
) -> None:
    assert classify(np.array([e]), K, None).cost_class is expected


def test_equal_costs_save_nothing() -> None:
    assert classify(np.zeros(3), 0.0, 1000).cost_class is CostClass.DEARER


def test_payback_only_where_the_running_saving_is_positive() -> None:
    def months(once: float, per_month: float, e: float) -> float | None:
        return compare_costs(
            0.0,
            e,
            with_fixed=Fixed(once=once, per_month=per_month),
            without_fixed=Fixed(),
            requests_per_month=1000,
        ).payback_months

    assert months(600, 50, 0.1) == pytest.approx(12)
    assert months(600, 100, 0.1) is None
    assert months(600, 150, 0.1) is None


def test_costs_of_different_rows_are_refused() -> None:
    with pytest.raises(DataError, match="2 requests with fine-tuning and 3 without"):
        compare_costs(
            [1.0, 2.0],
            [1.0, 2.0, 3.0],
            with_fixed=Fixed(),
            without_fixed=Fixed(),
            requests_per_month=1,
        )
    with pytest.raises(DataError, match="finite"):
        compare_costs(
            float("nan"), 1.0, with_fixed=Fixed(), without_fixed=Fixed(), requests_per_month=1
        )


def test_what_a_correct_answer_must_be_worth() -> None:
    dear = classify(np.array([-0.01]), 30.0, 1000)  # S = −40 a month
    assert cost.break_even_value(gain=8.0, cost=dear) == pytest.approx(40 / 1000 / 0.08)
    assert cost.break_even_value(gain=0.0, cost=dear) is None
    assert cost.break_even_value(gain=8.0, cost=cost.UNKNOWN_COST) is None
    assert cost.minimal_gain_in_money(value_per_correct=0.5, cost=dear) == pytest.approx(8.0)
    assert cost.minimal_gain_in_money(value_per_correct=0.0, cost=dear) is None


def test_net_benefit_is_zero_at_that_worth() -> None:
    dear = classify(np.array([-0.01]), 30.0, 1000)
    worth = cost.break_even_value(gain=8.0, cost=dear)
    assert worth is not None
    found = cost.net_benefit(
        value_per_correct=worth, gain=8.0, gain_limits=Limits(4.0, 12.0), cost=dear
    )
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.0, -20.0, 20.0))
    none = cost.net_benefit(
        value_per_correct=1.0, gain=8.0, gain_limits=Limits(4.0, 12.0), cost=cost.UNKNOWN_COST
    )
    assert none is None


def test_joint_net_benefit_is_narrower_than_the_sum_of_limits() -> None:
    e = spread(-0.02, 0.1)
    d = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], 400, p=[0.05, 0.8, 0.15])
    dear = classify(e, 0.0, 1000)
    gain, se = 100 * d.mean(), 100 * d.std() / 20
    limits = Limits(gain - 1.96 * se, gain + 1.96 * se)
    summed = cost.net_benefit(value_per_correct=0.5, gain=gain, gain_limits=limits, cost=dear)
    joint = cost.net_benefit(
        value_per_correct=0.5, gain=gain, gain_limits=limits, cost=dear, differences=d, saved=e
    )
    assert summed is not None and joint is not None
    assert joint.value == summed.value
    assert summed.low < joint.low < joint.value < joint.high < summed.high
    items = 1000 * (0.5 * d + e)
    assert joint.high - joint.low == pytest.approx(2 * 1.96 * items.std() / 20, rel=0.06)
