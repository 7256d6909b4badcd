"""The geometry of the page's drawings. The template draws them; nothing here knows of HTML.

Places are percentages of a drawing's width (from the left) and height (from the top), so that
one drawing fits a phone and a sheet of paper while its lettering keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunewise.report import format as fmt
from tunewise.report.document import Cost, Interval, LearningCurve, TrainingRun, Verdict
from tunewise.report.scale import Axis, linear_axis, log_axis


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval with its point; parts that are not known are None."""

    low: float | None
    high: float | None
    point: float | None


@dataclass(frozen=True, slots=True)
class Bars:
    """Intervals that share one axis.

    Attributes:
        ticks: along the axis.
        bars: one a row, in the rows' order.
        zone: the stretch between two marks that the reader should compare with, or None.
        marks: single places drawn as lines through all rows.
    """

    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]
    zone: tuple[float, float] | None = None
    marks: tuple[Tick, ...] = ()


def _bar(axis: Axis, point: float | None, limits: Sequence[float | None] | None) -> Bar:
    low, high = limits or (None, None)
    return Bar(*(None if x is None else 100 * axis.place(x) for x in (low, high, point)))


def _ticks(axis: Axis, label: Callable[[float], str]) -> tuple[Tick, ...]:
    return tuple(Tick(100 * axis.place(t), label(t)) for t in axis.ticks)


def score_bars(verdict: Verdict) -> Bars | None:
    """All candidates' scores; the zone runs from the best baseline to the gain asked for."""
    rows = verdict.candidates
    ends = [x for c in rows for x in (c.score, *(c.interval or ())) if x is not None]
    if not ends:
        return None
    primary = verdict.primary
    base = next((c.score for c in rows if c.name == primary.without), None)
    asked = None
    if base is not None and primary.minimal_gain is not None:
        asked = min(100.0, base + primary.minimal_gain)
        ends.append(asked)
    axis = linear_axis(ends, least_span=5, bounds=(0, 100))
    zone = None
    if base is not None and asked is not None:
        zone = (100 * axis.place(base), 100 * axis.place(asked))
    bars = tuple(_bar(axis, c.score, c.interval) for c in rows)
    return Bars(_ticks(axis, lambda t: f"{t:g}"), bars, zone)


def gain_bar(verdict: Verdict) -> Bars | None:
    """The gain that decides, with the zone of no difference worth having around zero."""
    p = verdict.primary
    if p.gain is None or p.interval is None:
        return None
    bar = p.minimal_gain or 0.0
    axis = linear_axis([p.gain, *p.interval, 0.0, bar * 1.5, -bar * 1.5], least_span=2)
    zone = (100 * axis.place(-bar), 100 * axis.place(bar)) if bar else None
    marks = (Tick(100 * axis.place(bar), f"asked for {fmt.gain(bar)}"),) if bar else ()
    return Bars(
        _ticks(axis, lambda t: fmt.gain(t).removesuffix(".0")),
        (_bar(axis, p.gain, p.interval),),
        zone,
        (Tick(100 * axis.place(0.0), "no difference"), *marks),
    )


def forgetting_bars(verdict: Verdict) -> Bars | None:
    """Each suite's change; the zone is where it may lie."""
    result = verdict.forgetting
    margin = result.margin or 0.0
    ends = [x for s in result.suites for x in (s.change, s.lower, s.upper) if x is not None]
    if not ends:
        return None
    axis = linear_axis([*ends, 0.0, -margin], least_span=2, most_ticks=4)
    return Bars(
        _ticks(axis, lambda t: fmt.gain(t).removesuffix(".0")),
        tuple(_bar(axis, s.change, (s.lower, s.upper)) for s in result.suites),
        (100 * axis.place(-margin), 100.0) if margin else None,
        (Tick(100 * axis.place(0.0), "no change"),),
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its name written at its end.

    Attributes:
        path: points ``x,y x,y …`` on a square of 100 by 100.
        kind: ``main``, ``other`` or ``fit``; the style sheet knows them.
        label: its name; may be empty.
        label_at: where the name stands, from the top.
    """

    path: str
    kind: str
    label: str = ""
    label_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over two axes. ``marks`` are upright lines, each with a word at its top."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...] = ()
    marks: tuple[Tick, ...] = ()
    y_log: bool = False


def _up(axis: Axis, value: float) -> float:
    return 100 - 100 * axis.place(value)


def _y_ticks(axis: Axis, label: Callable[[float], str]) -> tuple[Tick, ...]:
    return tuple(Tick(_up(axis, t), label(t)) for t in axis.ticks)


def _path(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{100 * x.place(a):.2f},{_up(y, b):.2f}" for a, b in points)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """``heights`` moved so that labels standing there do not cover one another."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for below, above in zip(order[1:], order, strict=False):
        moved[below] = max(moved[below], moved[above] + least)
    over = max((moved[i] for i in order), default=0) - 100
    return [h - over for h in moved] if over > 0 else moved


def cost_plot(cost: Cost, tuned: str, other: str) -> Plot | None:
    """Money a month against requests a month, both champions; break-even and traffic marked."""
    points = [
        p
        for p in sorted(cost.curve, key=lambda p: p.requests_per_month)
        if p.requests_per_month > 0 and all(map(math.isfinite, (p.with_usd, p.without_usd)))
    ]
    if len(points) < 2:
        return None
    x = log_axis(p.requests_per_month for p in points)
    money = [m for p in points for m in (p.with_usd, p.without_usd)]
    # Costs that span decades would press everything but the last one onto the axis.
    y_log = min(money) > 0 and max(money) > 30 * min(money)
    y = log_axis(money, most_ticks=5) if y_log else linear_axis([0.0, *money], most_ticks=5)
    series = [
        (tuned, "main", [(p.requests_per_month, p.with_usd) for p in points]),
        (other, "other", [(p.requests_per_month, p.without_usd) for p in points]),
    ]
    ends = _apart([_up(y, s[2][-1][1]) for s in series], least=9)
    lines = tuple(
        Line(_path(x, y, path), kind, name, at)
        for (name, kind, path), at in zip(series, ends, strict=True)
    )
    marks = []
    for value, word in (
        (cost.break_even_requests, "break-even"),
        (cost.requests_per_month, "your traffic"),
    ):
        if value is not None and x.low <= value <= x.high:
            marks.append(Tick(100 * x.place(value), f"{word} {fmt.compact(value)}"))
    return Plot(_ticks(x, fmt.compact), _y_ticks(y, _axis_money), lines, (), tuple(marks), y_log)


def _axis_money(value: float) -> str:
    if value and abs(value) < 1:
        return fmt.money(value)
    return f"{fmt.MINUS if value < 0 else ''}${fmt.compact(abs(value))}"


def curve_plot(curve: LearningCurve) -> Plot | None:
    """Score on dev against rows learnt from, with the fitted line where there is one."""
    if len(curve.points) < 2:
        return None
    both = [*curve.points, *curve.fitted]
    x = log_axis((p.rows for p in both), most_ticks=4)
    ends = [v for p in both for v in (p.score, *(p.interval or ()))]
    y = linear_axis(ends, most_ticks=5, least_span=5, bounds=(0, 100))
    measured = [(float(p.rows), p.score) for p in curve.points]
    lines = [Line(_path(x, y, measured), "fit" if curve.fitted else "main")]
    if curve.fitted:
        fitted = [(float(p.rows), p.score) for p in curve.fitted]
        lines = [Line(_path(x, y, fitted), "fit")]
    dots = [_dot(x, y, float(p.rows), p.score, p.interval) for p in curve.points]
    # The sizes that were measured say more than powers of ten.
    rows = [p.rows for p in curve.points]
    ticks = tuple(Tick(100 * x.place(n), fmt.compact(n)) for n in rows) if len(rows) <= 6 else None
    return Plot(
        ticks or _ticks(x, fmt.compact), _y_ticks(y, lambda t: f"{t:g}"), tuple(lines), tuple(dots)
    )


def _dot(x: Axis, y: Axis, at: float, value: float, limits: Interval | None) -> Dot:
    low, high = (None, None) if limits is None else (_up(y, v) for v in limits)
    return Dot(100 * x.place(at), _up(y, value), low, high)


def loss_plot(run: TrainingRun) -> Plot | None:
    """Training and dev loss of one run against its steps."""
    series = [
        (name, kind, [(float(s), v) for s, v in pairs if math.isfinite(v)])
        for name, kind, pairs in (("train", "other", run.train_loss), ("dev", "main", run.dev_loss))
    ]
    series = [s for s in series if len(s[2]) >= 2]
    if not series:
        return None
    # The ends of the line are the first and last step, not round numbers beyond them.
    steps = [a for _, _, path in series for a, _ in path]
    x = Axis(min(steps), max(steps), (min(steps), max(steps)))
    if x.low == x.high:
        return None
    y = linear_axis([0.0, *(v for _, _, path in series for _, v in path)], most_ticks=4)
    ends = _apart([_up(y, path[-1][1]) for _, _, path in series], least=18)
    return Plot(
        _ticks(x, fmt.count),
        _y_ticks(y, lambda t: f"{t:g}"),
        tuple(
            Line(_path(x, y, path), kind, name, at)
            for (name, kind, path), at in zip(series, ends, strict=True)
        ),
    )
