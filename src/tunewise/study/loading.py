"""From a study file to a checked study: overrides applied, paths found, errors with their line."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewise.errors import StudyError
from tunewise.study.complaints import Complaint, Places, complaints_of, dotted, study_error
from tunewise.study.schema import Study
from tunewise.study.yaml_source import KeyPath, near_names, parse_value, parse_yaml, read_text

_HUB = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)?(:[\w.\[\]%-]+)?")
_DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")

Flags = Mapping[str, tuple[str, Any]]
"""Flags of the command line: each with the study key that it stands for, and its value."""


@dataclass(frozen=True, slots=True)
class LoadedStudy:
    """A study and where it came from.

    Attributes:
        study: checked; its paths are absolute.
        path: the study file, as given.
        directory: its folder, absolute; what the study's relative paths are relative to.
        raw: what the file says, with overrides applied, paths as written; JSON values.
        places: the line of each key.
    """

    study: Study
    path: Path
    directory: Path
    raw: Mapping[str, Any]
    places: Places

    def located(self, error: StudyError) -> StudyError:
        """An error that names a key, met while the study ran, with the key's file and line."""
        path = _steps(error.where or "", self.raw)
        if not path or path[0] not in self.raw:
            return error
        return StudyError(error.message, where=self.places.where(path), hint=error.hint)


def load_study(
    path: str | Path, overrides: Sequence[str] = (), flags: Flags | None = None
) -> LoadedStudy:
    """Read, check and resolve a study file.

    Args:
        path: the YAML file. Relative paths inside it, and in overrides, are relative to it.
        overrides: ``KEY=VALUE`` pairs, see :func:`apply_overrides`.
        flags: keys that flags of the command line give; they win.

    Raises:
        StudyError: with file, line, key and what was probably meant; up to five at once.
    """
    path = Path(path)
    parsed = parse_yaml(read_text(path), str(path))
    if parsed.value is None:
        raise StudyError(
            "the study file is empty",
            where=str(path),
            hint="Write one from your data: tunewise init rows.jsonl",
        )
    if not isinstance(parsed.value, dict):
        raise StudyError(
            "a study file is a mapping (lines of `key: value`)",
            where=f"{path}:{parsed.lines[()]}",
            hint="It begins with `name: my-study`.",
        )
    return _loaded(parsed.value, path, path.parent.absolute(), parsed.lines, overrides, flags)


def study_from(
    raw: Mapping[str, Any],
    directory: Path,
    label: str,
    overrides: Sequence[str] = (),
    flags: Flags | None = None,
) -> LoadedStudy:
    """A study that no file holds, checked and resolved as :func:`load_study` does.

    Args:
        raw: its keys, as a study file has them.
        directory: what relative paths are relative to.
        label: what errors call the study where neither a flag nor ``--set`` gave the key.
        overrides, flags: as in ``load_study``.

    Raises:
        StudyError: naming the flag or key; up to five at once.
    """
    return _loaded(raw, Path(label), directory.absolute(), {}, overrides, flags)


def _loaded(
    value: Mapping[str, Any],
    path: Path,
    directory: Path,
    lines: Mapping[KeyPath, int],
    overrides: Sequence[str],
    flags: Flags | None,
) -> LoadedStudy:
    raw = apply_overrides(value, overrides)
    changed = frozenset(_steps(o.partition("=")[0], raw) for o in overrides)
    by_key: dict[KeyPath, str] = {}
    for flag, (key, given) in (flags or {}).items():
        steps = _steps(key, raw)
        _set(raw, steps, given)
        by_key[steps] = flag
    places = Places(str(path), lines, changed, by_key)
    study = _checked(raw, places)
    _checked_numbers(study, places)
    _checked_primary(study, places)
    resolved = _resolved(study, raw, directory, places)
    return LoadedStudy(_checked(resolved, places), path, directory, raw, places)


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
        steps = _steps(key.strip(), changed)
        if not equals or not steps:
            raise StudyError(
                f"{override!r} is not KEY=VALUE",
                where="--set",
                hint="For instance: --set fine_tune.epochs=2",
            )
        _set(changed, steps, parse_value(text))
    return changed


def _set(raw: Any, steps: KeyPath, value: Any) -> None:
    current: Any = raw
    for number, step in enumerate(steps[:-1]):
        current = _inside(current, step, steps[: number + 1])
    if isinstance(current, list) and _in_range(current, steps[-1]):
        current[int(steps[-1])] = value
    elif isinstance(current, dict) and isinstance(steps[-1], str):
        current[steps[-1]] = value
    else:
        raise _leads_nowhere(steps)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the study file, for editors, with all short forms."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Study.model_json_schema(),
    }
    properties, definitions = schema["properties"], schema["$defs"]
    metric = properties["metric"]
    metric["anyOf"] = [{"type": "string"}, {"$ref": metric.pop("$ref")}]
    definitions["FineTune"]["properties"]["reward"]["anyOf"].insert(0, {"type": "string"})
    for alternative in properties["candidates"]["anyOf"]:
        if alternative.get("type") == "array":
            kind = definitions["CandidateSpec"]["properties"]["kind"]
            alternative["items"] = {
                "anyOf": [{"enum": kind["enum"]}, {"$ref": "#/$defs/CandidateSpec"}]
            }
    # A candidate's name is its kind unless it says otherwise, and the other way round.
    candidate = definitions["CandidateSpec"]
    candidate["anyOf"] = [{"required": [key]} for key in candidate.pop("required")]
    return schema


def _checked(raw: Mapping[str, Any], places: Places) -> Study:
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise study_error(complaints_of(error, raw), places) from None
    except RecursionError:
        raise StudyError("the study is nested too deeply", where=places.name) from None


def _checked_numbers(study: Study, places: Places) -> None:
    """Text such as ``nan`` and ``inf`` becomes a number in pydantic's hands; none is meant."""

    def walk(value: Any, path: KeyPath) -> Iterator[Complaint]:
        if isinstance(value, float) and not math.isfinite(value):
            yield Complaint(path, "should be a finite number")
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(inner, (*path, key))
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                yield from walk(inner, (*path, index))

    complaints = list(walk(study.model_dump(), ()))
    if complaints:
        raise study_error(complaints, places)


def _checked_primary(study: Study, places: Places) -> None:
    """The pair that decides: first a candidate with fine-tuning, then one without."""
    if study.primary is None:
        return
    known = {c.name: c.is_fine_tuned for c in study.candidates or []}
    complaints = []
    for index, (name, tuned) in enumerate(zip(study.primary, (True, False), strict=True)):
        if known.get(name) is tuned:
            continue
        what = "with" if tuned else "without"
        fitting = [other for other, is_tuned in known.items() if is_tuned is tuned]
        complaints.append(
            Complaint(
                ("primary", index),
                f"{name!r} is not a candidate {what} fine-tuning",
                f"Write [WITH, WITHOUT]; candidates {what}: {', '.join(fitting) or 'none'}.",
            )
        )
    if complaints:
        raise study_error(complaints, places)


def _resolved(
    study: Study, raw: Mapping[str, Any], directory: Path, places: Places
) -> dict[str, Any]:
    """The values with absolute paths; every file that is named must be there."""
    resolved = copy.deepcopy(dict(raw))
    complaints: list[Complaint] = []
    for path in _file_keys(study):
        value = _get(resolved, path)
        if not isinstance(value, str):
            continue
        kind = "data" if path[0] == "data" and path[-1] != "documents" else "file"
        found = _find(value, directory, kind)
        if found is None:
            target = directory / value
            complaints.append(
                Complaint(path, f"there is no such file: {value}", _missing_hint(target, kind))
            )
        else:
            _put(resolved, path, found)
    for path in _model_keys(study):
        value = _get(resolved, path)
        if isinstance(value, str):
            _put(resolved, path, _model(value, directory))
    if complaints:
        raise study_error(complaints, places)
    return resolved


def _file_keys(study: Study) -> Iterator[KeyPath]:
    for key in ("examples", "train", "dev", "test", "documents"):
        yield ("data", key)
    for index, candidate in enumerate(study.candidates or []):
        yield ("candidates", index, "answers")
        if isinstance(candidate.answers, list):
            for number in range(len(candidate.answers)):
                yield ("candidates", index, "answers", number)
    yield ("costs", "prices")
    yield ("forgetting", "must_pass")
    if study.forgetting.suite != "general":
        yield ("forgetting", "suite")
    yield ("output", "json_schema")
    yield ("fine_tune", "distill", "answers")
    if study.metric.name == "json_fields":
        yield ("metric", "options", "schema")


def _model_keys(study: Study) -> Iterator[KeyPath]:
    yield ("model",)
    for index in range(len(study.candidates or [])):
        yield ("candidates", index, "model")
        yield ("candidates", index, "dense")


def _find(value: str, directory: Path, kind: str) -> str | None:
    try:
        path = directory / Path(value).expanduser()
        if path.exists():
            return str(path)
    except (OSError, ValueError, RuntimeError):
        return None
    if kind == "data" and _may_be_hub(value, directory):
        return value
    return None


def _may_be_hub(value: str, directory: Path) -> bool:
    if value.startswith("hf://"):
        return True
    return (
        _HUB.fullmatch(value) is not None
        and not value.startswith(".")
        and not value.casefold().endswith(_DATA_SUFFIXES)
        and not (directory / value.split("/", 1)[0]).exists()
    )


def _missing_hint(target: Path, kind: str) -> str:
    near = near_names(target)
    hint = near or f"Paths are relative to the study file's folder, {target.parent}."
    if kind == "data" and not near:
        hint += " For a data set on the Hugging Face hub write hf://owner/name."
    return hint


def _model(value: str, directory: Path) -> str:
    """A folder's absolute path; anything else (hub id, ``openai:…``) as it is."""
    if value == "tunewise/tiny" or not value.strip():
        return value
    try:
        path = directory / Path(value).expanduser()
        is_folder = path.is_dir()
    except (OSError, ValueError, RuntimeError):
        return value
    return str(path) if is_folder or value.startswith((".", "~")) else value


def _steps(key: str, raw: Any) -> KeyPath:
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


def _get(raw: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _put(raw: Any, path: KeyPath, value: str) -> None:
    _get(raw, path[:-1])[path[-1]] = value
