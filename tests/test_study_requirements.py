"""Pydantic's errors as the ends of sentences, of every kind there is."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticKnownError, core_schema

from tunewise.study.requirements import complaint, requirement

CONTEXT: dict[str, Any] = {
    "actual_length": 3, "attribute": "a", "class": "C", "class_name": "C", "decimal_places": 2,
    "discriminator": "'type'", "encoding": "utf8", "encoding_error": "e", "error": "no good",
    "expected": "'a' or 'b'", "expected_schemes": "'http'", "expected_tags": "'a', 'b'",
    "expected_type": "T", "expected_version": 4, "field_type": "List", "ge": 1, "gt": 1, "le": 1,
    "lt": 1, "max_digits": 2, "max_length": 2, "method_name": "m", "min_length": 2,
    "multiple_of": 2, "pattern": "^a$", "tag": "c", "tz_actual": 1, "tz_expected": 0,
    "whole_digits": 2,
}  # fmt: skip
KINDS = get_args(core_schema.ErrorType)
BAD = re.compile(
    r"(?i)input should|should should|be (string|list|data|url|date|valid \()|python|instance"
)
# Never met by values from JSON or YAML: programs' mistakes.
OUR_OWN = {"default_factory_not_called", "frozen_field", "frozen_instance", "get_attribute_error",
           "is_instance_of", "is_subclass_of", "iteration_error", "missing_sentinel_error",
           "dataclass_exact_type",
           "multiple_argument_values", "needs_python_object", "no_such_attribute"}  # fmt: skip


def item(kind: str) -> dict[str, Any]:
    message = PydanticKnownError(kind, CONTEXT).message()  # type: ignore[arg-type]
    return {"type": kind, "msg": message, "ctx": CONTEXT}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_ends_a_sentence(kind: str) -> None:
    text = complaint(item(kind))
    if kind in ("value_error", "assertion_error"):
        assert text == "no good"
        return
    assert re.match(r"should (not )?(be|have|match|contain)\b", text), text
    assert text.count("should") == 1 and not text.endswith((",", ".")), text
    assert kind in OUR_OWN or not BAD.search(text), text


@pytest.mark.parametrize(
    ("shape", "value", "says"),
    [
        (Annotated[str, Field(max_length=2)], "abc", "should have at most 2 characters"),
        (Annotated[str, Field(pattern="^a$")], "b", "should match the pattern ^a$"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "should have at most 1 item, not 2"),
        (dict[str, int], 1, "should be an object"),
        (int | list[int], "x", "should be a whole number or a list"),
        (Annotated[int, Field(le=5)], 6, "should be less than or equal to 5"),
        (bool, 3, "should be true or false"),
    ],
)
def test_sentences_as_users_read_them(shape: Any, value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(shape).validate_python(value)
    assert requirement(*caught.value.errors(), mapping="an object") == says


def test_a_union_told_by_a_field() -> None:
    class Dog(BaseModel):
        kind: Annotated[str, Field(pattern="dog")] = "dog"

    assert complaint(item("union_tag_invalid")) == (
        "should have a `type` that is one of 'a', 'b', not 'c'"
    )
    with pytest.raises(ValidationError) as caught:
        Dog.model_validate([])
    assert complaint(caught.value.errors()[0], "an object") == "should be an object"
