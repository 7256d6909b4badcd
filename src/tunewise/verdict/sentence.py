"""One plain sentence for the verdict, numbers included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunewise.verdict.decision import headroom
from tunewise.verdict.planning import MOST_LOOKS, Labels, Remedy
from tunewise.verdict.words import About, Because, CostClass, GainClass, Verdict
from tunewise.words import level, plural

if TYPE_CHECKING:
    from tunewise.verdict.cost import CostComparison
    from tunewise.verdict.decision import Decision, Evidence
    from tunewise.verdict.result import PairedComparison


def headline(
    decision: Decision,
    evidence: Evidence,
    *,
    cost: CostComparison | None = None,
    names: Mapping[str, str] | None = None,
) -> str:
    """The verdict as one sentence that needs no statistics to be understood.

    Args:
        cost: for the dollars; without it the sentence does not name any.
        names: how to call the candidates, by name; others are called by their name.
    """
    say = names or {}
    match decision.verdict:
        case Verdict.FINE_TUNE:
            return "Fine-tune: " + _do(decision, evidence, cost, say) + _forgotten(evidence) + "."
        case Verdict.DO_NOT_FINE_TUNE:
            return "Do not fine-tune: " + _do_not(decision, evidence, cost, say) + "."
        case Verdict.UNDECIDED:
            return "Undecided: " + _open(decision, evidence, cost, say) + "."
        case Verdict.INVALID:
            return "Invalid: " + _void(decision) + "."


def _name(name: str | None, say: Mapping[str, str]) -> str:
    return "the best baseline" if name is None else say.get(name, name)


def points(value: float) -> str:
    """``2 points``, ``1 point``, ``12.4 points``; no sign for a rounded zero."""
    text = f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else ""
    text = text or f"{value:.1f}".removesuffix(".0")
    return f"{text} point" + ("" if text in ("1", "-1") else "s")


def dollars(value: float) -> str:
    """``$1,240``, ``$12``, ``$0.45``."""
    return f"${value:,.0f}" if abs(value) >= 10 else f"${value:,.2f}"


def rounded(count: int) -> int:
    """A count to two significant digits, upwards: what is asked for should be enough."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step


def _interval(comparison: PairedComparison) -> str:
    return f"{level(comparison.alpha)} interval {comparison.low:.1f} to {comparison.high:.1f}"


def _asked(evidence: Evidence) -> str:
    if evidence.minimal_gain == 0:
        return "any gain was worth having"
    were = "was" if evidence.minimal_gain == 1 else "were"
    return f"{points(evidence.minimal_gain)} {were} asked for"


def _difference(comparison: PairedComparison, rival: str) -> str:
    # Of one or two training runs only these weights are shown, not the way they were made.
    it = "this checkpoint" if comparison.about is About.CHECKPOINT else "it"
    if abs(comparison.gain) < 0.05:
        return f"{it} scores the same as {rival} ({_interval(comparison)})"
    word = "more" if comparison.gain > 0 else "less"
    return (
        f"{it} scores {points(abs(comparison.gain))} {word} than {rival} ({_interval(comparison)})"
    )


def _saving(cost: CostComparison | None) -> str:
    if cost is None or cost.saving_per_month is None or abs(cost.saving_per_month) < 0.005:
        return ""
    return f" by {dollars(abs(cost.saving_per_month))} a month"


def _forgotten(evidence: Evidence) -> str:
    if evidence.forgotten is None:
        return ""
    return f"; it lost {points(evidence.forgotten)} of general skills"


def _do(
    decision: Decision, evidence: Evidence, cost: CostComparison | None, say: Mapping[str, str]
) -> str:
    assert evidence.comparison is not None
    text = _difference(evidence.comparison, _name(evidence.best_baseline, say))
    if Because.GAIN not in decision.because:
        text = f"it is cheaper{_saving(cost)}, and {text}"
        if evidence.minimal_gain == 0:
            return text
        return f"{text}, so it is not worse by the {points(evidence.minimal_gain)} that matter"
    text += f", and {_asked(evidence)}"
    if Because.COST in decision.because:
        return text + f"; it is also cheaper{_saving(cost)}"
    if decision.cost_class is CostClass.DEARER:
        return text + f"; it costs more{_saving(cost)}"
    return text


def _do_not(
    decision: Decision, evidence: Evidence, cost: CostComparison | None, say: Mapping[str, str]
) -> str:
    rival = _name(evidence.best_baseline, say)
    text = _why_not(decision, evidence, cost, rival)
    if decision.use is None:
        return f"{text}; nothing that was measured is fit for use"
    if decision.use != evidence.best_baseline:
        text += f"; {_name(decision.use, say)} does as well for less"
    return text


def _why_not(
    decision: Decision, evidence: Evidence, cost: CostComparison | None, rival: str
) -> str:
    comparison = evidence.comparison
    best = next((b for b in evidence.baselines if b.name == evidence.best_baseline), None)
    score = comparison.without_score if comparison else best.score if best else None
    on_dev = f" on {best.rows:,} dev rows" if comparison is None and best and best.rows else ""
    if Because.TARGET_MET in decision.because:
        return (
            f"{rival} already meets the target of {evidence.target:g} "
            f"(it scores {score:.1f}{on_dev})"
        )
    if comparison is None:
        assert best is not None
        room = headroom(best)
        assert room is not None
        return (
            f"{rival} scores {score:.1f} of 100{on_dev} (95 % interval from {best.low:.1f} up), so "
            f"even a perfect model could gain {_at_most(room, evidence.minimal_gain)}"
        )
    text = _difference(comparison, rival)
    if Because.FORGETTING in decision.because:
        return f"{text}, but it lost skills that it must keep"
    if Because.CONSTANT in decision.because:
        return f"{text}, but {_over_floor(evidence)}"
    if Because.WORSE in decision.because:
        return text
    if decision.because == (Because.COST,):
        return f"{text}, but it costs more than that is worth"
    text += f", and {_asked(evidence)}"
    if Because.COST in decision.because:
        text += f"; it also costs more{_saving(cost)}" if _saving(cost) else "; it saves nothing"
    return text


def _at_most(room: float, minimal_gain: float) -> str:
    """``1.9 points at most, less than the 2 points asked for``, whatever rounding does to it."""
    asked = points(minimal_gain)
    if points(room) == asked:
        return f"just under the {asked} asked for"
    return f"{points(room)} at most, less than the {asked} asked for"


def _over_floor(evidence: Evidence) -> str:
    """How the tuned model does against one answer for every row."""
    assert evidence.floor is not None and evidence.floor.comparison is not None
    comparison = evidence.floor.comparison
    if abs(comparison.gain) < 0.05:
        return f"one constant answer scores as much ({_interval(comparison)})"
    word = "more" if comparison.gain > 0 else "less"
    return (
        f"that is {points(abs(comparison.gain))} {word} than one constant answer "
        f"({_interval(comparison)})"
    )


def _open(
    decision: Decision, evidence: Evidence, cost: CostComparison | None, say: Mapping[str, str]
) -> str:
    if Because.NO_BASELINE in decision.because:
        return "there is nothing to compare with; run at least one candidate without fine-tuning"
    rival = _name(evidence.best_baseline, say)
    if Because.NOT_TESTED in decision.because:
        now = f"use {rival} for now" if decision.use else "nothing that was measured is fit for use"
        return f"no fine-tuned model was tested; {now}"
    assert evidence.comparison is not None
    text = _difference(evidence.comparison, rival)
    if Because.LOOKS in decision.because:
        return (
            f"{text}, but this is look {evidence.look} at the same test rows, of which "
            f"{MOST_LOOKS} at most can decide; take a new, unopened test"
        )
    if Because.CONSTANT in decision.because:
        return f"{text}, but {_over_floor(evidence)}; test on more rows to decide"
    if Because.FORGETTING in decision.because:
        return f"{text}, but it is not shown that other skills are kept; test on more such items"
    if Because.COST in decision.because:
        if decision.gain_class is GainClass.BETTER:
            return f"{text}, but it is not clear that this is worth what it costs"
        return f"{text}, so cost decides, and it is not clear which is cheaper"
    if decision.gain_class is GainClass.NOT_BETTER:
        if decision.cost_class is CostClass.SAVES:
            text = f"it is cheaper{_saving(cost)}, but {text}"
        worse = f"{points(evidence.minimal_gain)} or more" if evidence.minimal_gain else "a little"
        return f"{text}, so it may be worse by {worse}; {_remedy(decision)}"
    return f"{text}, and {_asked(evidence)}; {_remedy(decision)}"


def _remedy(decision: Decision) -> str:
    labels = decision.labels
    assert labels is not None
    match labels.remedy:
        case Remedy.ROWS:
            return more_rows(labels)
        case Remedy.SEEDS:
            return "the training runs differ too much; train with more seeds to decide"
        case Remedy.GROUPS:
            return "the rows come from fewer than six groups; test on more groups to decide"
        case Remedy.TEST:
            return (
                f"the same test rows were looked at {MOST_LOOKS} times, so more of them will not "
                "decide; take a new, unopened test"
            )
        case Remedy.COST:
            return "more rows will not decide, so choose on cost"


def more_rows(labels: Labels) -> str:
    """What more test rows would do, with the chance that they do it."""
    assert labels.more is not None and labels.chance is not None
    return (
        f"with about {plural(rounded(labels.more), 'more test row')} the test decides with "
        f"{chance(labels.chance)} chance if the gain is as measured"
    )


def chance(share: float) -> str:
    """``80 %``; what is too small to tell from nothing is ``less than 1 %``."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _void(decision: Decision) -> str:
    why = decision.notes[0].removesuffix(".")
    rest = f" (and {len(decision.notes) - 1} more)" if len(decision.notes) > 1 else ""
    return f"{why}{rest}, so the test cannot be trusted"
