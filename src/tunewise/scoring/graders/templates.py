"""``{{item.x}}`` and ``{{sample.output_text}}``: values put into a grader's texts.

A reference is ``item`` or ``sample`` with a path: names and list places, in dots or brackets
(``{{ item.answers[0].text }}``, ``{{ item["a b"] }}``). Nothing is computed: whatever else stands
between double braces is an error. What a value holds is never read as a template again, so a
sample that says ``{{item.reference}}`` is only text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunewise.scoring.graders.errors import GraderError

_STEP = re.compile(
    r"""\s*(?: \.? \s* \[ \s* (?: (?P<place>\d{1,9}) | "(?P<double>[^"]*)" | '(?P<single>[^']*)' )
        \s* \] | \. \s* (?P<name>[^\s.\[\]{}"'|()+*/]+) )""",
    re.VERBOSE,
)
_SPACES = ("item", "sample")
_SAMPLE_FIELDS = ("output_text", "output_json", "output_tools", "choices")
_LONGEST = 1_000_000
_LONGEST_REFERENCE = 500


class MissingValueError(Exception):
    """A reference that leads nowhere in this row.

    Attributes:
        space: ``item`` or ``sample``.
    """

    def __init__(self, space: str, message: str) -> None:
        super().__init__(message)
        self.space = space


@dataclass(frozen=True, slots=True)
class Reference:
    """One hole: where it leads and how it was written."""

    space: str
    path: tuple[str | int, ...]
    written: str

    def resolve(self, spaces: Mapping[str, Any]) -> Any:
        """The value.

        Raises:
            MissingValueError: the path leads nowhere.
        """
        value = spaces[self.space]
        for step in self.path:
            if isinstance(value, Mapping) and str(step) in value:
                value = value[str(step)]
            elif isinstance(value, list | tuple) and _is_place(step) and int(step) < len(value):
                value = value[int(step)]
            else:
                raise MissingValueError(
                    self.space, f"{{{{{self.written}}}}}: there is no {step!r} in this row"
                )
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """A text with holes: plain texts and references in turn."""

    parts: tuple[str | Reference, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """The holes, in order."""
        return tuple(part for part in self.parts if isinstance(part, Reference))

    def render(
        self, spaces: Mapping[str, Any], mark: Callable[[Reference, str], str] | None = None
    ) -> str:
        """The text with its values.

        Args:
            spaces: ``item`` and ``sample`` with their values.
            mark: changes each value's text before it goes in.

        Raises:
            MissingValueError: a reference leads nowhere.
        """
        made = []
        for part in self.parts:
            if isinstance(part, Reference):
                text = as_text(part.resolve(spaces))
                made.append(mark(part, text) if mark is not None else text)
            else:
                made.append(part)
        return "".join(made)


def parse_template(text: str, where: str) -> Template:
    """Read a template once, for many rows.

    Raises:
        GraderError: a hole that is no reference; ``where`` is the path of the text.
    """
    if len(text) > _LONGEST:
        raise GraderError(f"the text is longer than {_LONGEST:,} characters", where=where)
    parts: list[str | Reference] = []
    place = 0
    # Not a regular expression: one looks for the end anew from every beginning.
    while (start := text.find("{{", place)) >= 0 and (end := text.find("}}", start)) >= 0:
        parts += [text[place:start], _reference(text[start + 2 : end], where)]
        place = end + 2
    parts.append(text[place:])
    return Template(tuple(part for part in parts if part != ""))


def as_text(value: Any) -> str:
    """A value inside a text: a string as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _reference(inside: str, where: str) -> Reference:
    written = inside.strip()
    space = next((s for s in _SPACES if re.match(rf"{s}(?!\w)", written)), None)
    if space is None:
        raise GraderError(
            f"{{{{{written[:80]}}}}} starts with neither `item` nor `sample`",
            where=where,
            hint="Write {{item.NAME}} for a field of the row, {{sample.output_text}} for the "
            "model's answer.",
        )
    if len(written) > _LONGEST_REFERENCE:
        raise GraderError(
            f"{{{{{written[:80]}…}}}} is longer than {_LONGEST_REFERENCE} characters", where=where
        )
    path: list[str | int] = []
    rest = written[len(space) :].rstrip()
    while rest:
        step = _STEP.match(rest)
        if step is None:
            raise GraderError(
                f"{{{{{written[:80]}}}}} is no path: nothing can be computed in a template",
                where=where,
                hint="Write names joined by dots, and places of a list in brackets: "
                "{{item.answers[0].text}}. For computation use a Python grader.",
            )
        path.append(int(step["place"]) if step["place"] else _name_of(step))
        rest = rest[step.end() :]
    if space == "sample" and path and path[0] not in _SAMPLE_FIELDS:
        raise GraderError(
            f"{{{{{written[:80]}}}}}: a sample has no {path[0]!r}",
            where=where,
            hint=f"It has {', '.join(_SAMPLE_FIELDS)}.",
        )
    return Reference(space, tuple(path), written)


def _name_of(step: re.Match[str]) -> str:
    return next(v for v in (step["double"], step["single"], step["name"]) if v is not None)


def _is_place(step: str | int) -> bool:
    return isinstance(step, int) or (step.isascii() and step.isdigit() and len(step) < 10)
