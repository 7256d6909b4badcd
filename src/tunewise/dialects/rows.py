"""Where a configuration's rows lie, and what their first ones hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewise.data.messages import is_message, messages_or_text
from tunewise.data.read import SUFFIXES, Part, parts_of, rows_of
from tunewise.errors import DataError

_HUB = re.compile(r"(?:hf://)?[\w.-]+/[\w.-]+")
_LOOKED_AT = 20


def split_source(path: str, split: str, folder: Path | None) -> str:
    """The file of a split, or the hub's name of it, as ``read_examples`` takes it.

    Args:
        path: a folder with a file for each split, a file, or a data set of the hub.
        split: ``train``; of the hub also ``config:train``.
        folder: the configuration's, tried after the working folder.

    Raises:
        DataError: the folder has no file for the split, or nothing has this name.
    """
    for place in _places(path, folder):
        if place.is_dir():
            return str(_file_of(place, split))
        if place.is_file():
            return str(place)
    if _HUB.fullmatch(path):
        config, _, part = split.rpartition(":")
        name = path.removeprefix("hf://") + (f"/{config}" if config else "")
        return f"hf://{name}:{part}"
    raise DataError(
        "there is no such folder, and it is no data set of the hub (owner/name)",
        where=path,
        hint=f"Expected a folder with {split}.csv or {split}.jsonl.",
    )


def _places(path: str, folder: Path | None) -> list[Path]:
    given = Path(path).expanduser()
    places = [given.absolute()]
    if folder is not None and not given.is_absolute():
        places.append(folder / given)
    return places


def _file_of(folder: Path, split: str) -> Path:
    """``train.jsonl``, and so on; else the one file whose name begins with the split."""
    files = sorted(f for f in folder.iterdir() if f.suffix.casefold() in SUFFIXES and f.is_file())
    exact = [f for f in files if f.stem.casefold() == split.casefold()]
    begins = [f for f in files if re.match(rf"{re.escape(split)}\b|{re.escape(split)}_", f.stem)]
    if found := exact or begins:
        return found[0]
    names = ", ".join(f.name for f in files[:8]) or "no files with rows"
    raise DataError(
        f"the folder has no file for the split {split!r}",
        where=str(folder),
        hint=f"It holds {names}; expected {split}.csv, {split}.jsonl or {split}.parquet.",
    )


def first_rows(source: str) -> list[Mapping[str, Any]]:
    """The first rows of a file; empty for a data set of the hub, which nobody has asked yet."""
    if source.startswith("hf://"):
        return []
    found: list[Mapping[str, Any]] = []
    for part in parts_of(source, lambda problem: None):
        if isinstance(part, Part) and len(found) < _LOOKED_AT:
            rows = itertools.islice(rows_of(part), _LOOKED_AT)
            found += [row for _, row in rows if isinstance(row, Mapping)]
    return found


def holds_messages(rows: list[Mapping[str, Any]], column: str) -> bool | None:
    """Whether a column holds conversations; None where no row tells."""
    cells = [messages_or_text(row[column]) for row in rows if row.get(column)]
    if not cells:
        return None
    return all(isinstance(c, list) and bool(c) and all(map(is_message, c)) for c in cells)
