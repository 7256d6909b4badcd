"""What a value should have been, in words: pydantic's errors as predicates of a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAPPING = "a mapping (lines of `key: value`)"
"""What YAML calls an object."""

_OBJECTS = frozenset(
    {
        "dict_type",
        "mapping_type",
        "model_type",
        "model_attributes_type",
        "dataclass_type",
        "named_tuple_type",
        "frozen_dict_type",
        "ordered_dict_type",
        "counter_type",
        "arguments_type",
    }
)
_LISTS = frozenset(
    {"list_type", "tuple_type", "set_type", "frozen_set_type", "deque_type", "iterable_type"}
)
_BE: Mapping[str, str] = {
    "string_type": "text",
    "string_unicode": "text in valid Unicode",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "fraction_type": "a number",
    "fraction_parsing": "a fraction such as 1/2",
    "complex_type": "a number",
    "complex_str_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "bytes_type": "text",
    "none_required": "null",
    "json_type": "text that holds JSON",
    "json_invalid": "valid JSON",
    "uuid_version": "a UUID of another version",
    "url_type": "a URL",
    "url_parsing": "a URL",
    "url_syntax_violation": "a URL",
    "uuid_type": "a UUID",
    "uuid_parsing": "a UUID",
    "date_type": "a date such as 2026-01-31",
    "date_parsing": "a date such as 2026-01-31",
    "date_from_datetime_parsing": "a date such as 2026-01-31",
    "date_from_datetime_inexact": "a date without a time of day",
    "datetime_type": "a date and time such as 2026-01-31T12:00:00",
    "datetime_parsing": "a date and time such as 2026-01-31T12:00:00",
    "datetime_object_invalid": "a date and time such as 2026-01-31T12:00:00",
    "datetime_from_date_parsing": "a date and time such as 2026-01-31T12:00:00",
    "time_type": "a time of day such as 12:00",
    "time_parsing": "a time of day such as 12:00",
    "time_delta_type": "a length of time",
    "time_delta_parsing": "a length of time",
    "recursion_loop": "an object that does not hold itself",
    "recursion_depth_exceeded": "nested less deeply",
    "missing": "given",
    "missing_argument": "given",
    "missing_keyword_only_argument": "given",
    "missing_positional_only_argument": "given",
}
_NOT_THERE = frozenset(
    {"extra_forbidden", "unexpected_keyword_argument", "unexpected_positional_argument"}
)
_SHOULD = re.compile(r"^(?P<subject>.*?) should (?P<predicate>.+)$", re.DOTALL)


def requirement(*items: Mapping[str, Any], mapping: str = MAPPING) -> str:
    """``should be text or a list``, ``should have at most 64 characters``: the end of a sentence.

    Args:
        items: pydantic's errors of one value, as ``ValidationError.errors`` gives them: several
            where it could have been of several types.
        mapping: what the reader calls an object.
    """
    predicates = list(dict.fromkeys(_predicate(item, mapping) for item in items))
    kinds = [p.removeprefix("be ") for p in predicates if p.startswith("be ")]
    others = [p for p in predicates if not p.startswith("be ")]
    first = [f"be {' or '.join(kinds)}"] if kinds else []
    return f"should {' or '.join([*first, *others])}"


def complaint(item: Mapping[str, Any], mapping: str = MAPPING) -> str:
    """One of pydantic's errors in words: what a check of ours said, or a :func:`requirement`."""
    if item["type"] in ("value_error", "assertion_error"):
        return str(item["msg"]).partition(", ")[2]
    return requirement(item, mapping=mapping)


def _predicate(item: Mapping[str, Any], mapping: str) -> str:
    kind, context = str(item["type"]), item.get("ctx") or {}
    if kind in _OBJECTS:
        return f"be {mapping}"
    if kind in _LISTS:
        return "be a list"
    if kind in _BE:
        return f"be {_BE[kind]}"
    if kind in _NOT_THERE:
        return "not be there"
    if kind == "invalid_key":
        return "have keys that are text"
    if kind == "timezone_offset":
        return f"have a timezone {context.get('tz_expected')} seconds from UTC"
    if kind == "string_pattern_mismatch":
        return f"match the pattern {context.get('pattern', '')}"
    if kind == "union_tag_invalid":
        name, tags = context.get("discriminator"), context.get("expected_tags")
        return f"have a {_quoted(name)} that is one of {tags}, not {context.get('tag')!r}"
    if kind == "union_tag_not_found":
        return f"have a {_quoted(context.get('discriminator'))}"
    text = str(item["msg"]).replace(" after validation", "")
    match = _SHOULD.match(text)
    return match["predicate"] if match is not None else f"be valid ({text})"


def _quoted(discriminator: Any) -> str:
    return "`" + str(discriminator).strip("'") + "`"
