"""Several studies to put side by side: study files that were run, or what they left on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.errors import UsageError, WorkspaceError
from tunewise.pipeline.run import report_study
from tunewise.report.comparison import Compared, Comparison, compare
from tunewise.report.files import read_verdict
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace


def compare_studies(paths: Sequence[Path], workspace: Workspace) -> Comparison:
    """Compare studies that were run.

    Args:
        paths: study files, whose verdicts are computed again from the workspace, offline;
            ``verdict.json`` files, or folders that hold one.

    Raises:
        UsageError: there are fewer than two.
        WorkspaceError: one was not run as it stands, or its verdict is damaged.
        StudyError: a study file is wrong.
    """
    if len(paths) < 2:
        raise UsageError(
            "a comparison needs two studies or more",
            hint="Example: tunewise compare small.yaml large.yaml",
        )
    return compare([_compared(path, workspace) for path in paths])


def _compared(path: Path, workspace: Workspace) -> Compared:
    if path.is_dir():
        found = path / "verdict.json"
        if not found.exists():
            raise WorkspaceError(
                "there is no verdict.json in this folder",
                where=str(path),
                hint="Name a study file, a verdict.json, or the folder that holds one.",
            )
        return Compared(path.name, read_verdict(found))
    if path.suffix == ".json":
        verdict = read_verdict(path)
        return Compared(verdict.study, verdict)
    loaded = load_study(path)
    settings = {
        key: value.removeprefix(f"{loaded.directory}/") if isinstance(value, str) else value
        for key, value in _flat(loaded.study.model_dump(mode="json", by_alias=True))
    }
    return Compared(path.stem, report_study(loaded, workspace).verdict, settings)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted keys, candidates by their names; nothing that is not set."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif key == "candidates":
        for spec in value:
            name = spec.get("name") or spec["kind"]
            yield from _flat({**spec, "name": None}, f"{key}.{name}")
    elif value is not None:
        yield key, value
