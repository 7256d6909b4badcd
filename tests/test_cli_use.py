"""`tunewise use`: the command that a study ends with, run as printed, answers as the study did."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli_support import Run, recorded, refused, tunewise
from models_support import save_model
from test_pipeline_local import _rows

ROWS = 3
QUICK = ("study.yaml", "--set", "effort=quick")


def command(folder: Path, *arguments: object, code: int = 0) -> Run:
    """The command, with the workspace that all tests here share."""
    return tunewise(*arguments, cwd=folder, env={"TUNEWISE_HOME": str(folder / "ws")}, code=code)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with every kind that can be asked."""
    folder = tmp_path_factory.mktemp("used")
    save_model(folder / "model")
    for name, n, start in (("train", 60, 0), ("dev", 20, 1000), ("test", 24, 2000)):
        (folder / f"{name}.jsonl").write_text(_rows(n, start))
    (folder / "texts").mkdir()
    (folder / "texts" / "weather.md").write_text("Fire and soup are warm. Snow and hail are cold.")
    study = {
        "name": "warm",
        "model": "./model",
        "prompt": "Is it warm or cold?",
        "data": {
            **{part: f"{part}.jsonl" for part in ("train", "dev", "test")},
            "documents": "texts",
        },
        "metric": "accuracy",
        "candidates": [
            "zero_shot",
            {"kind": "few_shot", "k": [2], "selection": ["nearest"]},
            {"kind": "rag", "k": [1]},
            "classifier",
            "fine_tuned",
        ],
        "fine_tune": {"epochs": 1, "learning_rate": 0.005},
        "output": {"max_tokens": 4},
        "prompt_search": 0,
        "forgetting": {"suite": None},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command(folder, "run", *QUICK, "-q")
    return folder


def answered(folder: Path, candidate: str) -> list[tuple[str, str]]:
    """Questions of test rows with the answers that the study was given."""
    questions = [json.loads(x)["input"] for x in (folder / "test.jsonl").read_text().splitlines()]
    (items,) = folder.rglob(f"items/{candidate}.test.jsonl")
    answers = [json.loads(x)["answer"] for x in items.read_text().splitlines()]
    return list(zip(questions, answers, strict=True))[:ROWS]


@pytest.mark.parametrize(
    "kind", ["constant", "zero_shot", "few_shot", "rag", "classifier", "fine_tuned"]
)
def test_each_kind_answers_as_in_the_study(studied: Path, kind: str) -> None:
    for question, answer in answered(studied, kind):
        run = command(studied, "use", *QUICK, "--candidate", kind, question)
        assert run.out == f"{answer}\n"


def test_the_printed_command_is_run_as_printed(studied: Path) -> None:
    verdict = command(studied, "report", *QUICK, "--json").json
    (step,) = [s for s in verdict["next_steps"] if s.startswith("Try it: tunewise ")]
    printed = shlex.split(step.removeprefix("Try it: tunewise "))
    assert printed == ["use", *QUICK]
    for question, answer in answered(studied, verdict["use"]):
        assert command(studied, *printed, question).out == f"{answer}\n"


def test_what_a_training_prints_answers_as_it_was_trained(tmp_path: Path) -> None:
    rows = ["Frage;Antwort", *(f"Wie groß {i}?;Größe {i}" for i in range(20))]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    prompt = "Answer with the size that stands in the question, and with nothing else. " * 4
    study = {
        "name": "sizes",
        "model": "tunewise/tiny",
        "prompt": prompt.strip(),
        "data": {"examples": "rows.csv", "columns": {"input": "Frage", "output": "Antwort"}},
        "metric": "exact_match",
        "candidates": ["fine_tuned"],
        "fine_tune": {"learning_rate": 0.005},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    told = command(tmp_path, "train", "study.yaml", "-q").out
    (line,) = [x for x in told.splitlines() if x.startswith("Try it: tunewise ")]
    printed = shlex.split(line.removeprefix("Try it: tunewise "))
    assert printed[printed.index("--system") + 1] == prompt.strip()  # however long it is
    for i in (3, 7, 15):
        assert command(tmp_path, *printed, "-m", f"Wie groß {i}?").out == f"Größe {i}\n"


@pytest.mark.parametrize("kind", ["zero_shot", "fine_tuned", "classifier", "constant"])
def test_an_export_answers_as_in_the_study(studied: Path, tmp_path: Path, kind: str) -> None:
    out = studied / f"out-{kind}"
    run = command(studied, "export", *QUICK, "--candidate", kind, "--out", out)
    assert f"Wrote {out / 'ask.py'}\n" in run.out
    moved = shutil.move(out, tmp_path / "elsewhere")  # nothing in it points to where it was made
    if kind in ("zero_shot", "fine_tuned"):
        asked = json.loads((moved / "prompt.json").read_text())
        assert str(studied / "ws") not in json.dumps(asked)
        assert asked["date"]
    python = [sys.executable] if (moved / "prompt.json").exists() else [sys.executable, "-I", "-S"]
    for question, answer in answered(studied, kind):
        ask = [*python, str(moved / "ask.py"), question]
        assert subprocess.run(ask, capture_output=True, text=True).stdout == f"{answer}\n"


def test_what_is_no_prompt_is_not_exported(studied: Path) -> None:
    flags = ("--candidate", "few_shot", "--out", "nowhere")  # each question has its nearest shots
    said = " ".join(command(studied, "export", *QUICK, *flags, code=2).err.split())
    assert "alike for every question" in said
    assert "tunewise use study.yaml --set effort=quick --candidate few_shot QUESTION" in said
    assert not (studied / "nowhere").exists()


def test_a_right_answer_has_a_hundred_points(studied: Path) -> None:
    verdict = command(studied, "report", *QUICK, "--json").json
    scores = {a["score"] for e in verdict["examples"] for a in e["answers"]}
    assert scores == {0.0, 100.0}
    (page,) = studied.rglob("report.html")
    assert '<span class="tag good">right</span>' in page.read_text()


def test_what_cannot_be_asked_says_why(tmp_path: Path, studied: Path) -> None:
    unrun = command(studied, "use", "study.yaml", "?", "--set", "seed=7", code=3)
    assert "has not been run as it stands now" in unrun.err
    unknown = command(studied, "use", *QUICK, "?", "--candidate", "zero", code=2)
    assert "It has zero_shot, few_shot" in unknown.err
    study = recorded(tmp_path, {"tuned": 0.9, "zero_shot": 0.5})
    steps = tunewise("run", study, "--json", cwd=tmp_path).json["next_steps"]
    assert not any("tunewise use" in step for step in steps)
    refused("use", study, "?", cwd=tmp_path, code=2, says=["answers were recorded elsewhere"])
