"""What ``verdict.json`` holds, for machines (JSON Schema) and for readers (Markdown)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunewise.report.document import SCHEMA, Verdict

_OPENING = f"""\
# verdict.json

`tunewise run` ends with this file, and every other rendering of the verdict is made from it. The
first key, `schema`, is `{SCHEMA}`; the number goes up when a key changes its meaning or
goes away, not when one is added. `tunewise.report.schema.json_schema()` gives the JSON Schema.

Scores, gains and their limits are in points (0..100), money is in US dollars, tokens are per
request, latencies are in milliseconds. `null` means unknown or not reached, never zero. All keys
are always there.

This page is generated from the program's own schema.
"""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``verdict.json`` as Tunewise writes it."""
    schema = Verdict.model_json_schema(by_alias=True, mode="serialization")
    schema["properties"]["schema"]["const"] = SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def reference() -> str:
    """``docs/verdict-json.md``: every key with its type and meaning."""
    schema = json_schema()
    parts = {"Verdict": schema, **schema["$defs"]}
    order = ["Verdict", *dict.fromkeys(_parts_in_order("Verdict", parts))]
    return "\n".join([_OPENING, *(line for n in order for line in _section(n, parts))])


def _parts_in_order(name: str, parts: dict[str, Any]) -> Iterator[str]:
    for value in parts[name]["properties"].values():
        for inner in _references(value):
            yield inner
            yield from _parts_in_order(inner, parts)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rsplit("/", 1)[1]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _section(name: str, parts: dict[str, Any]) -> Iterator[str]:
    part = parts[name]
    heading = "The document" if name == "Verdict" else name
    yield f"## {heading}\n"
    if name != "Verdict" and part.get("description"):
        yield f"{part['description']}\n"
    yield "| key | type | meaning |"
    yield "|---|---|---|"
    for key, value in part["properties"].items():
        meaning = value.get("description") or _meaning_of_part(value, parts)
        yield f"| `{key}` | {_type(value)} | {meaning.replace('|', chr(92) + '|')} |"
    yield ""


def _meaning_of_part(value: dict[str, Any], parts: dict[str, Any]) -> str:
    """What the part says of itself, where the key that holds it says nothing."""
    names = list(_references(value))
    text = parts[names[0]].get("description", "") if names else ""
    return str(text[:1].lower() + text[1:].rstrip("."))


def _type(value: dict[str, Any]) -> str:
    """A JSON Schema type in a few words."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{x}`" for x in value["enum"])
    if "anyOf" in value:
        return " or ".join(_type(x) for x in value["anyOf"])
    if value.get("type") == "array":
        if "prefixItems" in value:
            return f"[{', '.join(_type(x) for x in value['prefixItems'])}]"
        return f"list of {_type(value['items'])}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) else "object"
    return str(value.get("type", "any"))
