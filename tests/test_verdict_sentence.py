"""The headline: one sentence for each way a study can end."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tunewise.study.parts import KINDS, traits_of
from tunewise.verdict.compare import compare
from tunewise.verdict.cost import CostComparison, NetBenefit
from tunewise.verdict.decision import Baseline, Evidence, decide
from tunewise.verdict.planning import Labels, Remedy
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.sentence import headline, points, rounded
from tunewise.verdict.words import CostClass, ForgettingStatus

SOME = compare([1.0, 0.0, 1.0, 0.0] * 50, [1.0, 1.0, 0.0, 0.0] * 50, binary=True)


NAMES = {kind: traits_of(kind).title or kind for kind in KINDS.names()}


def measured(gain: float, low: float, high: float, **changes: object) -> PairedComparison:
    return replace(
        SOME, **{"gain": gain, "low": low, "high": high, "without_score": 70.2, **changes}
    )


def study(comparison: PairedComparison | None, **changes: object) -> Evidence:
    start = Evidence(
        baselines=(Baseline(name="few_shot", score=70.0, n=200),),
        best_baseline="few_shot",
        fine_tuned="fine_tuned",
        comparison=comparison,
        forgetting=ForgettingStatus.PASSED,
    )
    return replace(start, **changes)  # type: ignore[arg-type]


def costs(cost_class: CostClass, saving: float) -> CostComparison:
    return CostComparison(cost_class=cost_class, saving_per_month=saving)


SAVES, DEARER = costs(CostClass.SAVES, 1240.4), costs(CostClass.DEARER, -35.5)
CHEAPER_RIVAL = (
    Baseline(name="rag", usd_per_month=50.0),
    Baseline(name="classifier", usd_per_month=1.0, against_best_low=-1.0),
)


@pytest.mark.parametrize(
    ("evidence", "cost", "sentence"),
    [
        (
            study(measured(12.41, 7.08, 17.62)),
            None,
            "Fine-tune: this checkpoint scores 12.4 points more than few-shot prompting (95 % "
            "interval 7.1 to 17.6), and 2 points were asked for.",
        ),
        (
            study(measured(12.41, 7.08, 17.62), cost=CostClass.SAVES),
            SAVES,
            "Fine-tune: this checkpoint scores 12.4 points more than few-shot prompting (95 % "
            "interval 7.1 to 17.6), and 2 points were asked for; it is also cheaper by $1,240 a "
            "month.",
        ),
        (
            study(measured(12.41, 7.08, 17.62), cost=CostClass.DEARER),
            DEARER,
            "Fine-tune: this checkpoint scores 12.4 points more than few-shot prompting (95 % "
            "interval 7.1 to 17.6), and 2 points were asked for; it costs more by $36 a month.",
        ),
        (
            study(measured(-0.5, -1.5, 0.5), cost=CostClass.SAVES),
            SAVES,
            "Fine-tune: it is cheaper by $1,240 a month, and this checkpoint scores 0.5 points "
            "less than few-shot prompting (95 % interval -1.5 to 0.5), so it is not worse by the "
            "2 points that matter.",
        ),
        (
            study(measured(-6.0, -9.0, -3.0)),
            None,
            "Do not fine-tune: this checkpoint scores 6 points less than few-shot prompting (95 % "
            "interval -9.0 to -3.0).",
        ),
        (
            study(measured(-6.0, -9.0, -3.0), baselines=CHEAPER_RIVAL, best_baseline="rag"),
            None,
            "Do not fine-tune: this checkpoint scores 6 points less than retrieval (95 % interval "
            "-9.0 to -3.0); the plain classifier does as well for less.",
        ),
        (
            study(measured(0.0, -1.0, 1.0), cost=CostClass.DEARER),
            DEARER,
            "Do not fine-tune: this checkpoint scores the same as few-shot prompting (95 % "
            "interval -1.0 to 1.0), and 2 points were asked for; it also costs more by $36 a "
            "month.",
        ),
        (
            study(measured(0.0, -1.0, 1.0), cost=CostClass.DEARER),
            costs(CostClass.DEARER, 0.0),
            "Do not fine-tune: this checkpoint scores the same as few-shot prompting (95 % "
            "interval -1.0 to 1.0), and 2 points were asked for; it saves nothing.",
        ),
        (
            study(measured(9.0, 4.0, 14.0, without_low=66.0), target=65.0),
            None,
            "Do not fine-tune: few-shot prompting already meets the target of 65 (it scores 70.2).",
        ),
        (
            study(
                measured(9.0, 4.0, 14.0), forgetting=ForgettingStatus.FAILED, forgetting_vetoes=True
            ),
            None,
            "Do not fine-tune: this checkpoint scores 9 points more than few-shot prompting (95 % "
            "interval 4.0 to 14.0), but it lost skills that it must keep.",
        ),
        (
            study(
                measured(9.0, 4.0, 14.0),
                cost=CostClass.DEARER,
                net_benefit=NetBenefit(value=-5.0, low=-9.0, high=-1.0),
            ),
            DEARER,
            "Do not fine-tune: this checkpoint scores 9 points more than few-shot prompting (95 % "
            "interval 4.0 to 14.0), but it costs more than that is worth.",
        ),
        (
            study(
                None,
                baselines=(Baseline(name="few_shot", score=99.4, low=98.7, rows=1200, n=1200),),
            ),
            None,
            "Do not fine-tune: few-shot prompting scores 99.4 of 100 on 1,200 dev rows (95 % "
            "interval from 98.7 up), so even a perfect model could gain 1.3 points at most, less "
            "than the 2 points asked for.",
        ),
        (
            study(measured(6.0, -1.0, 13.0, sd_difference=44.0, n=300)),
            None,
            "Undecided: this checkpoint scores 6 points more than few-shot prompting (95 % "
            "interval -1.0 to 13.0), and 2 points were asked for; with about 1,400 more test rows "
            "the test decides with 80 % chance if the gain is as measured.",
        ),
        (
            study(measured(6.0, -1.0, 13.0, clusters=4)),
            None,
            "Undecided: this checkpoint scores 6 points more than few-shot prompting (95 % "
            "interval -1.0 to 13.0), and 2 points were asked for; the rows come from fewer than "
            "six groups; test on more groups to decide.",
        ),
        (
            study(measured(0.5, -1.0, 1.5), cost=CostClass.UNCLEAR),
            None,
            "Undecided: this checkpoint scores 0.5 points more than few-shot prompting (95 % "
            "interval -1.0 to 1.5), so cost decides, and it is not clear which is cheaper.",
        ),
        (
            study(
                measured(9.0, 4.0, 14.0),
                cost=CostClass.UNCLEAR,
                net_benefit=NetBenefit(value=1.0, low=-9.0, high=11.0),
            ),
            None,
            "Undecided: this checkpoint scores 9 points more than few-shot prompting (95 % "
            "interval 4.0 to 14.0), but it is not clear that this is worth what it costs.",
        ),
        (
            study(
                measured(9.0, 4.0, 14.0),
                forgetting=ForgettingStatus.UNPROVEN,
                forgetting_vetoes=True,
            ),
            None,
            "Undecided: this checkpoint scores 9 points more than few-shot prompting (95 % "
            "interval 4.0 to 14.0), but it is not shown that other skills are kept; test on more "
            "such items.",
        ),
        (
            study(None),
            None,
            "Undecided: no fine-tuned model was tested; use few-shot prompting for now.",
        ),
        (
            Evidence(),
            None,
            "Undecided: there is nothing to compare with; run at least one candidate without "
            "fine-tuning.",
        ),
        (
            study(measured(9.0, 4.0, 14.0), leaked=0.034),
            None,
            "Invalid: 3.4 % of the test rows leak from the training rows, so the test cannot be "
            "trusted.",
        ),
        (
            study(measured(9.0, 4.0, 14.0), broken=("Row id q7 stands twice.", "No test rows.")),
            None,
            "Invalid: Row id q7 stands twice (and 1 more), so the test cannot be trusted.",
        ),
        (
            study(
                measured(-0.5, -1.5, 0.5, sd_difference=20.0, n=300),
                cost=CostClass.SAVES,
                minimal_gain=1.0,
            ),
            SAVES,
            "Undecided: it is cheaper by $1,240 a month, but this checkpoint scores 0.5 points "
            "less than few-shot prompting (95 % interval -1.5 to 0.5), so it may be worse by 1 "
            "point or more; with about 21,000 more test rows the test decides with 80 % chance if "
            "the gain is as measured.",
        ),
        (
            study(
                measured(-0.5, -3.5, 0.5, sd_difference=20.0, n=300),
                cost=CostClass.UNCLEAR,
            ),
            None,
            "Undecided: this checkpoint scores 0.5 points less than few-shot prompting (95 % "
            "interval -3.5 to 0.5), so it may be worse by 2 points or more; with about 2,100 more "
            "test rows the test decides with 80 % chance if the gain is as measured.",
        ),
    ],
)
def test_the_sentence(evidence: Evidence, cost: CostComparison | None, sentence: str) -> None:
    assert headline(decide(evidence), evidence, cost=cost, names=NAMES) == sentence


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (Labels(remedy=Remedy.SEEDS), "train with more seeds"),
        (Labels(remedy=Remedy.COST), "more rows will not decide, so choose on cost"),
        (
            Labels(remedy=Remedy.ROWS, total=201, more=1, chance=0.004),
            "with about 1 more test row the test decides with less than 1 % chance",
        ),
        (Labels(remedy=Remedy.TEST), "take a new, unopened test"),
    ],
)
def test_what_would_decide(labels: Labels, part: str) -> None:
    evidence = study(measured(6.0, -3.0, 13.0))
    decision = replace(decide(evidence), labels=labels)
    assert part in headline(decision, evidence)


def test_names_can_be_given() -> None:
    evidence = study(
        measured(9.0, 4.0, 14.0), best_baseline="big", baselines=(Baseline(name="big"),)
    )
    assert "than big (" in headline(decide(evidence), evidence)
    named = headline(decide(evidence), evidence, names={"big": "the big model"})
    assert "than the big model (" in named


def test_a_wish_for_any_gain() -> None:
    evidence = study(measured(9.0, 4.0, 14.0), minimal_gain=0.0)
    assert "any gain was worth having" in headline(decide(evidence), evidence)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0, "2 points"), (1.0, "1 point"), (12.44, "12.4 points"), (-0.01, "0 points")],
)
def test_points(value: float, text: str) -> None:
    assert points(value) == text


@pytest.mark.parametrize(
    ("count", "shown"), [(7, 7), (99, 99), (641, 650), (100, 100), (1201, 1300)]
)
def test_counts_are_rounded_up(count: int, shown: int) -> None:
    assert rounded(count) == shown


def test_no_sentence_has_two() -> None:
    evidence = study(measured(12.4, 7.1, 17.6))
    assert len(re.findall(r"[.!?](?:\s|$)", headline(decide(evidence), evidence))) == 1
