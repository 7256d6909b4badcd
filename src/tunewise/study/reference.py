"""A reference page from a JSON Schema: every key with its type and meaning, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

ROOT = ""


def markdown_reference(schema: dict[str, Any], opening: str, *, defaults: bool = False) -> str:
    """``opening``, then a table for the document and for each part that it names, in order.

    Args:
        schema: of an object, with its parts in ``$defs`` as pydantic writes it.
        opening: Markdown.
        defaults: say what stands where a key is left out.
    """
    parts = {ROOT: schema, **schema["$defs"]}
    order = [ROOT, *dict.fromkeys(_parts_in_order(ROOT, parts))]
    return "\n".join(
        [opening, *(line for name in order for line in _section(name, parts, defaults))]
    )


def _parts_in_order(name: str, parts: dict[str, Any]) -> Iterator[str]:
    for value in parts[name].get("properties", {}).values():
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


def _section(name: str, parts: dict[str, Any], defaults: bool) -> Iterator[str]:
    part = parts[name]
    yield f"## {'The document' if name == ROOT else name}\n"
    if name != ROOT and part.get("description"):
        yield f"{part['description']}\n"
    yield "| key | type | meaning |"
    yield "|---|---|---|"
    for key, value in part["properties"].items():
        meaning = value.get("description") or _meaning_of_part(value, parts)
        if defaults and isinstance(value.get("default"), str | int | float):
            said = value["default"]
            written = said if isinstance(said, str) else json.dumps(said)
            meaning = "; ".join(
                part for part in (meaning, f"default `{written}`" if written else "") if part
            )
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
