"""The report on disk: written whole or not at all, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from tunewise.errors import WorkspaceError
from tunewise.report.document import SCHEMA, Verdict
from tunewise.report.html import render_html
from tunewise.report.rows import TestRows
from tunewise.study.requirements import complaint
from tunewise.workspace import StudyFolder, read_json, write_text_atomic


class ReportPaths(NamedTuple):
    """Where a verdict's renderings lie."""

    verdict: Path
    report: Path


def write_report(verdict: Verdict, directory: Path, rows: TestRows | None = None) -> ReportPaths:
    """Write ``verdict.json`` and ``report.html`` into ``directory``, each atomically.

    Args:
        rows: the test rows that the page lets a reader browse.

    Both are rendered before either is written, so that a failure leaves the old pair in place.

    Raises:
        WorkspaceError: when the disk is full or the folder cannot be written.
    """
    folder = StudyFolder(directory)
    page = render_html(verdict, rows)
    write_text_atomic(folder.verdict, verdict.to_json())
    write_text_atomic(folder.report, page)
    return ReportPaths(folder.verdict, folder.report)


def read_verdict(path: Path) -> Verdict:
    """The verdict in a ``verdict.json``.

    Raises:
        WorkspaceError: when the file is missing, not JSON, or of another schema.
    """
    try:
        value = read_json(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise WorkspaceError(
            "there is no verdict here", where=str(path), hint="Run the study: tunewise run STUDY."
        ) from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise WorkspaceError(
            f"this is not a verdict that this version reads (schema {schema!r}, not {SCHEMA!r})",
            where=str(path),
            hint="Run the study again with this version, or read it with the one that wrote it.",
        )
    try:
        return Verdict.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"])
        raise WorkspaceError(
            f"damaged verdict: {place} {complaint(first, 'an object')}",
            where=str(path),
            hint="Delete the file; `tunewise report` makes it again.",
        ) from error
