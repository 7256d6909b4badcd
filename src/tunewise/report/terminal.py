"""The verdict in a terminal: the answer first, then what it rests on."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tunewise.report import format as fmt
from tunewise.report import words
from tunewise.report.document import CandidateRow, Verdict
from tunewise.report.scale import Axis, linear_axis
from tunewise.report.text import visible_copy

_STYLES = {
    "FINE_TUNE": "green",
    "DO_NOT_FINE_TUNE": "cyan",
    "UNDECIDED": "yellow",
    "INVALID": "red",
}
# Below this width a table of eight columns would break its numbers.
_TABLE_WIDTH = 76
_MOST_WARNINGS = 8


class _Glyphs(NamedTuple):
    left: str
    line: str
    right: str
    point: str
    asked: str
    bullet: str


_UNICODE = _Glyphs("├", "─", "┤", "●", "┊", "•")
_ASCII = _Glyphs("|", "-", "|", "o", ":", "*")
_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "×": "x", "·": "-", "’": "'", "‘": "'"}
    | {"“": '"', "”": '"', "⟨": "<", "⟩": ">", "≥": ">=", "≤": "<=", "±": "+/-"}
)


def print_verdict(verdict: Verdict, console: Console, *, report: Path | None = None) -> None:
    """Print ``verdict``, at most as wide as ``console``.

    Colour, and characters beyond ASCII, are used only where the console can show them.

    Args:
        verdict: what to print.
        console: where to; its width, encoding and colours are respected.
        report: where the page lies; printed last.
    """
    _Printer(visible_copy(verdict), console).print(report)


def verdict_text(verdict: Verdict) -> str:
    """What ``print_verdict`` prints, without colours."""
    printed = io.StringIO()
    console = Console(file=printed, force_jupyter=False, force_terminal=False, color_system=None)
    print_verdict(verdict, console)
    return printed.getvalue().rstrip("\n")


class _Printer:
    def __init__(self, verdict: Verdict, console: Console) -> None:
        self.verdict = verdict
        self.console = console
        self.width = min(console.width, 100)
        self.encoding = None if console.encoding.startswith("utf") else console.encoding
        self.glyphs = _ASCII if self.encoding else _UNICODE

    def print(self, report: Path | None) -> None:
        v = self.verdict
        self._show(self._banner())
        if any(c.score is not None for c in v.candidates):
            self._section("Candidates", self._candidates())
        self._bullets("Failed requests", words.failure_sentences(v), style="yellow")
        self._bullets("What decides", self._decides())
        self._bullets("Slices and further metrics (exploratory)", words.breakdown_lines(v))
        self._bullets("Costs", self._costs())
        if v.ended_at == "G5" or v.forgetting.suites or v.forgetting.lost_rows:
            self._bullets("Forgetting", self._forgetting())
        self._bullets("Audit", self._audit())
        self._bullets("Warnings", _some(v.warnings), style="yellow")
        self._bullets("Next steps", v.next_steps, numbered=True)
        if report is not None:
            self.console.print()
            self._show(self._text(f"Report: {report}", style="bold"))

    def _text(self, text: str, style: str = "") -> Text:
        """Text as data, never as rich's markup, in characters that the console can show."""
        if self.encoding:
            text = text.translate(_PLAIN)
            text = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return Text(text, style=style, overflow="fold")

    def _show(self, content: RenderableType) -> None:
        self.console.print(content, width=self.width, highlight=False)

    def _section(self, title: str, content: RenderableType) -> None:
        self.console.print()
        self._show(self._text(title, "bold"))
        self._show(content)

    def _banner(self) -> RenderableType:
        v = self.verdict
        style = _STYLES[v.verdict]
        lines = [self._text(words.VERDICTS[v.verdict].upper(), f"bold {style}")]
        lines.append(self._text(words.headline(v)))
        if v.use:
            lines.append(
                Text.assemble(f"{words.use_label(v)}: ", self._text(v.use, "bold"), overflow="fold")
            )
        lines += [self._text(text, "yellow") for text in v.cautions]
        labels = [r.label for r in words.reasons(v)]
        if labels:
            lines.append(self._text(f"Because: {'; '.join(labels).lower()}", "dim"))
        return Panel(
            Group(*lines),
            title=self._text(f"{v.study} · {v.metric}"),
            title_align="left",
            subtitle=self._text(words.ended(v)),
            subtitle_align="left",
            border_style=style,
            padding=(0, 1),
        )

    def _candidates(self) -> RenderableType:
        rows = [c for c in self.verdict.candidates if c.score is not None]
        ends = [x for c in rows for x in (c.score, *(c.interval or ())) if x is not None]
        asked = self._asked()
        axis = linear_axis(
            [*ends, *([] if asked is None else [asked])], least_span=5, bounds=(0, 100)
        )
        wide = self.width >= _TABLE_WIDTH
        body = self._table(rows, axis) if wide else self._stack(rows, axis)
        notes = [f"Scores in points, 95 % intervals, {words.measured_on(rows)}."]
        if asked is not None:
            notes.append(
                f"{self.glyphs.asked} {fmt.points(asked)}: "
                f"{self.verdict.primary.without} plus the gain asked for."
            )
        return Group(body, *(self._text(n, "dim") for n in notes))

    def _asked(self) -> float | None:
        """The score that would be worth having: the best baseline's plus the gain asked for."""
        p = self.verdict.primary
        base = next((c.score for c in self.verdict.candidates if c.name == p.without), None)
        if base is None or p.minimal_gain is None or base + p.minimal_gain > 100:
            return None
        return base + p.minimal_gain

    def _table(self, rows: list[CandidateRow], axis: Axis) -> Table:
        ends = self._ends(axis)
        figures = [_figures(c) for c in rows]
        heads = ("n", "fail", "tokens", "$/1k", "latency")
        spent = sum(max(len(h), *(len(f[i]) for f in figures)) for i, h in enumerate(heads))
        names = min(20, max(9, *(len(c.name) for c in rows)))
        # Seven gaps of two and the score's five; the bar takes what is left.
        room = max(10, self.width - 14 - 5 - spent - names)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("candidate", width=names, overflow="fold")
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column(_ruler(ends, room), width=room, no_wrap=True)
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for c, numbers in zip(rows, figures, strict=True):
            table.add_row(
                self._text(c.name, self._style(c)),
                self._text(fmt.points(c.score)),
                self._text(self._bar(c, axis, room), self._style(c)),
                *(self._text(x) for x in numbers),
            )
        return table

    def _stack(self, rows: list[CandidateRow], axis: Axis) -> RenderableType:
        """For narrow terminals: three lines a candidate, the bar over the whole width."""
        room = self.width - 2
        lines: list[RenderableType] = [self._text("  " + _ruler(self._ends(axis), room), "dim")]
        for c in rows:
            n, fail, tokens, usd, ms = _figures(c)
            head = f"{c.name}  {fmt.points(c.score)}"
            if c.interval:
                head += f"  ({fmt.interval(c.interval)})"
            parts = [f"n {n}", f"{tokens} tokens", f"${usd}/1k", ms]
            parts += [f"{fail} failed"] if c.failures else []
            lines.append(self._text(head, self._style(c)))
            lines.append(self._text("  " + self._bar(c, axis, room), self._style(c)))
            shown = [p for p in parts if fmt.UNKNOWN not in p]
            lines.append(Padding(self._text(", ".join(shown), "dim"), (0, 0, 0, 2)))
        return Group(*lines)

    def _ends(self, axis: Axis) -> tuple[str, str]:
        return f"{axis.low:g}", f"{axis.high:g}"

    def _style(self, c: CandidateRow) -> str:
        return "bold" if c.name == self.verdict.use else ""

    def _bar(self, c: CandidateRow, axis: Axis, room: int) -> str:
        """One line of ``room`` characters: the score as a point on its interval."""
        cells = [" "] * room

        def place(value: float) -> int:
            return round(axis.place(value) * (room - 1))

        if c.interval is not None:
            low, high = (place(x) for x in c.interval)
            cells[low : high + 1] = [self.glyphs.line] * (high - low + 1)
            if high > low:
                cells[low], cells[high] = self.glyphs.left, self.glyphs.right
        asked = self._asked()
        if asked is not None:
            cells[place(asked)] = self.glyphs.asked
        if c.score is not None:
            cells[place(c.score)] = self.glyphs.point
        return "".join(cells)

    def _bullets(
        self, title: str, lines: Iterable[str], *, numbered: bool = False, style: str = ""
    ) -> None:
        lines = list(lines)
        if not lines:
            return
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for i, line in enumerate(lines, start=1):
            mark = f"{i}." if numbered else self.glyphs.bullet
            table.add_row(self._text(mark, style), self._text(line))
        self._section(title, table)

    def _decides(self) -> list[str]:
        p = self.verdict.primary
        lines = words.primary_sentences(p)
        if not lines:
            return []
        basis = (
            [f"p = {fmt.p_value(p.p_value)}".replace("= <", "< ")] if p.p_value is not None else []
        )
        method = words.method(p)
        basis += [method] if method else []
        basis += [fmt.plural(p.n, "row")] if p.n is not None else []
        basis += [fmt.plural(p.clusters, "cluster")] if p.clusters is not None else []
        basis += [fmt.plural(p.seeds, "training seed")] if p.seeds else []
        look = words.look_sentence(self.verdict.test)
        basis += [look] if look else []
        planning = words.planning_sentence(p)
        return [
            *lines,
            *([f"{', '.join(basis)}."] if basis else []),
            *([planning] if planning else []),
            *p.notes,
        ]

    def _costs(self) -> list[str]:
        v = self.verdict
        if v.verdict == "INVALID" and v.cost.status == "unknown":
            return []
        even = words.break_even_sentence(v.cost)
        lines = [words.cost_sentence(v.cost), *([even] if even else []), *words.cost_extras(v.cost)]
        lines += [f"To know it, give {x}." for x in words.cost_unknowns(v.cost)]
        if v.cost.spent_usd is not None:
            lines.append(f"This study itself spent {fmt.money(v.cost.spent_usd)}.")
        return lines

    def _forgetting(self) -> list[str]:
        lines = [words.forgetting_sentence(self.verdict.forgetting)]
        for s in self.verdict.forgetting.suites:
            text = f"{s.name}: {fmt.points(s.base)} before, {fmt.points(s.tuned)} after"
            if s.lower is not None:
                text += f" ({fmt.gain(s.change)}, at worst {fmt.gain(s.lower)})"
            lines.append(f"{text}, {words.rows_asked(s)}: {s.status}")
        return lines

    def _audit(self) -> list[str]:
        found = [f for f in self.verdict.audit.findings if f.severity == "error"]
        lines = []
        for f in found:
            rows = f" Rows {words.some(f.rows, 5, f.count)}." if f.rows else ""
            lines.append(f"{f.message}{rows}" + (f" {f.fix}" if f.fix else ""))
        return lines


def _figures(c: CandidateRow) -> tuple[str, str, str, str, str]:
    return (
        fmt.count(c.n),
        fmt.count(c.failures),
        fmt.tokens(c.tokens_per_request),
        fmt.money(c.usd_per_1k_requests).removeprefix("$"),
        fmt.latency(c.latency_ms),
    )


def _ruler(ends: tuple[str, str], room: int) -> str:
    """The axis' two ends, set apart to ``room`` characters."""
    return ends[0] + ends[1].rjust(room - len(ends[0]))


def _some(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_WARNINGS:
        return lines
    rest = len(lines) - _MOST_WARNINGS + 1
    return [*lines[: _MOST_WARNINGS - 1], f"and {rest} more, all in the report"]
