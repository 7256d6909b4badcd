"""JSON as the standard has it, where Python's reader is lenient (RFC 8259).

``NaN`` and ``Infinity`` are no JSON: other readers refuse them, and as an answer they would be
trained as text. Of a key that stands twice in one object Python keeps the last value in silence.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from tunewise.data.findings import RowError


def loads(text: str) -> Any:
    """One JSON value.

    Raises:
        RowError: it holds NaN, an infinite number, or a key twice with different values.
        ValueError, RecursionError: it is not JSON, or nested too deeply.
    """
    return DECODER.decode(text)


def _constant(name: str) -> NoReturn:
    raise RowError(
        "not_a_number",
        f"{name} is not a JSON value",
        "Write null or text in its place; pandas writes NaN where a cell is empty.",
    )


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _constant(text[:40])
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        for key, value in pairs:
            if made[key] != value:
                raise RowError(
                    "duplicate_key",
                    f"the key {key[:40]!r} stands twice in one object, with different values",
                    "Keep one of them: which is meant, the file does not say.",
                )
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
"""For readers that take a text apart piece by piece; errors as for :func:`loads`."""
