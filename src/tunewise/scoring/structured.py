"""Metrics of structured answers: lists and JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tunewise.errors import StudyError
from tunewise.scoring.answers import AnswerScorer, f_measure
from tunewise.scoring.base import ItemScore
from tunewise.scoring.jsontext import find_json, read_json
from tunewise.scoring.normalize import normalize, squash

_BULLET = re.compile(r"^\s*(?:[-*•–]\s+|\d{1,3}[.)]\s+)")


def list_items(text: str) -> list[str]:
    """The items of a list in a text, normalised, in order.

    A JSON list; or an object with one list in it; or lines, with or without bullets; or parts
    between commas or semicolons. Objects in a JSON list are compared as a whole.
    """
    found = find_json(text)
    value = found.value if found is not None else None
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if isinstance(value, list):
        return [item for item in map(_item, value) if item]
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = re.split(r"[,;،、，；]", lines[0])
    return [item for item in (normalize(_BULLET.sub("", line)) for line in lines) if item]


def _item(value: Any) -> str:
    if isinstance(value, str):
        return normalize(value)
    return json.dumps(_squashed(value), sort_keys=True, ensure_ascii=False)


def _squashed(value: Any) -> Any:
    if isinstance(value, str):
        return squash(value)
    if isinstance(value, dict):
        return {key: _squashed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_squashed(inner) for inner in value]
    return value


@dataclass(frozen=True)
class ListF1(AnswerScorer):
    """F1 of the items of a list, in any order."""

    name: ClassVar[str] = "list_f1"

    duplicates: Literal["count", "ignore"] = Field(
        "count", description="count: an item that is repeated without need is a wrong item"
    )

    def compare(self, gold: str, answer: str) -> ItemScore:
        """F1, with ``precision`` and ``recall``; two empty lists are equal."""
        wanted, given = Counter(list_items(gold)), Counter(list_items(answer))
        if self.duplicates == "ignore":
            wanted, given = Counter(set(wanted)), Counter(set(given))
        shared = (wanted & given).total()
        if not wanted or not given:
            precision = recall = float(wanted == given)
        else:
            precision, recall = shared / given.total(), shared / wanted.total()
        return ItemScore(
            f_measure(precision, recall),
            {
                "precision": precision,
                "recall": recall,
                "missing": sorted((wanted - given).elements()),
                "extra": sorted((given - wanted).elements()),
            },
        )


@dataclass(frozen=True)
class JsonFields(AnswerScorer):
    """F1 of the fields of a JSON answer; whether it is valid JSON is reported apart."""

    name: ClassVar[str] = "json_fields"
    files: ClassVar[tuple[str, ...]] = ("schema",)

    strings: Literal["normalized", "exact"] = Field(
        "normalized", description="normalized: case and white space do not count"
    )
    lists: Literal["unordered", "ordered"] = Field(
        "unordered", description="whether the order of list items counts"
    )
    null_is_absent: bool = Field(
        True, description="a field that is null counts like one that is not there"
    )
    strict: bool = Field(False, description="an answer that is not JSON alone scores 0")
    schema: dict[str, Any] | str | None = Field(
        None, description="JSON Schema (inline or a file) that is checked and reported"
    )

    def __post_init__(self) -> None:
        """Read the schema once, so that a broken one is an error before anything is spent."""
        self._validator  # noqa: B018

    def compare(self, gold: str, answer: str) -> ItemScore:
        """F1 over fields.

        Fields are matched by their path and value. Items of lists are paired so that most fields
        agree; a pair of which half or less agrees is one item missed and another invented, so an
        object of the right shape with an invented value earns nothing.
        """
        wanted, given = read_json(gold), find_json(answer)
        valid = given is not None and given.alone
        details: dict[str, Any] = {"valid_json": valid}
        if self._validator is not None:
            details["schema_valid"] = valid and self._fits(given.value if given else None)
        if wanted is None:
            details["reason"] = "the wanted answer is not JSON; compared as text"
            same = gold.strip() == answer.strip()
            return ItemScore(float(same), {**details, "exact": same})
        if given is None or (self.strict and not valid):
            details |= {"precision": 0.0, "recall": 0.0, "exact": False}
            return ItemScore(0.0, {**details, "reason": "the answer is not JSON"})
        return self._fields(self._tidy(wanted.value), self._tidy(given.value), details)

    def failed(self, gold: str, reason: str) -> ItemScore:
        """0; a failed request is not valid JSON either."""
        return ItemScore(0.0, {"reason": reason, "valid_json": False, "exact": False})

    def _fields(self, wanted: Any, given: Any, details: dict[str, Any]) -> ItemScore:
        in_wanted, in_given = _leaves(wanted), _leaves(given)
        if not in_wanted or not in_given:
            precision = recall = float(in_wanted == in_given)
        else:
            shared = self._agreeing(wanted, given)
            precision, recall = shared / in_given, shared / in_wanted
        value = f_measure(precision, recall)
        details |= {"precision": precision, "recall": recall, "exact": value == 1.0}
        return ItemScore(value, details)

    def _tidy(self, value: Any) -> Any:
        """Strings normalised; null fields left out; equal values become equal objects."""
        if isinstance(value, str):
            return squash(value) if self.strings == "normalized" else value
        if isinstance(value, dict):
            return {
                key: self._tidy(inner)
                for key, inner in value.items()
                if not (self.null_is_absent and inner is None)
            }
        return [self._tidy(inner) for inner in value] if isinstance(value, list) else value

    def _agreeing(self, wanted: Any, given: Any) -> int:
        """How many fields of the two agree."""
        if isinstance(wanted, dict) and isinstance(given, dict):
            if not wanted and not given:
                return 1
            return sum(self._agreeing(wanted[k], given[k]) for k in wanted.keys() & given.keys())
        if isinstance(wanted, list) and isinstance(given, list):
            if not wanted and not given:
                return 1
            return self._agreeing_items(wanted, given)
        return int(_same(wanted, given))

    def _agreeing_items(self, wanted: list[Any], given: list[Any]) -> int:
        if self.lists == "ordered":
            return sum(self._pair(w, g) for w, g in zip(wanted, given, strict=False))
        if not any(isinstance(item, dict | list) for item in [*wanted, *given]):
            scalars = (Counter(_scalar_key(item) for item in side) for side in (wanted, given))
            one, other = scalars
            return (one & other).total()
        if not wanted or not given:
            return 0  # nothing to pair, and no matrix to pair it by
        from scipy.optimize import linear_sum_assignment

        table = [[self._pair(w, g) for g in given] for w in wanted]
        rows, columns = linear_sum_assignment(table, maximize=True)
        return sum(table[r][c] for r, c in zip(rows.tolist(), columns.tolist(), strict=True))

    def _pair(self, wanted: Any, given: Any) -> int:
        agreeing = self._agreeing(wanted, given)
        total = _leaves(wanted) + _leaves(given)
        return agreeing if 4 * agreeing > total else 0

    @cached_property
    def _validator(self) -> Any:
        return None if self.schema is None else _schema_validator(self.schema)

    def _fits(self, value: Any) -> bool:
        from jsonschema.exceptions import ValidationError
        from referencing.exceptions import Unresolvable

        try:
            self._validator.validate(value)
        except (ValidationError, RecursionError, TimeoutError):
            return False
        except Unresolvable as error:
            raise StudyError(
                f"the schema refers to what it does not hold: {error}",
                where="metric.options.schema",
                hint="Write the definition into the schema, under `$defs`.",
            ) from None
        return True

    def figures(self, items: Sequence[ItemScore]) -> Mapping[str, float]:
        """Shares of valid (and schema-valid) and of wholly right answers, precision, recall."""
        return super().figures(items)


def _leaves(value: Any) -> int:
    """Fields of a JSON value; an empty object or list inside another is one field."""
    if isinstance(value, dict):
        return sum(max(1, _leaves(inner)) for inner in value.values())
    if isinstance(value, list):
        return sum(max(1, _leaves(inner)) for inner in value)
    return 1


def _scalar_key(value: Any) -> tuple[str, Any]:
    """Numbers are equal to equal numbers; true is not 1."""
    return ("bool" if isinstance(value, bool) else "other", value)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return False
    return _scalar_key(one) == _scalar_key(other)


def _schema_validator(schema: dict[str, Any] | str) -> Any:
    """A validator that asks no network and runs the schema's patterns with a time limit."""
    import regex
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import extend
    from referencing import Registry

    where = "metric.options.schema"
    if isinstance(schema, str):
        try:
            schema = json.loads(Path(schema).read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise StudyError(
                f"cannot be read as JSON: {error}", where=f"{where}: {schema}"
            ) from None
    if "patternProperties" in json.dumps(schema):
        raise StudyError(
            "`patternProperties` is not supported here",
            where=where,
            hint="Name the properties, or use `additionalProperties`.",
        )

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Any:
        if isinstance(instance, str) and not regex.search(wanted, instance, timeout=0.5):
            yield ValidationError(f"{instance!r} does not match {wanted!r}")

    validator: Any = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}
    )
    try:
        validator.check_schema(schema)
    except SchemaError as error:
        raise StudyError(f"not a JSON Schema: {error.message}", where=where) from None
    return validator(schema, registry=Registry())
