"""JSON inside the text of an answer: alone, in a code fence, or amid prose."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"```[A-Za-z0-9_+-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
_START = re.compile(r"[\[{]")
_DEEPEST = 60
_STARTS_TRIED = 64


@dataclass(frozen=True, slots=True)
class Found:
    """A JSON value found in a text.

    Attributes:
        value: as parsed.
        alone: the text is this value and nothing else, but for white space.
    """

    value: Any
    alone: bool


def read_json(text: str) -> Found | None:
    """The JSON value that the whole text is, or None. NaN and Infinity are not JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return None if _too_deep(value) else Found(value, alone=True)


def find_json(text: str) -> Found | None:
    """The first JSON object or list in ``text``: all of it, in a code fence, or amid prose."""
    whole = read_json(text)
    if whole is not None:
        return whole
    for fence in _FENCE.finditer(text):
        inside = read_json(fence[1])
        if inside is not None:
            return Found(inside.value, alone=False)
    values = json_values(text)
    return Found(values[0], alone=False) if values else None


def json_values(text: str) -> list[Any]:
    """All JSON objects and lists amid a text, in order, none inside another."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    values: list[Any] = []
    place = failures = 0
    # Each start may be read to the end of the text: a limit keeps "[[[[…" from taking for ever.
    while failures < _STARTS_TRIED:
        match = _START.search(text, place)
        if match is None:
            break
        try:
            value, place = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            failures += 1
            place = match.start() + 1
            continue
        if not _too_deep(value):
            values.append(value)
    return values


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
