"""A value as AutoTrain's types take it: `"2e-5"` is a number, `None` and `none` are null."""

from __future__ import annotations

import math
from typing import Any

from tunewise.dialects.autotrain.parameters import Parameter

_TRUE = frozenset({"true", "yes", "on", "1", "y"})
_FALSE = frozenset({"false", "no", "off", "0", "n"})
_NULL = frozenset({"", "null", "none", "no", "~"})
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "text": "text",
    "texts": "text, or a list of texts",
}


def typed(parameter: Parameter, value: Any) -> Any:
    """The value in the parameter's type.

    Raises:
        ValueError: it is of another type, or not among the choices; says what is taken.
    """
    if value is None or (parameter.null and isinstance(value, str) and value.lower() in _NULL):
        if parameter.null or parameter.kind == "texts":
            return None
        raise ValueError(f"should be {_expected(parameter)}, but nothing stands there")
    made = _made(parameter.kind, value)
    if made is None:
        raise ValueError(f"should be {_expected(parameter)}, not {_shown(value)}")
    if parameter.choices and made not in parameter.choices:
        raise ValueError(f"should be {_expected(parameter)}, not {_shown(value)}")
    return made


def _made(kind: str, value: Any) -> Any:
    """The value in a type; None where it does not fit."""
    if kind == "bool":
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    if isinstance(value, bool):
        return None
    if kind in ("int", "float"):
        return _number(kind, value)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):  # a column may be called 0
        return str(value)
    if kind == "texts" and isinstance(value, list):
        return None if any(isinstance(v, list | dict | bool) for v in value) else [*map(str, value)]
    return None


def _number(kind: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value.strip().replace("_", ""))
        except ValueError:
            return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if kind == "int":
        return int(value) if value == int(value) else None
    return float(value)


def _expected(parameter: Parameter) -> str:
    choices = parameter.choices
    if not choices:
        return _WORDS[parameter.kind] + (" or null" if parameter.null else "")
    return ", ".join(f"`{choice}`" for choice in choices) + (" or null" if parameter.null else "")


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool):
        text = repr(value)
        return text if len(text) <= 60 else text[:59] + "…"
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
