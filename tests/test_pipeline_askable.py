"""Rows that the base model cannot be asked stop a study at its first gate, or are told there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from models_support import save_model
from tunewise.errors import DataError
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

WORDS = ("fire", "ice", "sun", "snow")


def _study(folder: Path, broken: int) -> Path:
    """Forty rows, of whose test rows the first ``broken`` are longer than the model's context."""
    save_model(folder / "model")

    def line(number: int, split: str) -> str:
        long = split == "test" and number < broken
        text = f"{split} note {number}: {WORDS[number % 4]}" + " and so on" * (400 if long else 0)
        label = "warm" if number % 2 == 0 else "cold"
        return json.dumps({"input": text, "output": label, "split": split})

    sizes = {"train": 16, "dev": 8, "test": 24}
    rows = [line(number, split) for split, size in sizes.items() for number in range(size)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    study = {
        "name": "asked",
        "use_case": "Tell warm from cold.",
        "model": "./model",
        "data": {"examples": "rows.jsonl"},
        "metric": "accuracy",
        "candidates": ["zero_shot", "classifier"],
        "output": {"max_tokens": 2},
        "effort": "quick",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def test_most_rows_too_long_stop_the_study_before_anything_is_asked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home")
    with pytest.raises(DataError) as error:
        run_study(load_study(_study(tmp_path, 5)), workspace, SilentReporter())
    said = str(error.value)
    assert "5 of 32 rows have a prompt that" in said and "context is" in said
    assert "rows.jsonl:25" in said and "rows.jsonl:29" in said
    assert not list((tmp_path / "home").rglob("fit-*.json")), "something was asked"


def test_a_few_are_told_on_the_screen_and_in_the_document(tmp_path: Path) -> None:
    reporter = SilentReporter()
    outcome = run_study(load_study(_study(tmp_path, 2)), Workspace(tmp_path / "home"), reporter)
    (told,) = [text for text in reporter.warnings if "cannot be asked" in text]
    assert told.startswith("2 rows cannot be asked") and "rows.jsonl:26" in told
    assert told in outcome.verdict.warnings
