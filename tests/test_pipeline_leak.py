"""Test rows that stand in train: the study ends before anything is measured, and names them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import yaml

from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.report.document import Verdict
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

WORDS = [
    "river",
    "stone",
    "lamp",
    "bridge",
    "garden",
    "letter",
    "coat",
    "bottle",
    "basket",
    "ladder",
    "drum",
    "mirror",
]


def _row(i: int) -> dict[str, str]:
    rng = random.Random(i)
    text = " ".join(rng.choices(WORDS, k=9))
    return {"id": f"row-{i}", "input": text, "output": "in" if "lamp" in text else "out"}


def _verdict(folder: Path, copied: int) -> Verdict:
    test = [_row(i) for i in range(1000, 1200)]
    train = [_row(i) for i in range(300)]
    train += [{**row, "id": f"copy-of-{row['id']}"} for row in test[:copied]]
    for name, rows in (("train", train), ("test", test)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    study = {
        "name": "leaky",
        "metric": "accuracy",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "candidates": ["classifier"],
        # Sixty dev rows, all right, leave up to six points to gain.
        "target": {"minimal_gain": 10},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    workspace = Workspace(folder / "home")
    return run_study(load_study(folder / "study.yaml"), workspace, SilentReporter()).verdict


def test_copied_test_rows_end_the_study_and_are_named(tmp_path: Path) -> None:
    verdict = _verdict(tmp_path, copied=20)
    assert (verdict.verdict, verdict.ended_at, verdict.use) == ("INVALID", "G0", None)
    assert verdict.because == ["leak"]
    assert "10.0 % of the test rows leak" in verdict.headline
    named = {row for f in verdict.audit.findings if "leak" in f.code for row in f.rows}
    assert {f"row-{i}" for i in range(1000, 1020)} <= named
    assert verdict.next_steps


def test_without_copies_the_same_rows_are_fine(tmp_path: Path) -> None:
    verdict = _verdict(tmp_path, copied=0)
    assert (verdict.verdict, verdict.ended_at) == ("DO_NOT_FINE_TUNE", "G1")
    assert verdict.because == ["no_gain"]  # the classifier is right on every dev row
    assert verdict.use == "classifier"
