"""The demonstrations, as a newcomer runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewise.demo import run_demo, write_demo
from tunewise.errors import UsageError
from tunewise.pipeline.reporter import SilentReporter
from tunewise.workspace import Workspace

EXPECTED = {
    "format": ("FINE_TUNE", "fine_tuned"),
    "knowledge": ("DO_NOT_FINE_TUNE", "rag"),
    "pattern": ("DO_NOT_FINE_TUNE", "few_shot"),
}


def _run(kind: str, seed: int, folder: Path) -> tuple[str, str | None]:
    runs = run_demo([kind], folder, seed, SilentReporter(), Workspace(folder / "home"))
    verdict = runs[0].outcome.verdict
    assert runs[0].outcome.report.is_file()
    return verdict.verdict, verdict.use


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", EXPECTED)
def test_three_tasks_three_answers(kind: str, tmp_path: Path) -> None:
    assert _run(kind, 0, tmp_path) == EXPECTED[kind]


def test_a_changed_file_is_kept(tmp_path: Path) -> None:
    study = write_demo("pattern", tmp_path, 0)
    changed = study.read_text() + "\nseed: 3\n"
    study.write_text(changed)
    assert write_demo("pattern", tmp_path, 0).read_text() == changed


def test_an_unknown_demonstration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="poem"):
        write_demo("poem", tmp_path, 0)


@pytest.mark.soak
@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_answers_do_not_hang_on_the_seed(kind: str, seed: int, tmp_path: Path) -> None:
    assert _run(kind, seed, tmp_path) == EXPECTED[kind]
