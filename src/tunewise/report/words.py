"""What the verdict says in plain words, for the terminal and the page alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewise.report import format as fmt
from tunewise.report.document import (
    AuditFinding,
    BreakdownRow,
    CandidateRow,
    Cost,
    ForgettingResult,
    ForgettingSuite,
    Primary,
    TestSet,
    Verdict,
)
from tunewise.verdict.planning import MOST_LOOKS
from tunewise.verdict.result import FEWEST_CLUSTERS
from tunewise.verdict.sentence import chance
from tunewise.words import level, some_of

VERDICTS: Mapping[str, str] = {
    "FINE_TUNE": "Fine-tune",
    "DO_NOT_FINE_TUNE": "Do not fine-tune",
    "UNDECIDED": "Undecided",
    "INVALID": "Invalid",
}

GATES: Mapping[str, str] = {
    "G0": "the audit of the data",
    "G1": "the baselines",
    "G2": "the pilot fine-tune",
    "G3": "the full fine-tune",
    "G4": "further seeds",
    "G5": "the final test",
}

_REASONS: Mapping[str, tuple[str, str]] = {
    "gain": ("A gain worth having", "even the low end of the interval beats the gain asked for"),
    "no_gain": ("No gain worth having", "the gain asked for is ruled out"),
    "worse": ("Worse", "fine-tuning scores lower than the best baseline"),
    "target_met": ("Target already met", "a baseline reaches the score that is enough"),
    "underpowered": ("Too few test rows", "the interval is too wide to decide"),
    "leak": ("Test rows leaked", "rows of the test were seen in training, so no score can be read"),
    "broken": ("Broken data or answers", "ids, splits or too many requests failed"),
    "forgetting": ("Forgetting", "what the model could do before is lost, or not shown to be kept"),
    "constant": ("No better than a constant", "always answering the same may score as much"),
    "looks": ("Looked at too often", "the same test rows were opened more than five times"),
    "no_baseline": ("No baseline", "there is nothing to compare fine-tuning with"),
    "not_tested": ("Not tested", "fine-tuning was not run"),
}

_COST_REASONS: Mapping[str, tuple[str, str]] = {
    "FINE_TUNE": ("Cheaper", "it costs less at the traffic given"),
    "DO_NOT_FINE_TUNE": ("Does not pay", "it costs more than it brings at the traffic given"),
    "UNDECIDED": ("Costs not settled", "the costs cannot be told apart at the traffic given"),
}


_METHODS: Mapping[str, str] = {
    "newcombe_tango": "the envelope of Newcombe's and Tango's paired intervals",
    "rare_events": "interval for few rows that differ",
    "paired_t": "paired t interval",
    "bca_bootstrap": "BCa paired bootstrap",
    "zero_variance": "bound for rows that do not vary",
    "cluster_t": "t interval over groups",
    "two_level_t": "t interval over rows and seeds",
    "simultaneous": "simultaneous interval over all pairs",
    "whole_range": "no interval can be known",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A code of ``because`` in words: a short label, and a hint where there is one."""

    code: str
    label: str
    hint: str


def reasons(verdict: Verdict) -> list[Reason]:
    """The codes of ``because`` in words; a code that is not known here shows as it is."""
    found = []
    for code in verdict.because:
        fallback = (code.replace("_", " ").capitalize(), "")
        table = _REASONS.get(code, fallback)
        label, hint = _COST_REASONS.get(verdict.verdict, fallback) if code == "cost" else table
        found.append(Reason(code, label, hint))
    return found


_BEFORE_NUMBER = re.compile(r"(?<![^\s(])-(?=\d)")
"""A hyphen that is a minus, of numbers in sentences that are kept in ASCII."""


def headline(verdict: Verdict) -> str:
    """The sentence without the verdict's word, which stands above it already."""
    text = verdict.headline.removeprefix(f"{VERDICTS[verdict.verdict]}: ")
    return _BEFORE_NUMBER.sub(fmt.MINUS, text[:1].upper() + text[1:])


def method(primary: Primary) -> str | None:
    """How the interval was made; a code that is not known here shows as it is."""
    return _METHODS.get(primary.method, primary.method) if primary.method else None


def use_label(verdict: Verdict) -> str:
    """What stands before the name of the candidate to use."""
    return "Use for now" if verdict.use_for_now else "Use"


def ended(verdict: Verdict) -> str:
    """Where the study ended: ``ended at G1, the baselines``."""
    return f"ended at {verdict.ended_at}, {GATES[verdict.ended_at]}"


def measured_on(candidates: list[CandidateRow]) -> str:
    """Which rows the scores are from: ``on test, 400 rows``."""
    places = {(c.measured_on, c.n) for c in candidates if c.score is not None}
    if len(places) == 1:
        place, n = places.pop()
        parts = [f"on {place}" if place else "", fmt.plural(n, "row") if n is not None else ""]
        return ", ".join(p for p in parts if p)
    names = sorted({place for place, _ in places if place})
    return f"on {' and '.join(names)} rows" if names else ""


def primary_sentences(primary: Primary) -> list[str]:
    """The one comparison that decides; empty where it was not made."""
    if primary.gain is None or primary.interval is None:
        return []
    low, high = primary.interval
    bar = primary.minimal_gain
    edges = () if bar is None else (bar, -bar)
    difference = "fewer" if primary.gain < 0 else "more"
    size = fmt.points(abs(primary.gain), () if bar is None else (bar,))
    sentences = [
        f"{primary.with_ or 'Fine-tuned'} scores {size} points {difference} than "
        f"{primary.without or 'the best baseline'} "
        f"({interval_level(primary)} interval {fmt.gain_interval(primary.interval, edges)})."
    ]
    if bar is not None:
        sentences.append(
            f"Asked for: at least {fmt.points(bar)}. {_reading(primary, low, high, bar)}"
        )
    return sentences


def interval_level(primary: Primary) -> str:
    """``95 %``; at a further look at the test rows it is more."""
    return level(1 - primary.level / 100)


def look_sentence(test: TestSet) -> str | None:
    """Which look at the test rows it is, where it is not the first."""
    if test.opened is None or test.opened < 2:
        return None
    return f"look {test.opened} of at most {MOST_LOOKS} at these rows"


def breakdown_name(row: BreakdownRow) -> str:
    """``topic = tax``, or the metric's name."""
    return row.name if row.value is None else f"{row.name} = {row.value}"


def breakdown_lines(verdict: Verdict) -> list[str]:
    """A line for each slice and further metric, what got worse first."""
    rows = sorted(verdict.breakdown, key=lambda row: not row.worse)
    lines = []
    for row in rows:
        text = f"{breakdown_name(row)}: {fmt.gain(row.gain)}"
        if row.interval is not None:
            text += f" ({fmt.gain_interval(row.interval)})"
        text += f", {fmt.points(row.with_)} against {fmt.points(row.without)}"
        text += f", {fmt.plural(row.n, 'row')}"
        if row.p_adjusted is not None:
            text += f", adjusted p {fmt.p_value(row.p_adjusted)}"
        lines.append(f"{text}{': worse' if row.worse else ''}")
    return lines


def _reading(primary: Primary, low: float, high: float, bar: float) -> str:
    """The rows of the decision table (method, 0.6) in words."""
    if primary.clusters is not None and primary.clusters < FEWEST_CLUSTERS:
        return f"With fewer than {FEWEST_CLUSTERS} groups no interval can be trusted."
    if low > bar:
        return "Even the low end of the interval beats that."
    if low > -bar:
        if high <= bar:
            return "A gain of that size is ruled out, and so is a loss of that size."
        return "Such a gain is neither shown nor ruled out; a loss of that size is ruled out."
    if high < 0:
        return "The whole interval lies below zero: it is worse."
    if high <= bar:
        return "A gain of that size is ruled out; a loss of that size is not."
    return "The interval is too wide: it holds such a gain and such a loss."


def planning_sentence(primary: Primary) -> str | None:
    """How many rows would decide, and what the test at hand can show."""
    if primary.labels_needed is not None:
        more = primary.labels_needed - (primary.n or 0)
        text = f"About {fmt.count(primary.labels_needed)} test rows"
        if more > 0:
            text += f", {fmt.count(more)} more than there are,"
        if primary.labels_chance is None:
            return f"{text} would decide."
        return (
            f"{text} decide with {chance(primary.labels_chance)} chance if the gain is as measured."
        )
    if primary.mde_decide is not None and primary.n is not None:
        return (
            f"{fmt.plural(primary.n, 'test row')} can tell a gain from the one asked for "
            f"from {fmt.points(primary.mde_decide)} points up."
        )
    return None


def cost_sentence(cost: Cost) -> str:
    """What fine-tuning does to the costs at the traffic given."""
    at = (
        f"At {fmt.compact(cost.requests_per_month)} requests a month"
        if cost.requests_per_month is not None
        else "At the traffic given"
    )
    saving, limits = cost.saving_per_month, cost.saving_interval
    if cost.status == "unknown" or saving is None:
        reason = (cost.reason or "").strip().rstrip(".")
        return f"The costs are unknown: {reason}." if reason else "The costs are unknown."
    if cost.status == "unclear":
        text = f"{at} it is not clear which is cheaper"
        if limits is None:
            return f"{text}."
        return f"{text} (95 % interval {_cheaper(limits[0])} to {_cheaper(limits[1])} a month)."
    if cost.status == "saves":
        text = f"{at} fine-tuning saves {fmt.money(saving)} a month"
    else:
        text = f"{at} fine-tuning costs {fmt.money(-saving)} a month more"
        limits = None if limits is None else (-limits[1], -limits[0])
    return f"{text} (95 % interval {fmt.money_interval(limits)})." if limits else f"{text}."


def _cheaper(saving: float) -> str:
    return f"{fmt.money(abs(saving))} {'dearer' if saving < 0 else 'cheaper'}"


def break_even_sentence(cost: Cost) -> str | None:
    """From which volume on fine-tuning is cheaper; None where nothing is known."""
    kind, at = cost.break_even_kind, cost.break_even_requests
    if kind == "always":
        return "It is cheaper at any volume."
    if kind == "never":
        return "There is no break-even: it is dearer at any volume."
    if at is None or not fmt.known(at):
        if kind == "unbounded":
            return "No break-even can be named: the costs per request cannot be told apart."
        return None
    side = "below" if kind == "below" else "above"
    text = f"Break-even: cheaper {side} {fmt.compact(at)} requests a month"
    if kind == "unbounded":
        return f"{text}, but without a bound: the costs per request cannot be told apart."
    low, high = cost.break_even_interval or (None, None)
    if low is not None:
        end = "upwards" if high is None else f"to {fmt.compact(high)}"
        text += f" (95 % interval {fmt.compact(low)} {end})"
    elif high is not None:
        text += f" (95 % interval up to {fmt.compact(high)})"
    return f"{text}."


def cost_extras(cost: Cost) -> list[str]:
    """Payback and the value of an answer, where they are known."""
    found = []
    if cost.payback_months is not None:
        found.append(f"What it costs once is earned back in {fmt.months(cost.payback_months)}.")
    if cost.value_per_correct_needed is not None:
        found.append(
            "It pays once one more correct answer is worth "
            f"{fmt.money(cost.value_per_correct_needed)}."
        )
    elif cost.status == "dearer" and cost.saving_per_month is not None:
        found.append("No worth of a correct answer makes up for that: it does not score higher.")
    return found


def cost_unknowns(cost: Cost) -> list[str]:
    """What to write into the study so that the costs become known."""
    if cost.status != "unknown":
        return []
    missing = []
    if cost.requests_per_month is None:
        missing.append("traffic.requests_per_month: how many requests a month you expect")
    if cost.usd_per_request_with is None or cost.usd_per_request_without is None:
        missing.append(
            "costs.prices: a dated price file, or usd_per_1k_requests with each candidate"
        )
    return missing


def failure_sentences(verdict: Verdict) -> list[str]:
    """Why requests failed: how many, of which candidate, on which rows, and what to do."""
    found = []
    for f in verdict.failures:
        failed = some_of(f.count, f.of, "request")
        text = f"{f.candidate} on {f.measured_on}: {failed} failed: {f.cause.rstrip('.')}."
        places = fmt.places(f.rows, f.count)
        text += f" Rows: {places}." if f.rows else ""
        found.append(f"{text} {f.advice}" if f.advice else text)
    return found


def forgetting_sentence(result: ForgettingResult) -> str:
    """Whether the model can still do what it could."""
    bar = "" if result.margin is None else f" of {fmt.points(result.margin)} points"
    lost = len(result.lost_rows)
    text = {
        "passed": f"Nothing is forgotten beyond the margin{bar}.",
        "failed": f"It forgot more than the margin{bar} allows.",
        "unproven": f"Whether it forgot more than the margin{bar} is not shown either way.",
        "unmeasured": "Forgetting was not measured.",
    }[result.status]
    if lost:
        text = f"It now fails {fmt.plural(lost, 'must-pass row')} that it could do before."
    if result.reason:
        reason = result.reason.strip().rstrip(".")
        text = f"{text.rstrip('.')}: {reason}."
    return text


def rows_asked(suite: ForgettingSuite) -> str:
    """How much of a suite was asked, and why no more."""
    if suite.of is None or suite.n >= suite.of:
        return fmt.plural(suite.n, "row")
    why = "" if suite.stopped is None else f", until {suite.stopped}"
    return f"{suite.n:,} of {fmt.plural(suite.of, 'row')}{why}"


def curve_sentence(verdict: Verdict) -> str | None:
    """Would more rows help; None where no curve was measured."""
    curve = verdict.learning_curve
    if curve.gain_from_doubling is None:
        if not curve.reason:
            return None
        return f"No forecast: {curve.reason.strip().rstrip('.')}."
    text = f"Twice the rows would bring about {fmt.gain(curve.gain_from_doubling)} points"
    if curve.gain_interval is not None:
        text += f" (90 % interval {fmt.gain_interval(curve.gain_interval)})"
    if curve.more_data is None:
        return f"{text}."
    if curve.more_data:
        return f"{text}: worth labelling."
    return f"{text}: not shown to be worth labelling."


def curve_points(verdict: Verdict) -> str:
    """The measured points: ``52.1 after 100 rows, 61.0 after 250``."""
    parts = [
        f"{fmt.points(p.score)} after {fmt.count(p.rows)}" for p in verdict.learning_curve.points
    ]
    return ", ".join([f"{parts[0]} rows", *parts[1:]]) if parts else ""


def some(names: Sequence[str], most: int, total: int | None = None) -> str:
    """The first ``most`` names, and how many more of ``total`` there are."""
    rest = max(len(names), total or 0) - min(most, len(names))
    return ", ".join(names[:most]) + (f" and {fmt.count(rest)} more" if rest > 0 else "")


def finding_details(finding: AuditFinding) -> str:
    """Where a finding is and what to do: ``leak_exact; rows t-1, t-2. Remove them.``"""
    rows = f"; rows {some(finding.rows, 12, finding.count)}" if finding.rows else ""
    return f"{finding.code}{rows}" + (f". {finding.fix}" if finding.fix else "")
