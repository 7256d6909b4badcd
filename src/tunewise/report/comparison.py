"""Several studies' verdicts side by side: a document, and its renderings as table and page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunewise.report import format as fmt
from tunewise.report.document import CandidateRow, Interval, Part, Verdict
from tunewise.report.html import content_policy, environment, style_sheet
from tunewise.report.text import visible_copy

SCHEMA = "tunewise.comparison/1"
_STYLES = {
    "FINE_TUNE": "bold green",
    "DO_NOT_FINE_TUNE": "bold cyan",
    "UNDECIDED": "bold yellow",
    "INVALID": "bold red",
}


@dataclass(frozen=True)
class Compared:
    """One study to be compared.

    Attributes:
        label: by which the user called it, such as the file's name.
        verdict: as it stands on disk.
        settings: of the study file, by dotted key; None where only the verdict is at hand.
    """

    label: str
    verdict: Verdict
    settings: Mapping[str, Any] | None = None


class Score(Part):
    """One candidate's score in one study."""

    score: float | None = None
    interval: Interval | None = Field(None, description="95 % interval of the score")
    measured_on: Literal["test", "dev"] | None = None


class ComparedStudy(Part):
    """One study's verdict in a line. Scores and gains are in points (0..100)."""

    label: str = Field(description="as the study was named, told apart where two are alike")
    study: str = Field(description="its name")
    metric: str
    verdict: Literal["FINE_TUNE", "DO_NOT_FINE_TUNE", "UNDECIDED", "INVALID"]
    use: str | None
    headline: str
    score: float | None = Field(None, description="of what to use")
    interval: Interval | None = Field(None, description="95 % interval of that score")
    gain: float | None = Field(None, description="of fine-tuning over the best without")
    gain_interval: Interval | None = Field(None, description="of the gain, at the study's level")
    rows: int | None = Field(None, description="test rows")
    test_sha256: str | None = None
    usd_per_1k_requests: float | None = Field(None, description="of what to use")
    latency_ms: float | None = Field(None, description="median, of what to use")
    seconds: float = Field(description="that its stages took when they were computed")
    scores: dict[str, Score] = Field(description="of each candidate")


class Difference(Part):
    """A key of the study files whose value is not the same in all."""

    key: str
    values: list[Any] = Field(description="in the order of the studies; null: not known")


class Comparison(Part):
    """What ``tunewise compare --json`` prints."""

    schema_: str = Field(SCHEMA, alias="schema")
    studies: list[ComparedStudy]
    candidates: list[str] = Field(description="of all studies, best first")
    differences: list[Difference]
    notes: list[str] = Field(description="what limits the comparison")


def compare(found: Sequence[Compared]) -> Comparison:
    """Put studies side by side, in the order given."""
    labels = _labels([one.label for one in found])
    studies = [_line(one, label) for one, label in zip(found, labels, strict=True)]
    best: dict[str, float] = {}
    for study in studies:
        for name, score in study.scores.items():
            value = -1.0 if score.score is None else score.score
            best[name] = max(value, best.get(name, -1.0))
    return Comparison(
        schema=SCHEMA,
        studies=studies,
        candidates=sorted(best, key=lambda name: (-best[name], name)),
        differences=list(_differences(found)),
        notes=list(_notes(found)),
    )


def _labels(given: Sequence[str]) -> list[str]:
    """Labels that tell studies apart."""
    return [
        label if given.count(label) == 1 else f"{label} ({given[: at + 1].count(label)})"
        for at, label in enumerate(given)
    ]


def _line(one: Compared, label: str) -> ComparedStudy:
    v = one.verdict
    used = next((c for c in v.candidates if c.name == v.use), None) or CandidateRow(
        name="", kind=""
    )
    return ComparedStudy(
        label=label,
        study=v.study,
        metric=v.metric,
        verdict=v.verdict,
        use=v.use,
        headline=v.headline,
        score=used.score,
        interval=used.interval,
        gain=v.primary.gain,
        gain_interval=v.primary.interval,
        rows=v.test.n,
        test_sha256=v.test.sha256,
        usd_per_1k_requests=used.usd_per_1k_requests,
        latency_ms=used.latency_ms,
        seconds=sum(s.seconds for s in v.stages),
        scores={
            c.name: Score(score=c.score, interval=c.interval, measured_on=c.measured_on)
            for c in v.candidates
        },
    )


def _differences(found: Sequence[Compared]) -> Iterator[Difference]:
    known = [one.settings for one in found if one.settings is not None]
    if len(known) < 2:
        return
    for key in dict.fromkeys(key for settings in known for key in settings):
        # How a study is called and described is in its line.
        if key in ("name", "use_case"):
            continue
        values = [settings.get(key) for settings in known]
        if any(value != values[0] for value in values):
            yield Difference(
                key=key,
                values=[None if one.settings is None else one.settings.get(key) for one in found],
            )


def _notes(found: Sequence[Compared]) -> Iterator[str]:
    verdicts = [one.verdict for one in found]
    if len({v.metric for v in verdicts}) > 1:
        yield "The studies have different metrics: their scores do not compare."
    tests = {v.test.sha256 for v in verdicts if v.test.sha256}
    if len(tests) > 1:
        yield (
            "The studies were tested on different rows: compare what each says about its own "
            "candidates, not scores across studies."
        )
    elif tests:
        yield "The same test rows, where the test was opened: scores compare across studies."
    if any(v.test.sha256 is None for v in verdicts):
        yield "A study that ended before its test has scores on dev, marked “dev”."
    without = sum(one.settings is None for one in found)
    if without:
        some = "A verdict file alone does" if without == 1 else "Verdict files alone do"
        yield f"{some} not say what its study file said: name the study file to see what differs."


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Tables as wide as the console."""
    table = _table("Verdicts", ("study", "verdict", "use", "score", "gain", "$/1k", "rows", "time"))
    for s in comparison.studies:
        table.add_row(
            Text(s.label),
            Text(s.verdict.replace("_", " "), style=_STYLES[s.verdict]),
            Text(s.use or fmt.UNKNOWN),
            *(Text(x) for x in _cells(s)),
        )
    parts = [table]
    if comparison.candidates:
        scores = _table("Scores", ("candidate", *(s.label for s in comparison.studies)))
        for name in comparison.candidates:
            scores.add_row(Text(name), *(Text(score_cell(s, name)) for s in comparison.studies))
        parts.append(scores)
    if comparison.differences:
        told = _table("What differs", ("key", *(s.label for s in comparison.studies)))
        for one in comparison.differences:
            told.add_row(Text(one.key), *(Text(setting(value)) for value in one.values))
        parts.append(told)
    for part in parts:
        console.print(part, highlight=False)
        console.print()
    for note in comparison.notes:
        console.print(Text(note, style="dim"), highlight=False)


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for head in heads:
        table.add_column(Text(head), overflow="fold", header_style="dim")
    return table


def _cells(s: ComparedStudy) -> tuple[str, ...]:
    score = fmt.points(s.score) + (f" ({fmt.interval(s.interval)})" if s.interval else "")
    gained = fmt.gain(s.gain)
    if s.gain_interval:
        gained += f" ({fmt.gain_interval(s.gain_interval)})"
    return (
        score, gained, fmt.money(s.usd_per_1k_requests), fmt.count(s.rows), fmt.duration(s.seconds)
    )  # fmt: skip


def score_cell(study: ComparedStudy, name: str) -> str:
    """A candidate's score in a study, in words."""
    found = study.scores.get(name)
    if found is None or found.score is None:
        return fmt.UNKNOWN
    text = fmt.points(found.score)
    if found.interval:
        text += f" ({fmt.interval(found.interval)})"
    return text + (" dev" if found.measured_on == "dev" else "")


def setting(value: Any) -> str:
    """A value of a study file in one line."""
    if value is None:
        return fmt.UNKNOWN
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:160]}…"


def render_comparison(comparison: Comparison) -> str:
    """One self-contained page; what comes from studies is escaped."""
    shown = visible_copy(comparison)
    style = style_sheet()
    return (
        environment()
        .get_template("comparison.html")
        .render(
            c=shown,
            cells=[_cells(s) for s in shown.studies],
            scores=[(n, [score_cell(s, n) for s in shown.studies]) for n in shown.candidates],
            differences=[(d.key, [setting(x) for x in d.values]) for d in shown.differences],
            style=Markup(style),
            policy=content_policy(style),
        )
    )
