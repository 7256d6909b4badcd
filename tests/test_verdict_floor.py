"""The best constant answer as a floor: nothing below it is worth tuning, or using."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewise.verdict.compare import compare
from tunewise.verdict.decision import Baseline, Evidence, Floor, decide
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.sentence import headline
from tunewise.verdict.words import About, Because, CostClass, ForgettingStatus, Verdict

SOME = compare([1.0, 0.0, 1.0, 0.0] * 50, [1.0, 1.0, 0.0, 0.0] * 50, binary=True)


def gap(low: float, high: float) -> PairedComparison:
    return replace(SOME, low=low, high=high, gain=(low + high) / 2, about=About.RECIPE)


def study(
    over_prompts: PairedComparison | None, over_constant: PairedComparison | None
) -> Evidence:
    few_shot = Baseline(name="few_shot", score=70.0, n=200, measured=70.0, over_constant=10.0)
    constant = Baseline(name="constant", score=60.0, n=200, measured=60.0)
    return Evidence(
        baselines=(few_shot, constant),
        best_baseline="few_shot",
        fine_tuned="fine_tuned",
        comparison=over_prompts,
        floor=Floor(name="constant", comparison=over_constant),
        forgetting=ForgettingStatus.PASSED,
    )


@pytest.mark.parametrize(
    ("over_constant", "verdict"),
    [
        (gap(0.1, 9.0), Verdict.FINE_TUNE),
        (gap(-3.0, 9.0), Verdict.UNDECIDED),
        (gap(0.0, 0.0), Verdict.DO_NOT_FINE_TUNE),
        (gap(-9.0, 2.0), Verdict.DO_NOT_FINE_TUNE),
    ],
)
def test_a_gain_over_prompts_is_none_without_one_over_the_constant(
    over_constant: PairedComparison, verdict: Verdict
) -> None:
    evidence = study(gap(27.2, 40.1), over_constant)
    decision = decide(evidence)
    assert decision.verdict is verdict
    said = headline(decision, evidence)
    blocked = verdict is not Verdict.FINE_TUNE
    assert (decision.because == (Because.CONSTANT,)) == blocked
    assert ("one constant answer" in said) == blocked


@given(
    st.tuples(st.floats(-100, 100), st.floats(-100, 100)).map(sorted),
    st.tuples(st.floats(-100, 0), st.floats(-100, 100)).map(sorted),
    st.sampled_from(CostClass),
)
def test_no_figures_make_fine_tuning_right_below_the_constant(
    gain: list[float], over: list[float], cost: CostClass
) -> None:
    evidence = replace(study(gap(*gain), gap(*over)), cost=cost)
    assert decide(evidence).verdict is not Verdict.FINE_TUNE


@pytest.mark.parametrize(("over", "use"), [(0.1, "few_shot"), (0.0, None), (-1.5, None)])
@pytest.mark.parametrize("gain", [gap(-9.0, -1.0), gap(-9.0, 9.0), None])
def test_nothing_is_named_for_use_that_is_no_better_than_the_constant(
    gain: PairedComparison | None, over: float, use: str | None
) -> None:
    evidence = study(gain, None)
    few_shot = replace(evidence.baselines[0], over_constant=over)
    evidence = replace(evidence, baselines=(few_shot, evidence.baselines[1]))
    decision = decide(evidence)
    assert decision.use == use
    assert (decision.provisional and use is not None) == (decision.provisional)
    told = any("fit for use" in note for note in decision.notes)
    assert told == (use is None)
    if gain is None or decision.verdict is Verdict.DO_NOT_FINE_TUNE:
        assert ("fit for use" in headline(decision, evidence)) == (use is None)


def test_where_the_constant_is_the_best_nothing_is_fit_for_use() -> None:
    evidence = replace(study(gap(-1.0, 1.0), gap(-1.0, 1.0)), best_baseline="constant")
    decision = decide(evidence)
    assert (decision.verdict, decision.use) == (Verdict.DO_NOT_FINE_TUNE, None)
    assert "the same as constant" in headline(decision, evidence)
    titles = {"constant": "one constant answer"}
    assert "the same as one constant answer" in headline(decision, evidence, names=titles)


def test_a_constant_that_is_all_that_was_asked_for_may_be_used() -> None:
    evidence = replace(
        study(None, None),
        baselines=(Baseline(name="constant", score=99.9, n=5000, measured=99.9),),
        best_baseline="constant",
        target=90.0,
    )
    decision = decide(evidence)
    assert Because.TARGET_MET in decision.because
    assert decision.use == "constant"


@pytest.mark.parametrize(("target", "use"), [(70.0, "few_shot"), (70.1, None)])
def test_nothing_below_the_target_is_named_for_use(target: float, use: str | None) -> None:
    evidence = replace(study(gap(-9.0, -1.0), gap(1.0, 9.0)), target=target)
    decision = decide(evidence)
    assert (decision.verdict, decision.use) == (Verdict.DO_NOT_FINE_TUNE, use)
    assert any(f"target of {target:g}" in note for note in decision.notes) == (use is None)


def test_a_cheap_constant_is_no_way_to_do_as_well_for_less() -> None:
    evidence = study(gap(-1.0, 1.0), gap(5.0, 9.0))
    few_shot, constant = evidence.baselines
    evidence = replace(
        evidence,
        baselines=(
            replace(few_shot, usd_per_month=50.0),
            replace(constant, usd_per_month=0.0, against_best_low=-0.5),
        ),
    )
    assert decide(evidence).use == "few_shot"


@pytest.mark.parametrize(("target", "said"), [(80.0, False), (80.1, True)])
def test_a_tuned_model_below_the_target_is_said_to_be(target: float, said: bool) -> None:
    better = replace(gap(5.0, 9.0), with_score=80.0)
    decision = decide(replace(study(better, gap(15.0, 19.0)), target=target))
    assert decision.use == "fine_tuned"
    assert any("below the target" in note for note in decision.notes) == said


@pytest.mark.parametrize("gain", [gap(-9.0, -1.0), gap(-9.0, 9.0), None])
def test_nothing_is_named_for_use_that_has_no_right_answer(gain: PairedComparison | None) -> None:
    """Also where no constant scores anything either, so that there is no floor."""
    zero = Baseline(name="zero_shot", score=0.0, n=200, measured=0.0)
    evidence = replace(study(gain, None), baselines=(zero,), best_baseline="zero_shot", floor=None)
    decision = decide(evidence)
    assert decision.use is None
    if gain is not None:
        assert "no answer of zero_shot" in decision.notes[-1]
