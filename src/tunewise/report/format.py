"""How numbers look, in one place, so that the terminal and the page never disagree.

Every function takes ``None`` (and ``nan`` or ``inf``) as "unknown" and shows it as a dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunewise.words import plural as plural

UNKNOWN = "–"
MINUS = "−"
_COMPACT = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


def points(value: float | None, beside: Sequence[float | None] = ()) -> str:
    """A score in points: ``67.3``.

    One decimal, or up to three where fewer would hide on which side of 0, 100 or one of the
    numbers ``beside`` it lies: a limit of 1.96 next to a bar of 2.0 must not read as "2.0".
    """
    return _minus(_points(value, beside))


def gain(value: float | None, beside: Sequence[float | None] = ()) -> str:
    """A difference in points, always with its sign: ``+4.6``."""
    text = _points(value, beside)
    unsigned = text == UNKNOWN or text.startswith("-") or float(text) == 0
    return _minus(text) if unsigned else f"+{text}"


def _points(value: float | None, beside: Sequence[float | None]) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    marks = [0.0, 100.0, *(b for b in beside if b is not None and math.isfinite(b))]
    text = ""
    for decimals in (1, 2, 3):
        text = f"{value:.{decimals}f}"
        if all(_side(float(text), round(m, decimals)) == _side(value, m) for m in marks):
            break
    return "0.0" if float(text) == 0 else text


def _side(value: float, mark: float) -> int:
    return (value > mark) - (value < mark)


def interval(limits: Sequence[float | None] | None, beside: Sequence[float | None] = ()) -> str:
    """Two limits in points: ``61.2 to 73.0``."""
    if limits is None or not all(known(x) for x in limits):
        return UNKNOWN
    return " to ".join(points(x, beside) for x in limits)


def gain_interval(
    limits: Sequence[float | None] | None, beside: Sequence[float | None] = ()
) -> str:
    """Two limits of a difference in points: ``+2.1 to +7.1``."""
    if limits is None or not all(known(x) for x in limits):
        return UNKNOWN
    return " to ".join(gain(x, beside) for x in limits)


def money(value: float | None) -> str:
    """US dollars: ``$0.0012``, ``$4.20``, ``$12,340``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size == 0:
        return "$0"
    if size < 1:
        decimals = min(8, 1 - math.floor(math.log10(size)))
        digits = f"{size:.{max(2, decimals)}f}"
    else:
        digits = f"{size:,.2f}" if size < 99.995 else f"{size:,.0f}"
    if float(digits.replace(",", "")) == 0:
        return "under $0.00000001"
    return f"{MINUS if value < 0 else ''}${digits}"


def money_interval(limits: Sequence[float | None] | None) -> str:
    """Two limits in US dollars: ``$380 to $440``."""
    if limits is None or not all(known(x) for x in limits):
        return UNKNOWN
    return " to ".join(money(x) for x in limits)


def count(value: float | None) -> str:
    """A number of things: ``12,340``."""
    return UNKNOWN if value is None or not math.isfinite(value) else _minus(f"{value:,.0f}")


def compact(value: float | None) -> str:
    """A number where three digits are enough: ``940``, ``12.3k``, ``4.1M``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for size, letter in _COMPACT:
        # 999.5 and above would round to "1000".
        if abs(value) >= size * 0.9995:
            return _minus(f"{float(f'{value / size:.3g}'):g}{letter}")
    return _minus(f"{float(f'{value:.3g}'):g}")


def tokens(value: float | None) -> str:
    """Tokens, a mean: ``4.2``, ``1,904``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.1f}" if 0 < abs(value) < 9.95 else f"{value:,.0f}"


def latency(milliseconds: float | None) -> str:
    """A latency: ``0.4 ms``, ``812 ms``, ``1.4 s``."""
    if milliseconds is None or not math.isfinite(milliseconds):
        return UNKNOWN
    if milliseconds >= 999.5:
        return duration(milliseconds / 1000)
    if milliseconds >= 9.95 or milliseconds == 0:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds:.1f} ms" if milliseconds >= 0.05 else "<0.1 ms"


def duration(seconds: float | None) -> str:
    """A time: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def memory(megabytes: float | None) -> str:
    """Memory: ``812 MB``, ``2.4 GB``."""
    if megabytes is None or not math.isfinite(megabytes):
        return UNKNOWN
    return f"{megabytes:,.0f} MB" if megabytes < 999.5 else f"{megabytes / 1000:,.1f} GB"


def percent(share: float | None) -> str:
    """A share in 0..1: ``4.2 %``."""
    return UNKNOWN if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def p_value(value: float | None) -> str:
    """A p-value: ``0.049``, ``<0.001``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def plain(value: float | None) -> str:
    """A setting such as a learning rate or a number of epochs: ``0.0002``, ``3``."""
    return UNKNOWN if value is None or not math.isfinite(value) else _minus(f"{value:.6g}")


def months(value: float | None) -> str:
    """A time in months: ``1.2 months``, ``1 month``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} month" if text == "1" else f"{text} months"


def places(rows: Sequence[str], count: int, most: int = 6) -> str:
    """``rows.jsonl:3, 17, 40 and 57 more``: a file's name stands once before its lines.

    Args:
        rows: ids of rows, or ``file:line``; of all ``count`` that there are, the first ones.
    """
    shown: list[str] = []
    last = None
    for row in rows[:most]:
        file, _, line = row.rpartition(":")
        again = file and line.isdigit() and file == last
        shown.append(line if again else row)
        last = file if line.isdigit() else None
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return ", ".join(shown) + more
