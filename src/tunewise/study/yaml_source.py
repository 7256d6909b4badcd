"""YAML as plain JSON values, with the line of every key; safe against what a stranger may write.

The scalars are those of YAML 1.2's core schema, so ``1e-4`` is a number, ``no`` is text and a date
is text. Tags are refused, duplicate keys are errors, and what aliases expand to is limited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tunewise.errors import StudyError

KeyPath = tuple[str | int, ...]
"""A place inside nested mappings and lists."""

LARGEST_BYTES = 1 << 20
_MOST_NODES = 100_000
_DEEPEST = 100
_LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Parsed:
    """A YAML document.

    Attributes:
        value: as JSON values.
        lines: the line (from 1) of each key and list item.
    """

    value: Any
    lines: Mapping[KeyPath, int]


class _Loader(yaml.SafeLoader):
    """Plain values only: no tags, YAML 1.2's core scalars."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        # PyYAML looks ahead once for each open bracket: "[[[[…" would take it minutes.
        if self.flow_level >= _DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    if len(text) > _LONGEST_NUMBER:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text):,} digits cannot be meant", node.start_mark
        )
    base = {"0x": 16, "0o": 8}.get(text.lstrip("+-")[:2], 10)
    return int(text, base)


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor(_TAG + "null", lambda loader, node: None)
_Loader.add_constructor(_TAG + "bool", lambda loader, node: node.value.lower() == "true")
_Loader.add_constructor(_TAG + "int", _int)
_Loader.add_constructor(_TAG + "float", lambda loader, node: float(node.value))
_Loader.add_constructor(_TAG + "str", lambda loader, node: node.value)
for _tag, _construct in (
    (_TAG + "seq", yaml.SafeLoader.construct_yaml_seq),
    (_TAG + "map", yaml.SafeLoader.construct_yaml_map),
    (None, yaml.SafeLoader.construct_undefined),
):
    _Loader.yaml_constructors[_tag] = _construct


def read_text(path: Path, kind: str = "study file") -> str:
    """The text of a study file, or of another ``kind`` of YAML file.

    Raises:
        StudyError: it is missing (near names are given), no file, too large, or not UTF-8.
    """
    where = str(path)
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
            hint = f"It holds {', '.join(inside[:5])}." if inside else "Name the file inside it."
            raise StudyError(f"this is a folder, not a {kind}", where=where, hint=hint)
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        hint = near_names(path) or "Write one from your data: tunewise init rows.jsonl"
        raise StudyError(f"there is no such {kind}", where=where, hint=hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(f"the {kind} cannot be read: {reason}", where=where) from None
    if len(content) > LARGEST_BYTES:
        raise StudyError(
            f"a {kind} may have 1 MiB at most",
            where=where,
            hint="It names the data (`data.examples: FILE`); it does not hold them.",
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decoded(content, "utf-16", where)
    return _decoded(content, "utf-8-sig", where)


def _decoded(content: bytes, encoding: str, where: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise StudyError(
            f"not UTF-8 text (byte 0x{content[error.start]:02x})",
            where=f"{where}:{line}",
            hint="Save the file as UTF-8.",
        ) from None


def near_names(path: Path) -> str | None:
    """``Did you mean …?`` with files of the same folder that have a similar name."""
    import difflib

    try:
        siblings = [p.name for p in path.parent.iterdir()]
    except (OSError, ValueError):
        return f"There is no folder {path.parent}." if not path.parent.is_dir() else None
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else None


Repeated = list[tuple[str, int, int]]
"""Keys that stand twice in one mapping: the name, the line of the one before, and its own."""


def parse_yaml(text: str, name: str, repeated: Repeated | None = None) -> Parsed:
    """Parse one YAML document.

    Args:
        name: of the file, for messages.
        repeated: gathers keys that stand twice, of which the last counts; without it they are an
            error.

    Raises:
        StudyError: with line and column of what cannot be understood.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Parsed(None, {})
            _check(node, name, repeated)
            value = loader.construct_document(node)
            return Parsed(_unshared(value), _lines(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, name) from None
    except yaml.YAMLError as error:
        raise StudyError(f"not readable as YAML: {error}", where=name) from None
    except RecursionError:
        raise StudyError("the file is nested too deeply", where=name) from None
    except ValueError as error:
        raise StudyError(f"a number cannot be read: {error}", where=name) from None


def parse_value(text: str) -> Any:
    """One value as written on the command line: ``2``, ``true``, ``[1, 2]``, ``some text``.

    Raises:
        StudyError: it is not YAML.
    """
    return parse_yaml(text, "--set").value


def _syntax_error(error: yaml.MarkedYAMLError, name: str) -> StudyError:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = error.problem or str(error)
    hint = None
    if "\\t" in problem:
        problem, hint = "a tab stands here", "YAML indents with spaces; replace the tab by spaces."
    elif "could not determine a constructor" in problem:
        problem, hint = "tags (`!name`) are not allowed here", "Write a plain value, or quote it."
    elif "mapping values are not allowed" in problem:
        problem = "a colon stands where no key can begin"
        hint = "Check the indentation, and quote text that holds `: `."
    elif "expected a single document" in str(error.context):
        problem, hint = "a second document begins here", "Remove the line with `---`."
    elif "while parsing a flow" in str(error.context) and error.context_mark:
        opened = error.context_mark
        problem = f"the bracket of line {opened.line + 1}, column {opened.column + 1} has no end"
        hint = "Close it with `]` or `}`, and put a comma between its values."
    elif "quoted scalar" in str(error.context) and error.context_mark:
        problem = f"the quote of line {error.context_mark.line + 1} has no end ({problem})"
    elif error.context:
        problem = f"{problem} ({error.context})"
    return StudyError(problem, where=where, hint=hint)


def _check(root: yaml.Node, name: str, repeated: Repeated | None) -> None:
    """Refuse duplicate keys, keys that are not text, and aliases that expand without end."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            if known < 0:
                raise _at(node, name, "an alias refers to what it stands in")
            return known
        sizes[id(node)] = -1
        total = 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, name, repeated)
            total += sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(inner) for inner in node.value)
        if total > _MOST_NODES:
            raise _at(node, name, f"the file grows to more than {_MOST_NODES:,} values")
        sizes[id(node)] = total
        return total

    size(root)


def _check_keys(node: yaml.MappingNode, name: str, repeated: Repeated | None) -> None:
    first: dict[Any, int] = {}
    for key, _ in node.value:
        if key.tag == _TAG + "merge":
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _at(key, name, f"a key must be text, not {shown}", "Put it in quotes.")
        line = key.start_mark.line + 1
        if key.value in first and repeated is not None:
            repeated.append((key.value, first[key.value], line))
        elif key.value in first:
            raise _at(
                key, name, f"the key `{key.value}` stands here for the second time",
                f"The first is in line {first[key.value]}; keep one.",
            )  # fmt: skip
        first[key.value] = line


def _unshared(value: Any) -> Any:
    """Aliases as copies, so that a change in one place stays there."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _at(node: yaml.Node, name: str, message: str, hint: str | None = None) -> StudyError:
    mark = node.start_mark
    return StudyError(message, where=f"{name}:{mark.line + 1}:{mark.column + 1}", hint=hint)


def _lines(root: yaml.Node) -> dict[KeyPath, int]:
    """The line of every key and item; merged keys (``<<``) point to where they were written."""
    lines: dict[KeyPath, int] = {(): root.start_mark.line + 1}

    def walk(node: yaml.Node, path: KeyPath) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, key.value)
                lines[inner] = key.start_mark.line + 1
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                inner = (*path, index)
                lines[inner] = value.start_mark.line + 1
                walk(value, inner)

    walk(root, ())
    return lines
