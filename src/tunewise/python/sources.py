"""What a caller of the library may give: files by name, rows as mappings, studies as mappings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.errors import DataError
from tunewise.workspace import Workspace, write_text_atomic

if TYPE_CHECKING:
    from tunewise.study.loading import Flags, LoadedStudy

Rows = Iterable[Mapping[str, Any]]
"""Rows as mappings, in any form that a file of rows may have."""

_SOURCES = ("examples", "train", "dev", "test", "documents")


def as_file(data: str | Path | Rows, workspace: Workspace) -> str:
    """The name of a file with these rows; rows as mappings are kept in the workspace, by content.

    Raises:
        DataError: a row is no mapping, or cannot be written as JSON.
    """
    if isinstance(data, str | Path):
        return str(data)
    lines = []
    for number, row in enumerate(data, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {number} is a {type(row).__name__}, not a mapping",
                hint='Give rows such as {"input": "…", "output": "…"} or {"messages": […]}.',
            )
        try:
            lines.append(json.dumps(dict(row), ensure_ascii=False, default=_plain))
        except (TypeError, ValueError) as error:
            raise DataError(f"row {number} cannot be written as JSON: {error}") from None
    text = "".join(f"{line}\n" for line in lines)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    path = workspace.root / "rows" / f"rows-{digest}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text_atomic(path, text)
    return str(path)


def _plain(value: object) -> object:
    """Numbers of numpy and torch as Python's."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def as_study(
    study: str | Path | Mapping[str, Any] | LoadedStudy, workspace: Workspace, set: Sequence[str]
) -> LoadedStudy:
    """A study from its file or its keys, checked.

    Raises:
        StudyError, DataError: with the key and what was probably meant.
    """
    from tunewise.study.loading import LoadedStudy, load_study, study_from

    if isinstance(study, LoadedStudy):
        return study_from(study.raw, study.directory, str(study.path), set) if set else study
    if isinstance(study, str | Path):
        return load_study(study, overrides=list(set))
    raw = dict(study)
    data = raw.get("data")
    if isinstance(data, Mapping):
        raw["data"] = {
            key: as_file(value, workspace)
            if key in _SOURCES and not isinstance(value, str) and value is not None
            else value
            for key, value in data.items()
        }
    return study_from(raw, Path.cwd(), "the study", list(set))


def as_flags(given: Mapping[str, tuple[str, Any]]) -> Flags:
    """Arguments that stand for keys of a study, those that were given."""
    return {name: pair for name, pair in given.items() if pair[1] is not None}
