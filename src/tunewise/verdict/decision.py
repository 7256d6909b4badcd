"""The decision: from the evidence to a verdict, complete and in one order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tunewise.errors import DataError
from tunewise.verdict.planning import MOST_LOOKS, Labels, Remedy, labels_to_decide
from tunewise.verdict.table import TABLE, gain_class
from tunewise.verdict.words import About, Because, CostClass, ForgettingStatus, GainClass, Verdict

if TYPE_CHECKING:
    from tunewise.verdict.cost import NetBenefit
    from tunewise.verdict.result import PairedComparison

FAILED_SHARE = 0.02
"""More failed requests than this in a primary arm make the test worthless."""

LEAK_SHARE = 0.01
"""From this share of leaked test rows on no score can be trusted."""

_FT, _NOT, _OPEN = Verdict.FINE_TUNE, Verdict.DO_NOT_FINE_TUNE, Verdict.UNDECIDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A way of answering without fine-tuning, as the decision sees it.

    Attributes:
        score: on dev, in points; None where there is no dev score (recorded studies).
        tried: settings of which the best on dev was taken.
        low: lower limit of its 95 % interval on dev; None where that is unknown.
        rows: dev rows. n: what they are worth where they are grouped (``single.effective_rows``).
        usd_per_month: what it costs at the study's volume; None if unknown.
        against_best_low: Bonferroni lower limit in points of this baseline minus the best one
            (``multiple.against_best``); None where they were not compared.
        measured: score in points that the report shows: on test, or on dev where no test was made.
        over_constant: points above the best constant answer on the same rows; of a baseline that
            nearly always answers alike, the lower limit of that. None where it is unknown.
    """

    name: str
    score: float | None = None
    low: float | None = None
    rows: int | None = None
    n: float | None = None
    usd_per_month: float | None = None
    against_best_low: float | None = None
    measured: float | None = None
    over_constant: float | None = None
    tried: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The best constant answer: it costs nothing, and whatever is used must beat it.

    Attributes:
        comparison: the fine-tuned champion against it, on the test rows without flagged ones;
            None where fine-tuning was not tested.
    """

    name: str
    comparison: PairedComparison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the decision rests on. Gains, scores and targets are in points (0..100).

    Attributes:
        minimal_gain: M, the gain worth having, fixed before the test.
        baselines: without fine-tuning; empty: none was run.
        best_baseline: name of the best of them (the champion on dev).
        fine_tuned: name of the fine-tuned champion; None: fine-tuning was not run.
        floor: the best constant answer; None where it was not measured. It is among the baselines
            too, and the best of them where none beats it.
        comparison: the champion with fine-tuning against the best baseline on the test rows,
            flagged rows left out; None: fine-tuning was not run.
        comparison_with_flagged: the same with the flagged rows, where there are any.
        cost: the class of the monthly saving, of the forecast where nothing was trained.
        net_benefit: its limits; None where the value of a correct answer is unknown.
        break_even_value: v*, dollars per correct answer (``cost.break_even_value``); said where
            the gain costs more than nothing and the value is unknown.
        target: a score that is already enough; None: there is none.
        forgetting: whether the tuned model lost what the base could do.
        forgetting_vetoes: a loss overrules a gain: the study says so, or a row that must pass is
            lost. A suite that nobody named only warns.
        forgotten: the largest loss in a suite that failed, in points; None where none did.
        broken: what is wrong with ids or split, one sentence each.
        failed: share of failed requests (0..1) of each primary arm, by name.
        look: which look at these test rows this is; the comparisons' levels are of that look
            (``sequential.look_alpha``), and after ``MOST_LOOKS`` nothing is decided any more.
        leaked: share (0..1) of the test rows that leak: exact, group, time, or verified
            near-duplicates. Loose near-duplicates are only reported and do not count here.
    """

    minimal_gain: float = 2.0
    baselines: tuple[Baseline, ...] = ()
    best_baseline: str | None = None
    fine_tuned: str | None = None
    floor: Floor | None = None
    comparison: PairedComparison | None = None
    comparison_with_flagged: PairedComparison | None = None
    cost: CostClass = CostClass.UNKNOWN
    net_benefit: NetBenefit | None = None
    break_even_value: float | None = None
    target: float | None = None
    forgetting: ForgettingStatus = ForgettingStatus.UNMEASURED
    forgetting_vetoes: bool = False
    forgotten: float | None = None
    broken: tuple[str, ...] = ()
    failed: Mapping[str, float] = field(default_factory=dict)
    leaked: float = 0.0
    look: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict, and how it came about.

    Attributes:
        use: the candidate to ship, or null; ``provisional``: only for now.
        because: codes, the weightiest first.
        row: the row of the decision table (1–6) that matched.
        gain_class, cost_class: the cell of row 6; None in other rows.
        overlay: what then changed the cell's verdict; None if nothing did.
        labels: what would decide an underpowered test; None elsewhere.
        about: what the verdict speaks of; None where nothing was tested.
        notes: sentences that must stand beside the verdict.
    """

    verdict: Verdict
    use: str | None
    because: tuple[Because, ...]
    row: int
    provisional: bool = False
    gain_class: GainClass | None = None
    cost_class: CostClass | None = None
    overlay: Because | None = None
    labels: Labels | None = None
    about: About | None = None
    notes: tuple[str, ...] = ()


def decide(evidence: Evidence) -> Decision:
    """The first matching row of the decision table, then the overlays.

    Choices where the method leaves room: Wilson limits "at α/K" are two-sided at 0.05 over the K
    settings that were tried on dev, of all baselines; row 4 gives every code that holds; a verdict
    "changes" when FINE_TUNE, DO_NOT_FINE_TUNE or UNDECIDED does, not its codes; an overlay replaces
    the codes; the target is held against the test score of the best baseline alone.

    Raises:
        DataError: a negative minimal gain, or a best baseline that is not among the baselines.
    """
    _check(evidence)
    row, leaks = _invalid(evidence)
    if row is not None:
        return row
    if not evidence.baselines:
        return Decision(
            verdict=Verdict.UNDECIDED, use=None, because=(Because.NO_BASELINE,), row=3, notes=leaks
        )
    decision = _untested(evidence) if evidence.comparison is None else _tested(evidence)
    use, provisional = _use(evidence, decision)
    notes = (*leaks, *decision.notes, *_unfit(evidence, use))
    return replace(decision, use=use, provisional=provisional, notes=notes)


def _check(evidence: Evidence) -> None:
    if evidence.minimal_gain < 0:
        raise DataError("the minimal gain is negative", hint="Give points worth having, 0 or more.")
    names = [b.name for b in evidence.baselines]
    if evidence.baselines and evidence.best_baseline not in names:
        raise DataError(
            f"the best baseline {evidence.best_baseline!r} is not among the baselines",
            hint=f"Name one of: {', '.join(names)}.",
        )


def _invalid(evidence: Evidence) -> tuple[Decision | None, tuple[str, ...]]:
    """Rows 1 and 2; and the notes on leaks that were too few to matter."""
    failed = {name: share for name, share in evidence.failed.items() if share > FAILED_SHARE}
    if evidence.broken or failed:
        notes = evidence.broken + tuple(
            f"{100 * share:.1f} % of the requests of {name} failed; up to "
            f"{100 * FAILED_SHARE:g} % is tolerated."
            for name, share in failed.items()
        )
        return _void(Because.BROKEN, 1, notes), ()
    if evidence.leaked >= LEAK_SHARE:
        note = f"{100 * evidence.leaked:.1f} % of the test rows leak from the training rows."
        return _void(Because.LEAK, 2, (note,)), ()
    flagged = evidence.comparison_with_flagged
    if flagged is None or evidence.comparison is None or not evidence.baselines:
        return None, ()
    clean, whole = _tested(evidence), _tested(replace(evidence, comparison=flagged))
    if clean.verdict != whole.verdict:
        note = (
            f"Leaving out the flagged test rows turns {whole.verdict.value} into "
            f"{clean.verdict.value}."
        )
        return _void(Because.LEAK, 2, (note,)), ()
    return None, (
        f"Flagged test rows were left out; with them the gain is {flagged.gain:.1f} points "
        f"({flagged.low:.1f} to {flagged.high:.1f}).",
    )


def _void(code: Because, row: int, notes: tuple[str, ...]) -> Decision:
    return Decision(verdict=Verdict.INVALID, use=None, because=(code,), row=row, notes=notes)


def _untested(evidence: Evidence) -> Decision:
    """Rows 4 and 5: is there anything left that fine-tuning could bring?"""
    scored = [b for b in evidence.baselines if b.score is not None]
    # The best of many settings looks better on dev than it is.
    tried = sum(b.tried for b in scored)
    codes = []
    if evidence.target is not None and any(
        meets_target(b.score or 0.0, b.n or 0.0, evidence.target, comparisons=tried) for b in scored
    ):
        codes.append(Because.TARGET_MET)
    best = max(scored, key=lambda b: b.score or 0.0, default=None)
    room = headroom(best) if best is not None else None
    if room is not None and room < evidence.minimal_gain:
        codes.append(Because.NO_GAIN)
    if codes and evidence.cost in (CostClass.DEARER, CostClass.UNKNOWN):
        return Decision(verdict=_NOT, use=None, because=tuple(codes), row=4)
    return Decision(verdict=_OPEN, use=None, because=(Because.NOT_TESTED,), row=5)


def headroom(baseline: Baseline) -> float | None:
    """What a perfect model could gain over a baseline, in points, at 97.5 %.

    A score of 100 on few rows leaves room: its interval reaches further down than its point.
    """
    return None if baseline.low is None else 100.0 - baseline.low


def meets_target(score: float, n: float, target: float, *, comparisons: int = 1) -> bool:
    """Whether the Wilson lower limit of a score at 0.05/comparisons reaches the target.

    Args:
        score, target: points.
        n: rows; without rows nothing is met.
    """
    from tunewise.verdict.intervals import wilson

    if n <= 0:
        return False
    return 100 * wilson(score / 100, n, alpha=0.05 / comparisons).low >= target


def _tested(evidence: Evidence) -> Decision:
    """Row 6 with its footnote, then the overlays in their order."""
    comparison = evidence.comparison
    assert comparison is not None
    where = gain_class(comparison.low, comparison.high, evidence.minimal_gain)
    if comparison.too_few_clusters:
        where = GainClass.UNRESOLVED
    verdict, because = TABLE[where, evidence.cost]
    benefit = evidence.net_benefit
    if (
        where is GainClass.BETTER
        and evidence.cost in (CostClass.DEARER, CostClass.UNCLEAR)
        and benefit is not None
        and benefit.low <= 0
    ):
        verdict, because = (_NOT if benefit.high < 0 else _OPEN), (Because.COST,)

    overlay: Because | None = None
    notes: list[str] = []
    if (
        verdict in (_FT, _OPEN)
        and evidence.cost in (CostClass.DEARER, CostClass.UNKNOWN)
        and evidence.target is not None
        and comparison.without_low >= evidence.target
    ):
        verdict, overlay = _NOT, Because.TARGET_MET
    over_floor = evidence.floor.comparison if evidence.floor is not None else None
    if verdict is _FT and over_floor is not None and over_floor.low <= 0:
        ruled_out = over_floor.high <= evidence.minimal_gain
        verdict, overlay = (_NOT if ruled_out else _OPEN), Because.CONSTANT
    if verdict is _FT:
        if where is GainClass.BETTER and benefit is None and (evidence.break_even_value or 0) > 0:
            notes.append(
                f"On cost it pays if one more correct answer is worth "
                f"${evidence.break_even_value:,.4g} or more."
            )
        match evidence.forgetting:
            case ForgettingStatus.FAILED if evidence.forgetting_vetoes:
                verdict, overlay = _NOT, Because.FORGETTING
            case ForgettingStatus.UNPROVEN if evidence.forgetting_vetoes:
                verdict, overlay = _OPEN, Because.FORGETTING
            case ForgettingStatus.FAILED:
                notes.append(
                    "The tuned model lost other skills than the task's; where they matter, set "
                    "`forgetting.veto: true`."
                )
            case ForgettingStatus.UNPROVEN:
                notes.append(
                    "That the tuned model kept its other skills is not shown; where they matter, "
                    "set `forgetting.veto: true`."
                )
            case ForgettingStatus.UNMEASURED:
                notes.append("Whether the tuned model forgot other skills was not measured.")
            case ForgettingStatus.PASSED:
                pass
    if evidence.look > MOST_LOOKS:
        verdict, overlay, notes = _OPEN, Because.LOOKS, []
    because = (overlay,) if overlay is not None else because
    if comparison.about is About.CHECKPOINT:
        notes.append(
            "This verdict is about this checkpoint; three or more training seeds would make it "
            "one about the recipe."
        )
    return Decision(
        verdict=verdict,
        use=None,
        because=because,
        row=6,
        gain_class=where,
        cost_class=evidence.cost,
        overlay=overlay,
        labels=_labels(evidence, comparison, where) if because == (Because.UNDERPOWERED,) else None,
        about=comparison.about,
        notes=tuple(notes),
    )


def _labels(evidence: Evidence, comparison: PairedComparison, where: GainClass) -> Labels:
    from tunewise.verdict.intervals import two_sided_z
    from tunewise.verdict.sequential import look_alpha

    if comparison.too_few_clusters:
        return Labels(remedy=Remedy.GROUPS)
    if evidence.look >= MOST_LOOKS:
        return Labels(remedy=Remedy.TEST)
    # Where U <= M no more rows can show a gain; open is whether it is worse than -M.
    M = evidence.minimal_gain
    return labels_to_decide(
        gain=comparison.gain,
        minimal_gain=M,
        sd_difference=comparison.sd_difference,
        n=comparison.n,
        seed_se=comparison.seed_se,
        boundary=-M if where is GainClass.NOT_BETTER else M,
        z=two_sided_z(look_alpha(evidence.look + 1)),
    )


def _use(evidence: Evidence, decision: Decision) -> tuple[str | None, bool]:
    """The candidate to use, and whether that is only for now; None where nothing is fit for use."""
    if decision.verdict is Verdict.FINE_TUNE:
        return evidence.fine_tuned, False
    best = next(b for b in evidence.baselines if b.name == evidence.best_baseline)
    if decision.verdict is Verdict.UNDECIDED:
        return (best.name, True) if _fit(best, evidence) else (None, False)
    if decision.row == 4 or Because.TARGET_MET in decision.because:
        # Even one constant answer may be all that was asked for.
        return best.name, False
    good = [best]
    if best.usd_per_month is not None:
        good += [
            b
            for b in evidence.baselines
            if b.usd_per_month is not None
            and b.against_best_low is not None
            and b.against_best_low > -evidence.minimal_gain
            and b.usd_per_month < best.usd_per_month
        ]
    fit = [b for b in good if _fit(b, evidence) and not _below_target(b, evidence)]
    return (min(fit, key=lambda b: b.usd_per_month or 0.0).name if fit else None), False


def _fit(baseline: Baseline, evidence: Evidence) -> bool:
    """Whether anything it answers is right, and it does more than always to answer the same.

    The latter is taken to be so where it is unknown.
    """
    if baseline.measured is not None and baseline.measured <= 0:
        return False
    if evidence.floor is not None and baseline.name == evidence.floor.name:
        return False
    return baseline.over_constant is None or baseline.over_constant > 0


def _below_target(baseline: Baseline, evidence: Evidence) -> bool:
    target, measured = evidence.target, baseline.measured
    return target is not None and measured is not None and measured < target


def _unfit(evidence: Evidence, use: str | None) -> list[str]:
    """Why nothing is named for use, or what the tuned model that is named still lacks."""
    comparison, target = evidence.comparison, evidence.target
    if use is not None:
        if use != evidence.fine_tuned or comparison is None or target is None:
            return []
        score = comparison.with_score
        return [f"{use} scores {score:.1f}, below the target of {target:g}."][: score < target]
    best = next(b for b in evidence.baselines if b.name == evidence.best_baseline)
    found = "Nothing that was measured is fit for use: "
    if best.measured is not None and best.measured <= 0:
        return [f"{found}no answer of {best.name}, the best without fine-tuning, scores anything."]
    if not _fit(best, evidence):
        return [f"{found}{best.name} is not shown to be better than one constant answer."]
    return [f"{found}{best.name} scores {best.measured:.1f}, below the target of {target:g}."]
