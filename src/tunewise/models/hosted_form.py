"""The form of an answer as servers take it: a JSON Schema of an object, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunewise.data.chat import AnswerForm

_ANSWER = "answer"
WRAPPING = 16
"""Tokens that an answer takes more where it stands in an object."""


def wrapped(form: AnswerForm) -> Mapping[str, Any]:
    """A form as the servers take it: the value in an object, unless it is one itself."""
    if not form.bare and form.schema.get("type") == "object":
        return dict(form.schema)
    return {
        "type": "object",
        "properties": {_ANSWER: dict(form.schema)},
        "required": [_ANSWER],
        "additionalProperties": False,
    }


def unwrapped(text: str, form: AnswerForm) -> str:
    """The value's text in an answer as ``wrapped`` asks for it; other text as it is."""
    if not form.bare and form.schema.get("type") == "object":
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(found, dict) or set(found) != {_ANSWER}:
        return text
    value = found[_ANSWER]
    return value if form.bare and isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether a schema keeps OpenAI's rules for strict outputs: closed objects, all required."""
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required") or ()) != set(properties):
            return False
    nested: list[Any] = []
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            nested.extend(value.values())
        elif key in ("items", "anyOf", "allOf", "oneOf"):
            nested.extend(value if isinstance(value, list) else [value])
    return all(is_strict(s) for s in nested if isinstance(s, Mapping))
