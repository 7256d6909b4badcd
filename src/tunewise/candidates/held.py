"""The form that answers are held to, made from the training answers.

A model that is only asked answers in sentences where a label is wanted, and scores nothing for it.
What fine-tuning is compared with must not fail by its form: where training answers are labels,
numbers or JSON, models are decoded within that form, the tuned one like those that are prompted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewise.candidates.answers import AnswerShape, shape_of
from tunewise.candidates.prompting import Limits, Prompting
from tunewise.data.chat import AnswerForm, Example
from tunewise.data.labels import LabelCounts
from tunewise.models.engine import Engine, Foreseeing
from tunewise.models.hosted_form import wrapped
from tunewise.words import plural

_MOST_VALUES = 50
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Held:
    """A form, and what a reader is told of it.

    Attributes:
        form: for requests.
        told: ``one of 77 labels``, ``a number``…
        narrows_thinking: free text before the answer may be worth more than the form: a number may
            have to be worked out. Then answers without it are tried too.
    """

    form: AnswerForm
    told: str
    narrows_thinking: bool = False

    @property
    def note(self) -> str:
        """What the report says of it."""
        return (
            f"answers are held to the form of the training answers, {self.told} "
            "(`output.constrain: false` lets the model write what it will)"
        )

    def leaves_no_room(self, engine: Engine) -> bool:
        """Whether this model may do better when it writes freely, so that both are tried."""
        return self.narrows_thinking or bool(getattr(engine, "thinks", False))

    def reshaped_by(self, engine: Engine) -> bool:
        """Whether the engine's server has answers of another shape written than rows have.

        A label in a JSON object is nothing new to a model that is prompted, but not what a tuned
        one has learnt to write.
        """
        return bool(getattr(engine, "wraps", False)) and wrapped(self.form) != self.form.schema


def held_by(
    engine: Engine,
    limits: Limits,
    train: Sequence[Example],
    dev: Sequence[Example] = (),
    labels: Sequence[str] | None = None,
) -> Held | None:
    """The form that a model's answers are held to; None for none, or where the model cannot be.

    Args:
        limits: a JSON Schema of the study stands in place of any form.
        labels: the labels, where the study knows them.
    """
    if limits.json_schema is not None:
        return None
    held = held_form(shape_of(train, labels), train)
    if held is None or not isinstance(engine, Foreseeing):
        return held
    sample = [*dev, *train][:1]
    free, bound = (
        [Prompting.from_rows(train, one).request(row) for row in sample]
        for one in (limits, replace(limits, form=held.form))
    )
    # What cannot be asked at all says nothing about the form.
    refused = engine.why_not(bound) and not engine.why_not(free)
    return None if refused else held


def held_form(shape: AnswerShape, train: Sequence[Example]) -> Held | None:
    """The form of the training answers; None where they are text, calls, or cannot be described."""
    match shape.kind:
        case "labels":
            labels = [label for label in shape.labels if label.strip()]
            if len(labels) < 2:
                return None
            form = AnswerForm({"type": "string", "enum": labels}, bare=True)
            return Held(form, f"one of {len(labels):,} labels")
        case "number":
            return Held(AnswerForm({"type": "number"}, bare=True), "a number", True)
        case "json_list" | "json_object":
            answers = (row.answer.strip() for row in train)
            values = [json.loads(answer) for answer in answers if answer]
            schema = _schema(values, depth=0)
            return Held(AnswerForm(schema), _told(shape, schema)) if schema is not None else None
        case _:
            return None


def _told(shape: AnswerShape, schema: Mapping[str, Any]) -> str:
    if shape.kind == "json_list":
        return "a JSON list"
    return f"a JSON object of {plural(len(schema['properties']), 'key')}"


def _schema(values: Sequence[Any], *, depth: int) -> dict[str, Any] | None:
    """A JSON Schema that all values keep, with the values themselves where they are few."""
    if depth > _DEEPEST or not values:
        return None
    kinds = {_kind(value) for value in values}
    if kinds == {"object"}:
        return _object(values, depth)
    if kinds == {"array"}:
        items = [item for value in values for item in value]
        inner = _schema(items, depth=depth + 1)
        most = max(map(len, values))
        return {"type": "array", "maxItems": most, **({"items": inner} if inner else {})}
    if kinds == {"string"}:
        labels = _labels(values)
        return {"type": "string", **({"enum": labels} if labels else {})}
    if kinds <= {"integer", "number"}:
        return {"type": "integer" if kinds == {"integer"} else "number"}
    if len(kinds) == 1:
        return {"type": kinds.pop()}
    parts = [
        _schema([v for v in values if _kind(v) == kind], depth=depth + 1) for kind in sorted(kinds)
    ]
    known = [part for part in parts if part is not None]
    return {"anyOf": known} if len(known) == len(parts) else None


def _object(values: Sequence[Mapping[str, Any]], depth: int) -> dict[str, Any] | None:
    """Keys in the order in which answers write them; those that all have are required."""
    found: dict[str, list[Any]] = {}
    for value in values:
        for key, inner in value.items():
            found.setdefault(key, []).append(inner)
    if not found or len(found) > _MOST_VALUES:
        return {"type": "object"} if not depth else None
    properties = {key: _schema(held, depth=depth + 1) or {} for key, held in found.items()}
    return {
        "type": "object",
        "properties": properties,
        "required": [key for key, held in found.items() if len(held) == len(values)],
        "additionalProperties": False,
    }


def _labels(values: Sequence[str]) -> list[str]:
    """The values themselves, where they are a small set that comes again and again."""
    counts = LabelCounts()
    for value in values:
        counts.add(value)
    table = counts.table()
    return sorted(set(values)) if table is not None and len(table) <= _MOST_VALUES else []


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object")
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")
