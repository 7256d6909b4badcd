"""What is wrong in a study file, in words: the line, the key, and what was probably meant."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tunewise.errors import StudyError
from tunewise.study.requirements import complaint, requirement
from tunewise.study.schema import Study
from tunewise.study.yaml_source import KeyPath

_MOST = 5
_SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Places:
    """Where each key of a study was written.

    Attributes:
        name: of the file, as the user named it.
        lines: the line of each key in the file.
        overridden: keys that ``--set`` gave.
        flags: the command line's flag, for keys that one gave.
    """

    name: str
    lines: Mapping[KeyPath, int]
    overridden: frozenset[KeyPath] = frozenset()
    flags: Mapping[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """``study.yaml:7: data.examples``, ``--set data.examples``, or the flag."""
        key = dotted(path)
        flag = next((f for n, f in self.flags.items() if path[: len(n)] == n), None)
        if flag is not None:
            return flag
        if self._set(path):
            return f"--set {key}"
        if not self.lines:  # a study without a file
            return f"{self.name}: {key}" if key else self.name
        return f"{self.name}:{self.line(path)}: {key}" if key else self.name

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of what it should stand in; overridden keys come last."""
        if self._set(path):
            return 1 << 30
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)

    def _set(self, path: KeyPath) -> bool:
        return any(
            path[: len(given)] == given
            or (bool(path) and given[: len(path)] == path and path not in self.lines)
            for given in self.overridden
        )


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong, where, and what to do."""

    path: KeyPath
    message: str
    hint: str | None = None


def dotted(path: KeyPath) -> str:
    """``candidates[1].k``: the path as a user reads and writes it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def study_error(complaints: Sequence[Complaint], places: Places) -> StudyError:
    """One error for several complaints, in the order of their lines, five at most."""
    ordered = sorted(complaints, key=lambda c: (places.line(c.path), dotted(c.path)))
    if len(ordered) == 1:
        only = ordered[0]
        return StudyError(only.message, where=places.where(only.path), hint=only.hint)
    shown = [
        f"  {places.where(c.path)}: {c.message}" + (f". {c.hint}" if c.hint else "")
        for c in ordered[:_MOST]
    ]
    if len(ordered) > _MOST:
        shown.append(f"  … and {len(ordered) - _MOST} more")
    lines = "\n".join(shown)
    return StudyError(f"{len(ordered)} things are wrong:\n{lines}", where=places.name)


def complaints_of(error: ValidationError, raw: Any) -> list[Complaint]:
    """pydantic's errors as complaints: one a key, whatever the number of types it tried."""
    found: dict[KeyPath, list[tuple[KeyPath, Mapping[str, Any]]]] = {}
    for item in error.errors(include_url=False):
        path, tried_at = _path(item, raw)
        found.setdefault(tried_at if tried_at is not None else path, []).append((path, item))
    complaints = []
    for group in found.values():
        # Where a value may be text or a list and is a list with a bad item, the item is meant.
        deepest = max(len(path) for path, _ in group)
        kept = [(path, item) for path, item in group if len(path) == deepest]
        for path in dict.fromkeys(path for path, _ in kept):
            complaints.append(_complaint(path, [i for p, i in kept if p == path], raw))
    return complaints


def _path(item: Mapping[str, Any], raw: Any) -> tuple[KeyPath, KeyPath | None]:
    """The path in the file, without pydantic's marks of which type it tried; and where it did."""
    path: KeyPath = ()
    tried_at: KeyPath | None = None
    current = raw
    location = item["loc"]
    for number, part in enumerate(location):
        last = number == len(location) - 1
        is_item = isinstance(current, list) and isinstance(part, int) and part < len(current)
        if is_item or (isinstance(current, Mapping) and part in current):
            path, current = (*path, part), current[part]
        elif last and item["type"] == "missing":
            path = (*path, part)
        elif tried_at is None:
            tried_at = path
    return path, tried_at


def _complaint(path: KeyPath, items: list[Mapping[str, Any]], raw: Any) -> Complaint:
    first = items[0]
    if first["type"] == "missing":
        described = properties_at(path[:-1]).get(str(path[-1]), {}).get("description")
        what = f"`{path[-1]}` is missing" if path else "something is missing"
        return Complaint(path, what, _sentence(described))
    if first["type"] == "extra_forbidden":
        return Complaint(path, "unknown key", _nearest(path))
    if first["type"] == "value_error":
        return Complaint(path, complaint(first))
    value = _at(raw, path)
    shown = _shown(path, value)
    hint = None
    expected = first.get("ctx", {}).get("expected")
    if isinstance(expected, str) and isinstance(value, str):
        choices = re.findall(r"'([^']*)'", expected)
        near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else None
    return Complaint(path, f"{requirement(*items)}{shown}", hint)


def _shown(path: KeyPath, value: Any) -> str:
    """What stands there, unless it may be a secret."""
    if any(isinstance(part, str) and _SECRET.search(part) for part in path):
        return ""
    if value is None:
        return ", but nothing stands there"
    if isinstance(value, str | int | float | bool):
        shown = repr(value)
        return f", not {shown if len(shown) <= 60 else shown[:59] + '…'}"
    return f", not {'a list' if isinstance(value, list) else 'a mapping'}"


def _at(raw: Any, path: KeyPath) -> Any:
    for part in path:
        raw = raw[part]
    return raw


def _nearest(path: KeyPath) -> str:
    """The key that was probably meant, with its place; else the keys that are possible there."""
    key, parent = str(path[-1]), path[:-1]
    siblings = list(properties_at(parent))
    near = difflib.get_close_matches(key.lower().replace("-", "_"), siblings, n=1, cutoff=0.75)
    elsewhere = [place for place in _all_keys() if place.rpartition(".")[2] == key]
    if not near and elsewhere:
        return f"It belongs here: `{min(elsewhere, key=lambda p: (p.count('.'), p))}`"
    near = near or difflib.get_close_matches(key, siblings, n=1, cutoff=0.55)
    if near:
        described = _sentence(properties_at(parent)[near[0]].get("description"))
        return f"Did you mean `{dotted((*parent, near[0]))}`?" + (
            f" ({described.rstrip('.')})" if described else ""
        )
    last = {place.rpartition(".")[2]: place for place in _all_keys()}
    near = difflib.get_close_matches(key, last, n=1, cutoff=0.75)
    if near:
        return f"Did you mean `{last[near[0]]}`?"
    return f"Possible here: {', '.join(siblings)}." if siblings else "No keys are possible here."


def _sentence(text: str | None) -> str | None:
    return None if not text else f"{text[:1].upper()}{text[1:]}."


@functools.cache
def _schema() -> dict[str, Any]:
    return Study.model_json_schema()


def properties_at(path: KeyPath) -> dict[str, dict[str, Any]]:
    """The keys that the schema allows in a place, with their JSON Schemas."""
    nodes = list(_objects(_schema()))
    for part in path:
        inner: list[dict[str, Any]] = []
        for node in nodes:
            if isinstance(part, int):
                inner += [o for items in _lists(node) for o in _objects(items)]
            elif part in node.get("properties", {}):
                inner += _objects(node["properties"][part])
            elif isinstance(node.get("additionalProperties"), dict):
                inner += _objects(node["additionalProperties"])
        nodes = inner
    return {key: value for node in nodes for key, value in node.get("properties", {}).items()}


def _objects(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, references followed."""
    if "$ref" in node:
        yield from _objects(_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    for alternative in node.get("anyOf", ()):
        yield from _objects(alternative)
    if "$ref" not in node and "anyOf" not in node:
        yield dict(node)


def _lists(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [node["items"]] if isinstance(node.get("items"), dict) else []


@functools.cache
def _all_keys() -> tuple[str, ...]:
    """Every key of the schema by its dotted place; list items and names are left out."""

    def walk(node: Mapping[str, Any], place: str, depth: int) -> Iterator[str]:
        for one in _objects(node):
            for key, value in one.get("properties", {}).items():
                inner = f"{place}.{key}" if place else key
                yield inner
                if depth < 6:
                    yield from walk(value, inner, depth + 1)
                    for items in (i for o in _objects(value) for i in _lists(o)):
                        yield from walk(items, f"{inner}[0]", depth + 1)

    return tuple(dict.fromkeys(walk(_schema(), "", 0)))
