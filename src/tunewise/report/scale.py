"""Axes: from numbers to places on a line, and the round numbers written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A stretch of numbers drawn as a line.

    Attributes:
        low, high: the numbers at its two ends.
        ticks: round numbers to write beside it, ascending, all within the ends.
        log: distances are ratios.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where ``value`` lies between the ends, 0..1; beyond them it is held at the end."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return min(1.0, max(0.0, (value - low) / (high - low)))


def linear_axis(
    values: Iterable[float],
    *,
    most_ticks: int = 6,
    least_span: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """An axis that holds all ``values``, with ends and ticks at round numbers.

    Args:
        values: what must fit; numbers that are not finite are left out.
        most_ticks: at most so many ticks, both ends included.
        least_span: a shorter axis would make small differences look large.
        bounds: the axis never goes beyond these (scores end at 0 and 100).
    """
    numbers = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(numbers), max(numbers)
    span = max(high - low, least_span, abs(high) * 1e-6, 1e-9)
    middle = (low + high) / 2
    low, high = middle - span / 2, middle + span / 2
    if low < bounds[0]:
        low, high = bounds[0], max(high, bounds[0] + span)
    if high > bounds[1]:
        low, high = max(bounds[0], bounds[1] - span), bounds[1]
    for step in _round_steps(span / most_ticks):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most_ticks:
            # Multiplying, not adding up, keeps 0.1 + 0.2 from becoming a tick.
            ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
            return Axis(ticks[0], ticks[-1], ticks)
    raise AssertionError("steps grow without end")


def _round_steps(least: float) -> Iterable[float]:
    power = math.floor(math.log10(least))
    while True:
        for factor in (1.0, 2.0, 2.5, 5.0):
            step = factor * 10.0**power
            if step >= least:
                yield step
        power += 1


def log_axis(values: Iterable[float], *, most_ticks: int = 5) -> Axis:
    """A logarithmic axis over the positive ``values``, with ticks at powers of ten.

    Ticks at 1, 2 and 5 fill in where there would be fewer than two.
    """
    numbers = [v for v in values if math.isfinite(v) and v > 0] or [1.0, 10.0]
    low, high = min(numbers), max(numbers)
    if high / low < 1.5:
        low, high = low / 2, high * 2
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / most_ticks))
    ticks = [10.0**p for p in range(first, last + 1, stride)]
    if len(ticks) < 2:
        powers = range(first - 1, last + 2)
        ticks = [f * 10.0**p for p in powers for f in (1, 2, 5)]
        ticks = [t for t in ticks if low * 0.999 <= t <= high * 1.001] or [low, high]
    return Axis(low, high, tuple(ticks), log=True)
