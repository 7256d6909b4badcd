"""Rows longer than the limit: few are told wherever a verdict is shown, many stop the run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from models_support import save_model
from tunewise.errors import TrainingError
from tunewise.pipeline.alone import train_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.report.html import render_html
from tunewise.study.loading import LoadedStudy, load_study
from tunewise.workspace import Workspace


def _rows(n: int, start: int, long: int = 0) -> str:
    """Rows with the answer half of the time not told by the question; ``long`` of them long."""
    draw = random.Random(start)
    rows = []
    for i in range(n):
        told = draw.choice(("yes", "no"))
        answer = told if i % 3 else draw.choice(("yes", "no"))
        text = f"note {start + i} says {told} " + ("and more " * 60 if i < long else "")
        rows.append({"input": text, "output": answer, "id": f"r{start + i}"})
    return "".join(json.dumps(row) + "\n" for row in rows)


def _study(folder: Path, long: int, **fine_tune: Any) -> LoadedStudy:
    save_model(folder / "model")
    for name, start, count in (("train", 0, 40), ("dev", 1000, 16), ("test", 2000, 20)):
        text = _rows(count, start, long if name == "train" else 0)
        (folder / f"{name}.jsonl").write_text(text)
    study = {
        "name": "long",
        "model": "./model",
        "data": {name: f"{name}.jsonl" for name in ("train", "dev", "test")},
        "metric": "accuracy",
        "candidates": ["classifier", "fine_tuned"],
        "fine_tune": {"epochs": 1, "learning_rate": 0.005, "max_length": 96, **fine_tune},
        "forgetting": {"suite": None},
        "output": {"max_tokens": 2},
        "effort": "quick",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return load_study(path)


def test_few_are_told_in_document_and_report(tmp_path: Path) -> None:
    loaded = _study(tmp_path, long=3)
    verdict = run_study(loaded, Workspace(tmp_path / "ws"), SilentReporter()).verdict
    assert verdict.training and verdict.ended_at == "G5"
    for run in verdict.training:
        assert (run.rows, run.rows_left_out) == (37, {"too_long": 3})
    told = "fine_tuned: 3 of 40 rows are left out of the training: longer than the limit."
    assert told in verdict.warnings
    page = render_html(verdict)
    assert told in page and "37; 3 left out" in page


@pytest.mark.parametrize("long", [5, 40])
def test_more_than_a_tenth_stops_the_run_with_the_cure(tmp_path: Path, long: int) -> None:
    loaded = _study(tmp_path, long)
    for act in (run_study, train_study):
        with pytest.raises(TrainingError, match=r"more than a tenth.*limit is 96") as error:
            act(loaded, Workspace(tmp_path / "ws"), SilentReporter())
        assert str(error.value.where).endswith("fine_tune.max_length")
        assert "max_length" in str(error.value.hint) and "train.jsonl:1" in str(error.value.hint)
    assert not list((tmp_path / "ws").glob("studies/*/training/*/training.json"))


def test_pairs_count_as_one_row(tmp_path: Path) -> None:
    loaded = _study(tmp_path, 0, method="kto")
    pairs = [
        {
            "prompt": f"note {i} " + "and more " * (60 if i < 2 else 0),
            "chosen": "a",
            "rejected": "b",
        }
        for i in range(20)
    ]
    for name, part in (("train", pairs), ("dev", pairs[10:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(p) + "\n" for p in part))
    tuned = train_study(loaded, Workspace(tmp_path / "ws"), SilentReporter(), with_dev=False)
    assert tuned.run.rows_left_out == {"too_long": 2}
