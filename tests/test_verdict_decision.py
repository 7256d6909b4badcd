"""The decision table cell by cell, its overlays, and what must hold whatever the figures."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewise.errors import DataError
from tunewise.verdict.compare import compare
from tunewise.verdict.cost import NetBenefit
from tunewise.verdict.decision import (
    Baseline,
    Decision,
    Evidence,
    decide,
    headroom,
    meets_target,
)
from tunewise.verdict.intervals import wilson
from tunewise.verdict.planning import Remedy
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.sentence import headline
from tunewise.verdict.table import TABLE, gain_class
from tunewise.verdict.words import About, Because, CostClass, ForgettingStatus, GainClass, Verdict

# The method's table, as printed: rows are classes of [L, U], columns saves … unknown.
PRINTED = """
better      | FINE_TUNE gain cost | FINE_TUNE gain               | FINE_TUNE gain | FINE_TUNE gain
equivalent  | FINE_TUNE cost      | DO_NOT_FINE_TUNE no_gain cost | UNDECIDED cost | DO_NOT_FINE_TUNE no_gain
not_worse   | FINE_TUNE cost      | UNDECIDED underpowered | UNDECIDED underpowered | UNDECIDED underpowered
not_better  | UNDECIDED underpowered | DO_NOT_FINE_TUNE no_gain | UNDECIDED underpowered | DO_NOT_FINE_TUNE no_gain
worse       | DO_NOT_FINE_TUNE worse | DO_NOT_FINE_TUNE worse | DO_NOT_FINE_TUNE worse | DO_NOT_FINE_TUNE worse
unresolved  | UNDECIDED underpowered | UNDECIDED underpowered | UNDECIDED underpowered | UNDECIDED underpowered
"""  # noqa: E501

INTERVALS = {
    "better": (2.1, 9.0),
    "equivalent": (-1.9, 2.0),
    "not_worse": (-1.9, 2.1),
    "not_better": (-2.0, 0.0),
    "worse": (-2.0, -0.1),
    "unresolved": (-2.0, 2.1),
}


def printed_cells() -> list[tuple[str, CostClass, Verdict, tuple[Because, ...]]]:
    cells = []
    for line in PRINTED.strip().splitlines():
        name, *columns = (part.strip() for part in line.split("|"))
        for cost, text in zip(CostClass, columns, strict=True):
            verdict, *codes = text.split()
            cells.append((name, cost, Verdict(verdict), tuple(Because(c) for c in codes)))
    return cells


SOME = compare([1.0, 0.0, 1.0, 0.0] * 50, [1.0, 1.0, 0.0, 0.0] * 50, binary=True)


def measured(low: float, high: float, **changes: object) -> PairedComparison:
    return replace(
        SOME,
        **{"low": low, "high": high, "gain": (low + high) / 2, "about": About.RECIPE, **changes},
    )


def on_dev(name: str, score: float, rows: int) -> Baseline:
    """A baseline's score on so many independent rows."""
    low = 100 * wilson(score / 100, rows).low
    return Baseline(name=name, score=score, low=low, rows=rows, n=rows)


def evidence(comparison: PairedComparison | None = None, **changes: object) -> Evidence:
    start = Evidence(
        baselines=(Baseline(name="few_shot", score=70.0, n=200),),
        best_baseline="few_shot",
        fine_tuned="fine_tuned",
        comparison=comparison,
        forgetting=ForgettingStatus.PASSED,
    )
    return replace(start, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "cost", "verdict", "because"), printed_cells())
def test_every_cell(
    name: str, cost: CostClass, verdict: Verdict, because: tuple[Because, ...]
) -> None:
    decision = decide(evidence(measured(*INTERVALS[name]), cost=cost))
    assert (decision.verdict, decision.because, decision.row) == (verdict, because, 6)
    assert (decision.gain_class, decision.cost_class) == (GainClass(name), cost)
    assert (decision.labels is not None) == (because == (Because.UNDERPOWERED,))


def test_the_table_has_no_gap() -> None:
    assert set(TABLE) == set(product(GainClass, CostClass))


limits = st.tuples(st.floats(-100, 100), st.floats(-100, 100)).map(sorted)
minimal = st.sampled_from([0.0, 0.5, 2.0, 5.0])


@given(limits, minimal)
def test_each_interval_has_the_one_class_that_the_method_names(
    interval: list[float], M: float
) -> None:
    L, U = interval
    conditions = {
        GainClass.BETTER: L > M,
        GainClass.EQUIVALENT: -M < L <= M and U <= M,
        GainClass.NOT_WORSE: -M < L <= M and U > M,
        GainClass.NOT_BETTER: L <= -M and 0 <= U <= M,
        GainClass.WORSE: L <= -M and U < 0,
        GainClass.UNRESOLVED: L <= -M and U > M,
    }
    assert [name for name, holds in conditions.items() if holds] == [gain_class(L, U, M)]


@pytest.mark.parametrize("cost", list(CostClass))
@pytest.mark.parametrize("name", list(INTERVALS))
def test_fewer_than_six_clusters_decide_nothing(name: str, cost: CostClass) -> None:
    decision = decide(evidence(measured(*INTERVALS[name], clusters=5), cost=cost))
    assert decision.verdict is Verdict.UNDECIDED
    assert decision.because == (Because.UNDERPOWERED,)
    assert decision.labels is not None and decision.labels.remedy is Remedy.GROUPS
    six = decide(evidence(measured(*INTERVALS[name], clusters=6), cost=cost))
    assert six.gain_class is GainClass(name)


@pytest.mark.parametrize("cost", list(CostClass))
@pytest.mark.parametrize(
    ("low", "high", "verdict", "because"),
    [
        (1.0, 9.0, Verdict.FINE_TUNE, Because.GAIN),
        (0.0, 9.0, Verdict.UNDECIDED, Because.COST),
        (-9.0, 9.0, Verdict.UNDECIDED, Because.COST),
        (-9.0, 0.0, Verdict.UNDECIDED, Because.COST),
        (-9.0, -1.0, Verdict.DO_NOT_FINE_TUNE, Because.COST),
    ],
)
def test_a_gain_must_be_worth_what_it_costs(
    cost: CostClass, low: float, high: float, verdict: Verdict, because: Because
) -> None:
    benefit = NetBenefit(value=(low + high) / 2, low=low, high=high)
    decision = decide(evidence(measured(3.0, 9.0), cost=cost, net_benefit=benefit))
    if cost in (CostClass.DEARER, CostClass.UNCLEAR):
        assert (decision.verdict, decision.because) == (verdict, (because,))
    else:
        assert decision.verdict is Verdict.FINE_TUNE


@pytest.mark.parametrize("cost", list(CostClass))
@pytest.mark.parametrize("name", list(INTERVALS))
def test_a_target_met_by_the_baseline_ends_it_unless_there_is_something_to_save(
    name: str, cost: CostClass
) -> None:
    comparison = measured(*INTERVALS[name], without_low=90.0, with_score=99.0)
    before = decide(evidence(comparison, cost=cost))
    met = decide(evidence(comparison, cost=cost, target=90.0))
    open_ = before.verdict in (Verdict.FINE_TUNE, Verdict.UNDECIDED)
    if open_ and cost in (CostClass.DEARER, CostClass.UNKNOWN):
        assert (met.verdict, met.because) == (Verdict.DO_NOT_FINE_TUNE, (Because.TARGET_MET,))
        assert met.overlay is Because.TARGET_MET and met.labels is None
    else:
        assert met == before
    assert decide(evidence(comparison, cost=cost, target=90.1)) == before


@pytest.mark.parametrize(
    ("status", "verdict", "because"),
    [
        (ForgettingStatus.PASSED, Verdict.FINE_TUNE, (Because.GAIN,)),
        (ForgettingStatus.FAILED, Verdict.DO_NOT_FINE_TUNE, (Because.FORGETTING,)),
        (ForgettingStatus.UNPROVEN, Verdict.UNDECIDED, (Because.FORGETTING,)),
        (ForgettingStatus.UNMEASURED, Verdict.FINE_TUNE, (Because.GAIN,)),
    ],
)
def test_forgetting_overrules_a_gain(
    status: ForgettingStatus, verdict: Verdict, because: tuple[Because, ...]
) -> None:
    found = evidence(measured(3.0, 9.0), forgetting=status, forgetting_vetoes=True)
    decision = decide(found)
    assert (decision.verdict, decision.because) == (verdict, because)
    said = any("not measured" in note for note in decision.notes)
    assert said == (status is ForgettingStatus.UNMEASURED)


@pytest.mark.parametrize("status", [ForgettingStatus.FAILED, ForgettingStatus.UNPROVEN])
def test_a_suite_that_nobody_named_warns_and_does_not_overrule(status: ForgettingStatus) -> None:
    found = evidence(measured(3.0, 9.0), forgetting=status, forgotten=4.1)
    decision = decide(found)
    assert (decision.verdict, decision.because) == (Verdict.FINE_TUNE, (Because.GAIN,))
    assert decision.use == found.fine_tuned
    assert any("forgetting.veto: true" in note for note in decision.notes)
    assert "; it lost 4.1 points of general skills." in headline(decision, found)


@pytest.mark.parametrize("status", list(ForgettingStatus))
@pytest.mark.parametrize("name", ["not_worse", "worse", "unresolved", "not_better"])
def test_forgetting_touches_no_other_verdict(name: str, status: ForgettingStatus) -> None:
    comparison = measured(*INTERVALS[name])
    assert decide(evidence(comparison, forgetting=status)) == decide(evidence(comparison))


def test_the_target_comes_before_forgetting() -> None:
    decision = decide(
        evidence(
            measured(3.0, 9.0, without_low=95.0), target=90.0, forgetting=ForgettingStatus.UNPROVEN
        )
    )
    assert decision.because == (Because.TARGET_MET,)


def test_row_1_broken() -> None:
    broken = decide(evidence(measured(3.0, 9.0), broken=("Row id q7 stands twice.",)))
    assert (broken.verdict, broken.because, broken.row) == (Verdict.INVALID, (Because.BROKEN,), 1)
    assert broken.use is None and broken.notes == ("Row id q7 stands twice.",)
    failed = decide(evidence(measured(3.0, 9.0), failed={"few_shot": 0.021, "fine_tuned": 0.0}))
    assert failed.because == (Because.BROKEN,) and "few_shot" in failed.notes[0]
    tolerated = decide(evidence(measured(3.0, 9.0), failed={"few_shot": 0.02}))
    assert tolerated.verdict is Verdict.FINE_TUNE


def test_row_2_leak() -> None:
    leak = decide(evidence(measured(3.0, 9.0), leaked=0.01))
    assert (leak.verdict, leak.because, leak.row) == (Verdict.INVALID, (Because.LEAK,), 2)
    assert leak.use is None
    small = decide(evidence(measured(3.0, 9.0), leaked=0.0099))
    assert small.verdict is Verdict.FINE_TUNE


def test_row_2_leak_that_changes_the_verdict() -> None:
    turned = decide(evidence(measured(1.0, 7.0), comparison_with_flagged=measured(3.0, 9.0)))
    assert (turned.verdict, turned.row) == (Verdict.INVALID, 2)
    assert "FINE_TUNE into UNDECIDED" in turned.notes[0]
    same = decide(evidence(measured(3.0, 9.0), comparison_with_flagged=measured(4.0, 10.0)))
    assert same.verdict is Verdict.FINE_TUNE
    assert any("with them the gain is 7.0 points" in note for note in same.notes)


def test_row_3_no_baseline() -> None:
    decision = decide(Evidence(fine_tuned="fine_tuned"))
    assert (decision.verdict, decision.because) == (Verdict.UNDECIDED, (Because.NO_BASELINE,))
    assert (decision.row, decision.use) == (3, None)


@pytest.mark.parametrize("cost", list(CostClass))
@pytest.mark.parametrize(
    ("score", "target", "because"),
    [
        (97.0, 90.0, (Because.TARGET_MET,)),
        (99.0, 99.9, (Because.NO_GAIN,)),
        (98.5, 99.9, ()),
        (99.0, 90.0, (Because.TARGET_MET, Because.NO_GAIN)),
        (70.0, 90.0, ()),
        (70.0, None, ()),
    ],
)
def test_rows_4_and_5_before_anything_is_trained(
    cost: CostClass, score: float, target: float | None, because: tuple[Because, ...]
) -> None:
    few_shot = on_dev("few_shot", score, 1000)
    decision = decide(evidence(baselines=(few_shot,), target=target, cost=cost))
    if because and cost in (CostClass.DEARER, CostClass.UNKNOWN):
        assert (decision.verdict, decision.row) == (Verdict.DO_NOT_FINE_TUNE, 4)
        assert (decision.because, decision.provisional) == (because, False)
    else:
        assert (decision.verdict, decision.row) == (Verdict.UNDECIDED, 5)
        assert (decision.because, decision.provisional) == ((Because.NOT_TESTED,), True)
    assert decision.use == "few_shot"


def test_the_headroom_is_that_of_the_best_baseline_whatever_its_place() -> None:
    names = (on_dev("a", 99.5, 1000), on_dev("b", 60.0, 1000))
    decision = decide(evidence(baselines=names, best_baseline="b"))
    assert decision.because == (Because.NO_GAIN,)


@pytest.mark.parametrize("rows", [20, 50, 188, 189, 1000])
@pytest.mark.parametrize("minimal_gain", [0.0, 1.0, 2.0])
def test_all_right_on_few_rows_leaves_room_to_gain(rows: int, minimal_gain: float) -> None:
    """Of 50 rows all right, the true score may be 92.9; a perfect model could gain 7.1 points."""
    best = on_dev("few_shot", 100.0, rows)
    situation = evidence(baselines=(best,), minimal_gain=minimal_gain)
    decision = decide(situation)
    room = headroom(best)
    assert room is not None and best.low is not None and room == 100.0 - best.low > 0
    assert (decision.verdict is Verdict.DO_NOT_FINE_TUNE) == (room < minimal_gain)
    if decision.verdict is Verdict.DO_NOT_FINE_TUNE:
        said = headline(decision, situation)
        assert f"{rows:,} dev rows" in said and f"{best.low:.1f}" in said
        assert f"{room:.1f}" in said or "just under" in said


def test_a_score_without_an_interval_stops_nothing() -> None:
    unknown = Baseline(name="few_shot", score=100.0, n=1000)
    assert decide(evidence(baselines=(unknown,))).verdict is Verdict.UNDECIDED


def test_more_baselines_must_meet_the_target_by_more() -> None:
    assert meets_target(95.0, 200, 91.0)
    assert not meets_target(95.0, 200, 91.0, comparisons=8)
    assert not meets_target(100.0, 0, 50.0)


def test_row_order_is_kept() -> None:
    everything = evidence(
        measured(3.0, 9.0), broken=("x",), leaked=0.5, baselines=(), best_baseline=None
    )
    assert decide(everything).row == 1
    assert decide(replace(everything, broken=())).row == 2
    assert decide(replace(everything, broken=(), leaked=0.0)).row == 3


PRICED = (
    Baseline(name="rag", usd_per_month=100.0),
    Baseline(name="few_shot", usd_per_month=80.0, against_best_low=-1.9),
    Baseline(name="zero_shot", usd_per_month=10.0, against_best_low=-2.0),
    Baseline(name="classifier", usd_per_month=None, against_best_low=5.0),
    Baseline(name="big", usd_per_month=900.0, against_best_low=5.0),
)


@pytest.mark.parametrize(
    ("name", "use", "provisional"),
    [("worse", "few_shot", False), ("unresolved", "rag", True), ("better", "fine_tuned", False)],
)
def test_use(name: str, use: str, provisional: bool) -> None:
    decision = decide(evidence(measured(*INTERVALS[name]), baselines=PRICED, best_baseline="rag"))
    assert (decision.use, decision.provisional) == (use, provisional)


def test_use_is_the_best_baseline_where_its_cost_is_unknown() -> None:
    unknown = (replace(PRICED[0], usd_per_month=None), *PRICED[1:])
    decision = decide(evidence(measured(-9.0, -5.0), baselines=unknown, best_baseline="rag"))
    assert decision.use == "rag"


def test_one_checkpoint_is_said_to_be_one() -> None:
    one = decide(evidence(measured(3.0, 9.0, about=About.CHECKPOINT)))
    assert one.about is About.CHECKPOINT and any("this checkpoint" in n for n in one.notes)
    recipe = decide(evidence(measured(3.0, 9.0)))
    assert recipe.about is About.RECIPE and not recipe.notes


def test_labels_ask_about_the_limit_that_is_open() -> None:
    gain = measured(-1.0, 6.0, gain=2.5, sd_difference=30.0, n=500)
    above = decide(evidence(gain)).labels
    # 0.5 points count as M/2, and the next look needs 2.797.
    wanted = pytest.approx(((2.797 + 0.842) * 30 / 1) ** 2, rel=0.001)
    assert above is not None and above.total == wanted
    worse = measured(-4.0, 1.0, gain=-1.0, sd_difference=30.0, n=500)
    below = decide(evidence(worse, cost=CostClass.SAVES)).labels
    assert below is not None and below.total == wanted  # one point from −2, not three from +2


@pytest.mark.parametrize("clusters", [None, "one"])
@pytest.mark.parametrize("n", [1, 2, 20])
def test_small_tests_stay_undecided_and_say_what_would_decide(n: int, clusters: str | None) -> None:
    comparison = compare(
        [1.0, 1.0, 0.0, 1.0, 1.0] * 4 if n == 20 else [1.0] * n,
        [1.0, 0.0, 1.0, 0.0, 1.0] * 4 if n == 20 else [0.0] + [1.0] * (n - 1),
        binary=True,
        clusters=[clusters] * n if clusters else None,
    )
    decision = decide(evidence(comparison))
    assert (decision.verdict, decision.because) == (Verdict.UNDECIDED, (Because.UNDERPOWERED,))
    assert decision.labels is not None
    if clusters:
        assert decision.labels.remedy is Remedy.GROUPS
    else:
        assert decision.labels.remedy is Remedy.ROWS
        assert decision.labels.more is not None and decision.labels.more > 0


def test_the_break_even_worth_is_said_where_the_value_is_unknown() -> None:
    costly = evidence(measured(3.0, 9.0), cost=CostClass.DEARER, break_even_value=0.0123)
    assert any("worth $0.0123 or more" in note for note in decide(costly).notes)
    known = replace(costly, net_benefit=NetBenefit(value=2.0, low=1.0, high=3.0))
    assert not decide(known).notes
    pays_anyway = replace(costly, cost=CostClass.SAVES, break_even_value=-0.2)
    assert not decide(pays_anyway).notes


def test_bad_evidence_is_refused() -> None:
    with pytest.raises(DataError, match="negative"):
        decide(evidence(minimal_gain=-1.0))
    with pytest.raises(DataError, match="not among"):
        decide(evidence(best_baseline="other"))


@st.composite
def situations(draw: st.DrawFn) -> Evidence:
    low, high = draw(limits)
    benefit = draw(st.none() | limits)
    return evidence(
        measured(low, high, clusters=draw(st.sampled_from([None, 3, 6, 50]))),
        minimal_gain=draw(minimal),
        cost=draw(st.sampled_from(list(CostClass))),
        net_benefit=benefit and NetBenefit(value=sum(benefit) / 2, low=benefit[0], high=benefit[1]),
        target=draw(st.sampled_from([None, 10.0, 99.0])),
        forgetting=draw(st.sampled_from(list(ForgettingStatus))),
    )


@given(situations())
def test_every_situation_has_a_consistent_decision(situation: Evidence) -> None:
    decision = decide(situation)
    assert decision.because and decision.row == 6
    assert decision.provisional == (decision.verdict is Verdict.UNDECIDED)
    expected = "fine_tuned" if decision.verdict is Verdict.FINE_TUNE else "few_shot"
    assert decision.use == expected
    assert (decision.labels is not None) == (decision.because == (Because.UNDERPOWERED,))


def shifted(situation: Evidence, by: float) -> Decision:
    comparison = situation.comparison
    assert comparison is not None
    better = replace(
        comparison,
        low=comparison.low + by,
        high=comparison.high + by,
        gain=comparison.gain + by,
    )
    return decide(replace(situation, comparison=better))


@given(situations(), st.floats(0, 50))
def test_more_gain_never_turns_a_yes_into_a_no(situation: Evidence, by: float) -> None:
    if decide(situation).verdict is Verdict.FINE_TUNE:
        # A better model does not earn less: its net benefit cannot fall below nothing.
        if situation.net_benefit is not None:
            situation = replace(situation, net_benefit=NetBenefit(value=1.0, low=0.5, high=2.0))
        assert shifted(situation, by).verdict is Verdict.FINE_TUNE


@given(situations(), st.floats(0, 50))
def test_less_gain_never_turns_a_no_into_a_yes(situation: Evidence, by: float) -> None:
    before = decide(situation)
    if before.verdict is Verdict.DO_NOT_FINE_TUNE and before.overlay is None:
        if Because.COST in before.because and before.gain_class is GainClass.BETTER:
            return  # it gains; what it earns is another figure than its gain
        assert shifted(situation, -by).verdict is not Verdict.FINE_TUNE


@given(situations())
def test_a_lost_skill_never_helps(situation: Evidence) -> None:
    lost = replace(situation, forgetting=ForgettingStatus.FAILED, forgetting_vetoes=True)
    failed = decide(lost)
    assert failed.verdict is not Verdict.FINE_TUNE
