"""What a caller of the library may give: files by name, rows as mappings, studies as mappings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.errors import DataError, UsageError
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
    raw = _with_files(dict(study), workspace)
    return study_from(raw, Path.cwd(), "the study", list(set))


def keyed_study(
    study: str | Path | Mapping[str, Any] | LoadedStudy | None,
    workspace: Workspace,
    set: Sequence[str],
    rows: str | Path | Rows | None,
    keys: Mapping[str, Any],
) -> LoadedStudy:
    """A study from itself or from rows, with keys given by name.

    Raises:
        UsageError: neither a study, nor rows, nor keys; or a study and rows.
        StudyError, DataError: as ``as_study``.
    """
    from tunewise.study.loading import load_study, study_from

    if study is not None and rows is not None:
        raise UsageError(
            "give a study or rows, not both", where="rows", hint="Rows of a study are its `data`."
        )
    if rows is not None:
        return as_study({**_proposed(rows, workspace, keys.get("model")), **keys}, workspace, set)
    if study is None:
        if not keys:
            raise UsageError(
                "nothing says what to run",
                hint="Give a study file, `rows=`, or a study's keys, such as `name=` and `data=`.",
            )
        return as_study(keys, workspace, set)
    if not keys:
        return as_study(study, workspace, set)
    if isinstance(study, Mapping):
        return as_study({**study, **keys}, workspace, set)
    if isinstance(study, str | Path):
        study = load_study(study)
    # Rows given as mappings become files; paths stay relative to where the study's file lies.
    raw = _with_files({**study.raw, **keys}, workspace)
    return study_from(raw, study.directory, str(study.path), list(set))


def _proposed(rows: str | Path | Rows, workspace: Workspace, model: object) -> dict[str, Any]:
    from tunewise.data.propose import propose
    from tunewise.models.names import TINY

    return propose(as_file(rows, workspace), model=TINY if model is None else str(model)).study


def _with_files(raw: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """A study's keys with rows that were given as mappings as files' names."""
    data = raw.get("data")
    if isinstance(data, Mapping):
        raw["data"] = {
            key: str(Path(as_file(value, workspace)).absolute())
            if key in _SOURCES and not isinstance(value, str) and value is not None
            else value
            for key, value in data.items()
        }
    return raw


def as_flags(given: Mapping[str, tuple[str, Any]]) -> Flags:
    """Arguments that stand for keys of a study, those that were given."""
    return {name: pair for name, pair in given.items() if pair[1] is not None}
