"""Small studies on generated data: three offline with the embedded model, one with a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tunewise.errors import UsageError
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.run import Outcome, run_study
from tunewise.study.loading import load_study
from tunewise.synthetic.demo import KINDS, DemoFiles, generate
from tunewise.synthetic.tickets import generate_tickets
from tunewise.workspace import Workspace, write_text_atomic

REAL = "real"
"""The demonstration on a real model, which is brought first and so never run unasked."""


@dataclass(frozen=True)
class DemoRun:
    """One demonstration: its study file and what came of it."""

    kind: str
    study: Path
    outcome: Outcome


def write_demo(kind: str, directory: Path, seed: int) -> Path:
    """Write a demonstration's data and study file to ``directory/kind``; return the study file.

    Files that are there already with other content are kept, so that a changed study is not lost.

    Raises:
        UsageError: an unknown kind.
    """
    if kind not in KINDS:
        raise UsageError(
            f"there is no demonstration called {kind!r}",
            hint=f"Choose from: {', '.join((*KINDS, REAL))}.",
        )
    return _write(generate(kind, seed), directory / kind)


def write_real(directory: Path, seed: int, model: str) -> Path:
    """As ``write_demo``, of the demonstration on a real model, in ``directory/real``.

    Args:
        model: its name, as a study writes it.
    """
    return _write(generate_tickets(model, seed), directory / REAL)


def _write(made: DemoFiles, folder: Path) -> Path:
    study = folder / "study.yaml"
    texts = {folder / name: text for name, text in made.files.items()}
    texts[study] = yaml.safe_dump(made.study, sort_keys=False, allow_unicode=True, width=100)
    for path, text in texts.items():
        if not path.exists():
            write_text_atomic(path, text)
    return study


def run_demo(
    kinds: Sequence[str],
    directory: Path,
    seed: int,
    reporter: Reporter,
    workspace: Workspace | None = None,
) -> list[DemoRun]:
    """Write and run demonstrations; all of them where none is named."""
    studies = {kind: write_demo(kind, directory, seed) for kind in kinds or KINDS}
    workspace = workspace or Workspace()
    runs = []
    for kind, study in studies.items():
        reporter.note(f"{kind}: {study}")
        runs.append(DemoRun(kind, study, run_study(load_study(study), workspace, reporter)))
    return runs


def run_real(
    directory: Path, seed: int, reporter: Reporter, model: str, workspace: Workspace
) -> DemoRun:
    """Write and run the demonstration on a real model."""
    study = write_real(directory, seed, model)
    reporter.note(f"{REAL}: {study}")
    return DemoRun(REAL, study, run_study(load_study(study), workspace, reporter))
