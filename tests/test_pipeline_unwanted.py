"""Answers that are labelled as not wanted are never taken for wanted ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli_support import tunewise
from models_support import save_model
from tunewise.errors import DataError
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.pipeline.session import open_session
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

RIGHT, WRONG = ("yes", "no"), "certainly not"


def rows(n: int, unwanted: int) -> str:
    """KTO rows; the first ``unwanted`` of each ten are not wanted."""
    lines = []
    for i in range(n):
        bad = i % 10 < unwanted
        row = {"prompt": f"Is note {i} here?", "completion": WRONG if bad else RIGHT[i % 3 == 0]}
        lines.append(json.dumps({**row, "label": not bad}) + "\n")
    return "".join(lines)


def study(folder: Path, unwanted: int, **changes: Any) -> Path:
    (folder / "rows.jsonl").write_text(rows(120, unwanted))
    text = {
        "name": "kto",
        "data": {"examples": "rows.jsonl"},
        "metric": "exact_match",
        "candidates": ["classifier"],
        "effort": "quick",
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def test_they_are_no_reference_and_no_rows_of_a_classifier(tmp_path: Path) -> None:
    loaded = load_study(study(tmp_path, 4))
    with open_session(loaded, Workspace(tmp_path / "ws"), SilentReporter()) as session:
        for part in (session.train, session.dev, session.test):
            assert part and {row.answer for row in part} == set(RIGHT)
        assert {row.answer for row in session.prepared.unwanted} == {WRONG}
        assert session.prepared.unwanted_count == 48
    outcome = run_study(loaded, Workspace(tmp_path / "ws"), SilentReporter())
    assert any("48 rows labelled as not wanted" in w for w in outcome.verdict.warnings)


@pytest.mark.parametrize(("method", "learns"), [("sft", False), ("kto", True)])
def test_only_kto_learns_from_them(tmp_path: Path, method: str, learns: bool) -> None:
    save_model(tmp_path / "model")
    path = study(
        tmp_path,
        4,
        model="./model",
        candidates=["zero_shot", "fine_tuned"],
        fine_tune={"method": method},
    )
    with open_session(load_study(path), Workspace(tmp_path / "ws"), SilentReporter()) as session:
        tuner = session.tuner(session.spec("fine_tuned"))
        assert (WRONG in {row.answer for row in tuner.train}) is learns
        assert {row.answer for row in tuner.dev} == set(RIGHT)


def test_a_fine_tune_alone_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(rows(60, 5))
    flags = ["--model", "./model", "--epochs", "1", "--learning-rate", "0.001"]
    run = tunewise("train", "rows.jsonl", *flags, cwd=tmp_path)
    told = " ".join((run.out + run.err).split())
    assert "30 rows left out: the answer is labelled as not wanted" in told
    (tmp_path / "rows.jsonl").write_text(rows(20, 10))
    run = tunewise("train", "rows.jsonl", *flags, cwd=tmp_path, code=3)
    assert "`method: kto` learns from such rows" in run.err


def test_a_test_of_unwanted_answers_alone_is_refused(tmp_path: Path) -> None:
    loaded = load_study(study(tmp_path, 10))
    with pytest.raises(DataError, match="labelled as not wanted"):
        run_study(loaded, Workspace(tmp_path / "ws"), SilentReporter())


def test_init_proposes_kto_and_refuses_rows_without_a_wanted_answer(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(rows(120, 4))
    run = tunewise("init", "rows.jsonl", cwd=tmp_path)
    written = yaml.safe_load((tmp_path / "study.yaml").read_text())
    assert written["fine_tune"] == {"method": "kto"} and "method kto" in run.out
    (tmp_path / "none.jsonl").write_text(rows(20, 10))
    run = tunewise("init", "none.jsonl", "--out", "none.yaml", cwd=tmp_path, code=3)
    assert "all 20 answers are labelled as not wanted" in run.err


def test_the_file_that_went_wrong(shared: Path, tmp_path: Path) -> None:
    file = shared / "cases" / "kto_all_unwanted.jsonl"
    run = tunewise("init", file, cwd=tmp_path, code=3)
    assert "labelled as not wanted" in run.err
    run = tunewise("train", file, "--model", "tunewise/tiny", cwd=tmp_path, code=3)
    assert "no rows to learn from" in run.err
