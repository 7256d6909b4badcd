"""The other commands: help, version, schema, init, audit, clean, routes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cli_support import jsonl, recorded, refused, tunewise
from tunewise import __version__
from tunewise.study.loading import load_study

COMMANDS = (
    "demo", "init", "audit", "run", "report", "forecast", "train", "chat", "use",
    "export", "routes", "schema", "clean", "fsck",
)  # fmt: skip


def test_help_is_quick_light_and_whole(tmp_path: Path) -> None:
    run = tunewise("--help", cwd=tmp_path, env={"COLUMNS": "80"})
    for command in COMMANDS:
        (line,) = re.findall(rf"(?m)^  {command} +(\S.*)$", run.out)
        assert line.endswith(".") and not line.endswith("..."), line  # not cut off
    assert "tunewise demo" in run.out and "tunewise init rows.jsonl" in run.out
    again = tunewise("--help", cwd=tmp_path, process=True)
    assert again.cpu_seconds < 0.6  # 0.2 alone; the bound is loose for busy machines
    assert tunewise("--version", cwd=tmp_path, process=True).out == f"tunewise {__version__}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example(tmp_path: Path, command: str) -> None:
    out = tunewise(command, "--help", cwd=tmp_path).out
    assert re.search(rf"Example: tunewise {command}\b", out)
    assert tunewise(command, "-h", cwd=tmp_path).out == out


def test_without_a_command_the_help_comes(tmp_path: Path) -> None:
    run = tunewise(cwd=tmp_path, code=2, process=True)
    assert "Commands:" in run.out + run.err


def test_the_schema_judges_as_the_program_does(tmp_path: Path) -> None:
    schema = tunewise("schema", cwd=tmp_path).json
    jsonschema.Draft202012Validator.check_schema(schema)
    study = recorded(tmp_path, {"tuned": 0.9, "zero_shot": 0.5}, dev=1, test=3)
    good = yaml.safe_load(study.read_text())
    jsonschema.validate(good, schema)
    jsonschema.validate({**good, "candidates": ["few_shot"], "metric": {"name": "numeric"}}, schema)
    for bad in ({"tarffic": {}}, {"effort": "fast"}, {"target": {"minimal_gain": "lots"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **bad}, schema)
    verdict = tunewise("schema", "--verdict", cwd=tmp_path).json
    jsonschema.Draft202012Validator.check_schema(verdict)
    assert "headline" in verdict["properties"]


def csv(path: Path, header: str, rows: Iterable[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n")


def write_kind(kind: str, folder: Path) -> Path:
    """120 rows of one kind of task."""
    draw, n = random.Random(0), range(120)
    path = folder / "rows.jsonl"
    words = [
        " ".join(draw.choices(["red", "green", "blue", "stone", "river", "cloud", "bird"], k=9))
        for _ in n
    ]
    if kind == "labels":
        rows: Any = [{"text": w, "label": draw.choice(["lost_card", "pin", "fees"])} for w in words]
    elif kind == "lists":
        rows = [{"input": w, "output": json.dumps(w.split()[:2])} for w in words]
    elif kind == "preference":
        rows = [{"prompt": w, "chosen": w[:9], "rejected": "no"} for w in words]
    elif kind == "chat":
        roles = ("user", "assistant")
        rows = [{"messages": [{"role": r, "content": w} for r in roles]} for w in words]
    elif kind == "free text, CSV":
        path = folder / "rows.csv"
        csv(path, "prompt,completion", [f'"Write of {w}, please","{w} and {w}"' for w in words])
        return path
    else:
        path = folder / "rows.json"
        rows = [{"instruction": "Turn it round", "input": w, "output": w[::-1]} for w in words]
        path.write_text(json.dumps(rows))
        return path
    return jsonl(path, rows)


@pytest.mark.parametrize(
    ("kind", "metric", "reason"),
    [
        ("labels", "accuracy", "3 labels"),
        ("lists", "list_f1", "JSON lists"),
        ("free text, CSV", "token_f1", "a sentence or so"),
        ("alpaca, JSON", None, "metric"),
        ("preference", None, "preferences"),
        ("chat", None, "metric"),
    ],
)
def test_init(tmp_path: Path, kind: str, metric: str | None, reason: str) -> None:
    rows = write_kind(kind, tmp_path)
    run = tunewise("init", rows.name, cwd=tmp_path)
    text = (tmp_path / "study.yaml").read_text()
    assert "Next: tunewise run study.yaml" in run.out
    assert "is a toy" in run.out and "init --model" in run.out
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert reason in comments and "candidate" in comments
    study = load_study(tmp_path / "study.yaml").study
    assert Path(study.data.examples or "") == rows
    assert study.candidates and "fine_tuned" in [c.kind for c in study.candidates]
    assert ("classifier" in [c.kind for c in study.candidates]) == (kind in ("labels", "lists"))
    assert metric in (None, study.metric.name)

    before = text
    refused(
        "init", rows.name, cwd=tmp_path, code=2, says=["study.yaml", "there already", "--force"]
    )
    assert (tmp_path / "study.yaml").read_text() == before
    (tmp_path / "study.yaml").write_text("mine")
    tunewise("init", rows.name, "--force", cwd=tmp_path)
    assert (tmp_path / "study.yaml").read_text() == before
    assert not (tmp_path / "home").exists()


def test_init_of_nothing_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    refused("init", "empty.jsonl", cwd=tmp_path, code=3, says=["empty.jsonl: there are no rows"])
    refused("init", "gone.jsonl", cwd=tmp_path, code=3, says=["gone.jsonl: there is no such file"])
    for command in ("init", "audit"):
        says = ["emptie.jsonl: there is no such file", "Did you mean empty.jsonl?"]
        refused(command, "emptie.jsonl", cwd=tmp_path, code=3, says=says)
    assert not (tmp_path / "study.yaml").exists()


BAD: tuple[Mapping[str, str], ...] = (
    {"input": "a question", "output": "an answer"},
    {"input": "a question", "output": "an answer"},
    {"input": "no answer", "output": " "},
    {"input": "write to bob@example.com", "output": "x"},
)


def test_audit_tells_and_mends(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "rows.jsonl", BAD)
    data.write_text(data.read_text() + '{"input": "cut')
    before = data.read_bytes()
    run = tunewise("audit", "rows.jsonl", cwd=tmp_path)
    for text in ("rows.jsonl:3", "rows.jsonl:5", "e-mail", "--fix clean.jsonl", "cut off"):
        assert text in run.out, run.out
    found = tunewise("audit", "rows.jsonl", "--json", "--fix", "clean.jsonl", cwd=tmp_path).json
    codes = {f["code"]: f for f in found["findings"]}
    assert codes["truncated_line"]["rows"] == ["rows.jsonl:5"]
    assert codes["empty_answer"]["severity"] == "error"
    assert found["fixes"]["written"] == 2
    kept = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in kept] == ["an answer", "x"]
    assert data.read_bytes() == before
    again = tunewise("audit", "clean.jsonl", "--json", cwd=tmp_path).json
    assert not [f for f in again["findings"] if f["severity"] == "error"]


def test_audit_refuses_to_overwrite_its_sources(tmp_path: Path) -> None:
    data, test = jsonl(tmp_path / "rows.jsonl", BAD), jsonl(tmp_path / "test.jsonl", BAD[:1])
    kept = data.read_bytes(), test.read_bytes()
    arguments = ["audit", "rows.jsonl", "--test", "test.jsonl", "--json", "--fix"]
    refused(*arguments, "rows.jsonl", cwd=tmp_path, code=2, says=["would overwrite"])
    refused(*arguments, "test.jsonl", cwd=tmp_path, code=2, says=["would overwrite the test rows"])
    refused(*arguments, "clean.csv", cwd=tmp_path, code=2, says=["JSON Lines", ".jsonl"])
    assert (data.read_bytes(), test.read_bytes()) == kept


def test_audit_finds_test_rows_in_train(tmp_path: Path) -> None:
    rows = [{"input": f"The {i}th question of many", "output": "yes"} for i in range(60)]
    jsonl(tmp_path / "train.jsonl", rows)
    jsonl(tmp_path / "test.jsonl", rows[:6] + [{"input": "Something else", "output": "no"}] * 1)
    arguments = ["audit", "train.jsonl", "--test", "test.jsonl"]
    found = tunewise(*arguments, "--json", cwd=tmp_path).json
    assert found["rows"] == {"train": 60, "test": 7}
    leaks = [f for f in found["findings"] if f["severity"] == "error"]
    assert leaks and leaks[0]["count"] == 6
    assert found["mde"] > 10
    assert "gains from about" in tunewise(*arguments, cwd=tmp_path).out


def test_clean_shows_then_frees_old_runs_only(tmp_path: Path) -> None:
    study = recorded(tmp_path, {"tuned": 0.9, "zero_shot": 0.5}, dev=10, test=50)
    assert "No old runs" in tunewise("clean", cwd=tmp_path).out
    assert not (tmp_path / "home").exists()
    for share in (0.95, 0.9):
        recorded(tmp_path, {"tuned": share, "zero_shot": 0.5}, dev=10, test=50)
        tunewise("run", study, "-q", cwd=tmp_path)
    studies = tmp_path / "home" / "studies" / "quick"
    (studies / "training").mkdir()
    newest = max(studies.glob("*/verdict.json"), key=lambda p: p.stat().st_mtime_ns).parent
    shown = tunewise("clean", cwd=tmp_path).out
    assert "tunewise clean --yes" in shown and newest.name not in shown
    assert len(list(studies.glob("*/verdict.json"))) == 2
    assert "Removed 1 folder" in tunewise("clean", "--yes", cwd=tmp_path).out
    assert [p.parent for p in studies.glob("*/verdict.json")] == [newest]
    assert (studies / "training").is_dir()
    assert (tmp_path / "home" / "test-ledger.jsonl").exists()  # what was opened stays opened
    tunewise("clean", "--keep", "-1", cwd=tmp_path, code=2)
    told = tunewise("report", study, "--json", cwd=tmp_path).json
    assert told["verdict"] == "FINE_TUNE"


def test_routes(tmp_path: Path) -> None:
    assert "local" in tunewise("routes", cwd=tmp_path).out
    assert list(tmp_path.iterdir()) == []


def test_clean_tells_and_removes_trainings_and_answers(tmp_path: Path) -> None:
    root = tmp_path / "home"
    training, answers = root / "studies" / "s" / "training" / "a", root / "answers"
    model = root / "models" / "some-model"
    for folder in (training, answers, model):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(bytes(2_000_000))
    shown = tunewise("clean", cwd=tmp_path).out
    assert "studies/s/training  2" in shown and "answers  2" in shown and "--all" in shown
    tunewise("clean", "--yes", cwd=tmp_path)
    assert training.exists() and answers.exists() and model.exists()
    assert "--yes --all" in tunewise("clean", "--all", cwd=tmp_path).out
    assert "Removed 3 folders" in tunewise("clean", "--all", "--yes", cwd=tmp_path).out
    assert not training.exists() and not answers.exists() and not model.exists()
