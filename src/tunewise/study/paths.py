"""The files and folders that a study names: found, and made absolute."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunewise.errors import StudyError
from tunewise.study.complaints import Complaint, Places, study_error
from tunewise.study.parts import SCORERS
from tunewise.study.schema import Metric, Study
from tunewise.study.yaml_source import KeyPath, near_names

_HUB = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)?(:[\w.\[\]%-]+)?")
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".parquet")


def with_paths(
    study: Study, raw: Mapping[str, Any], directory: Path, places: Places
) -> dict[str, Any]:
    """The values with absolute paths.

    Raises:
        StudyError: a file that is named is not there; all of them at once.
    """
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
    for option in _file_options(study.metric):
        yield ("metric", "options", option)
    for index, metric in enumerate(study.also):
        for option in _file_options(metric):
            yield ("also", index, "options", option)


def _file_options(metric: Metric) -> tuple[str, ...]:
    """Options of a metric that name files. What is wrong with a metric is told where it is
    made."""
    if not metric.options:
        return ()
    try:
        return tuple(getattr(SCORERS.load(metric.name), "files", ()))
    except StudyError:
        return ()


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
        and not value.casefold().endswith(DATA_SUFFIXES)
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


def _get(raw: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _put(raw: Any, path: KeyPath, value: str) -> None:
    _get(raw, path[:-1])[path[-1]] = value
