"""Overrides: ``KEY=VALUE`` pairs that change a study's values."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunewise.errors import StudyError
from tunewise.study.complaints import dotted
from tunewise.study.yaml_source import KeyPath, parse_value

_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of a study's values with some of them changed.

    Args:
        raw: the study as nested mappings and lists; it is not changed.
        overrides: ``fine_tune.epochs=2``, ``candidates[1].k=[2, 4]``; values are YAML. A list item
            can also be named by its ``name``: ``candidates.few_shot.k=[2]``.

    Raises:
        StudyError: an override that is no ``KEY=VALUE``, or leads into a plain value.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(raw))
    for override in overrides:
        key, equals, text = override.partition("=")
        steps = steps_of(key.strip(), changed)
        if not equals or not steps:
            raise StudyError(
                f"{override!r} is not KEY=VALUE",
                where="--set",
                hint="For instance: --set fine_tune.epochs=2",
            )
        set_at(changed, steps, parse_value(text))
    return changed


def set_at(raw: Any, steps: KeyPath, value: Any) -> None:
    """Change the value at ``steps`` inside ``raw``; mappings on the way are made.

    Raises:
        StudyError: the path leads into a plain value, or to no list item.
    """
    current: Any = raw
    for number, step in enumerate(steps[:-1]):
        current = _inside(current, step, steps[: number + 1])
    if isinstance(current, list) and _in_range(current, steps[-1]):
        current[int(steps[-1])] = value
    elif isinstance(current, dict) and isinstance(steps[-1], str):
        current[steps[-1]] = value
    else:
        raise _leads_nowhere(steps)


def steps_of(key: str, raw: Any) -> KeyPath:
    """``candidates[1].k`` or ``candidates.few_shot.k`` as a path into ``raw``."""
    if not re.fullmatch(r"[^.\[\]]+(\[\d+\]|\.[^.\[\]]+)*", key):
        return ()
    path: KeyPath = ()
    current = raw
    for part in _STEP.findall(key):
        step: str | int = int(part[1:-1]) if part.startswith("[") else part
        if isinstance(current, list) and isinstance(step, str):
            names = [c.get("name", c.get("kind")) if isinstance(c, dict) else c for c in current]
            step = names.index(part) if part in names else int(part) if part.isdecimal() else part
        path = (*path, step)
        if isinstance(current, dict) and step in current:
            current = current[str(step)]
        elif isinstance(current, list) and _in_range(current, step):
            current = current[int(step)]
        else:
            current = None
    return path


def _inside(current: Any, step: str | int, path: KeyPath) -> Any:
    if isinstance(current, dict) and isinstance(step, str):
        inner = current.setdefault(step, {})
        if inner is None:
            inner = current[step] = {}
    elif isinstance(current, list) and _in_range(current, step):
        inner = current[int(step)]
    else:
        raise _leads_nowhere(path)
    if isinstance(inner, dict | list):
        return inner
    raise StudyError(
        f"`{dotted(path)}` is {inner!r}, so nothing can be set inside it",
        where=f"--set {dotted(path)}",
        hint=f"Give the whole value: --set '{dotted(path)}={{KEY: VALUE}}'",
    )


def _leads_nowhere(path: KeyPath) -> StudyError:
    return StudyError(
        f"the study has no `{dotted(path)}`",
        where=f"--set {dotted(path)}",
        hint="List items are counted from 0, or named: candidates[0].k, candidates.few_shot.k",
    )


def _in_range(items: list[Any], step: str | int) -> bool:
    return isinstance(step, int) and 0 <= step < len(items)
