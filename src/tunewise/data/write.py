"""Rows written to disk: whole or not at all, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tunewise.errors import WorkspaceError

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON Lines, UTF-8 without a byte-order mark; returns how many.

    Raises:
        WorkspaceError: the file cannot be written; an earlier one then stays as it was.
    """

    def write(file: TextIO) -> int:
        count = 0
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        return count

    return _atomically(path, write)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write a CSV file whose cells no spreadsheet takes for formulas; returns the rows written.

    Raises:
        WorkspaceError: the file cannot be written; an earlier one then stays as it was.
    """

    def write(file: TextIO) -> int:
        writer = csv.writer(file)
        writer.writerow([csv_cell(name) for name in header])
        count = 0
        for row in rows:
            writer.writerow([csv_cell(cell) for cell in row])
            count += 1
        return count

    return _atomically(path, write)


def csv_cell(value: object) -> object:
    """Text that a spreadsheet would run gets an apostrophe before it (OWASP, CSV injection).

    Numbers, also negative ones, stay numbers.
    """
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def _atomically(path: Path, write: Callable[[TextIO], int]) -> int:
    """Write beside the target, flush to disk, then rename."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with open(handle, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123
            count = write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        return count
    except OSError as error:
        _remove(temporary)
        raise WorkspaceError(
            f"the file cannot be written: {error.strerror or error}", where=str(path)
        ) from None
    except BaseException:
        _remove(temporary)
        raise


def _remove(name: str | None) -> None:
    if name is not None:
        Path(name).unlink(missing_ok=True)
