"""What `tunewise train` and `tunewise audit --tokens` tell whoever uses them."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli_support import jsonl, refused, tunewise
from training_support import save_small_model, word_examples
from tunewise.cli import progress as cli_progress
from tunewise.cli.show_training import show_training
from tunewise.errors import DataError
from tunewise.pipeline.alone import Tuned, train_study
from tunewise.pipeline.following import Follower, wait
from tunewise.pipeline.quick import training_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.report.document import TrainingRun
from tunewise.routes.base import open_route
from tunewise.routes.local import LocalRoute
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.workspace import Workspace

ROWS = [{"id": f"r{i}", "prompt": f"red green {i}", "completion": "green red"} for i in range(12)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    save_small_model(folder / "model")
    jsonl(folder / "rows.jsonl", ROWS)
    pair = {"prompt": "red", "chosen": "green", "rejected": "blue sun"}
    jsonl(folder / "pairs.jsonl", [pair])
    return folder


def _job(place: Path, tmp_path: Path, model: Path | None = None) -> TrainingJob:
    return TrainingJob(
        model=str(model or place / "model"),
        examples=word_examples(32),
        dev=(),
        fine_tune=FineTune(batch_size=4),
        learning_rate=1e-3,
        epochs=400,
        seed=0,
        output=tmp_path / "run",
        threads=1,
    )


@pytest.mark.parametrize("row", ["3", "r2"])
def test_a_row_is_found_by_number_and_by_id(place: Path, row: str) -> None:
    run = tunewise("audit", "rows.jsonl", "--tokens", row, "--model", "model", cwd=place)
    assert "⟦green red<|im_end|>⟧" in run.out  # without colours, marks stand around what is learnt
    assert "r2: " in run.out
    everything = ["--trained-rows", "all", "--json"]
    run = tunewise(
        "audit", "rows.jsonl", "--tokens", row, "--model", "model", *everything, cwd=place
    )
    (answer,) = run.json["answers"]
    assert [t["weight"] for t in answer["tokens"]] == [0.0] + [1.0] * (len(answer["tokens"]) - 1)
    assert run.json["source"] == "rows.jsonl:3"


def test_a_preference_row_shows_both_answers(place: Path) -> None:
    flags = ["--tokens", "1", "--model", "model"]
    run = tunewise("audit", "pairs.jsonl", *flags, cwd=place)
    assert "⟦green<|im_end|>⟧" in run.out and "⟦blue sun<|im_end|>⟧" in run.out
    tunewise("audit", "pairs.jsonl", *flags, "--html", "pair.html", cwd=place)
    page = (place / "pair.html").read_text("utf-8")
    assert "<h2>Answer that is wanted</h2>" in page and "<h2>Answer that is not wanted</h2>" in page


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--tokens", "13"], 2, ["there is no row 13", "from 1 to 12"]),
        (["--tokens", "1", "--trained-rows", "some"], 2, ["'some'", "all_assistant"]),
        (["--tokens", "1", "--model", "openai:gpt-x"], 3, ["runs on a server"]),
        (["--tokens", "1", "--html", "rows.jsonl/page.html"], 3, ["rows.jsonl"]),
        (["--tokens", "1", "--fix", "out.jsonl"], 2, ["--fix", "goes without --tokens"]),
        (["--html", "page.html"], 2, ["--html", "goes with --tokens"]),
    ],
)
def test_what_cannot_be_shown_is_refused(
    place: Path, flags: list[str], code: int, says: list[str]
) -> None:
    model = [] if "--model" in flags else ["--model", "model"]
    refused("audit", "rows.jsonl", *model, *flags, cwd=place, code=code, says=says)


def test_a_place_that_cannot_hold_the_weights_is_refused_before_training(place: Path) -> None:
    flags = ["train", "rows.jsonl", "--model", "model", "--out", "rows.jsonl/tuned"]
    run = refused(*flags, cwd=place, code=2, says=["no folder can be made here", "--out"])
    assert "rows to learn from" not in run.err


@pytest.mark.parametrize("command", ["run", "forecast"])
def test_rows_are_no_study(place: Path, command: str) -> None:
    says = ["a file with rows, not a study", "tunewise init", "tunewise train"]
    refused(command, "rows.jsonl", cwd=place, code=2, says=says)


def test_why_every_row_was_left_out(place: Path, tmp_path: Path) -> None:
    turns = [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]
    rows = jsonl(tmp_path / "rows.jsonl", [{"messages": turns}] * 3)
    study = training_study(str(rows), {"--model": ("model", str(place / "model"))})
    with pytest.raises(DataError) as error:
        train_study(study, Workspace(tmp_path / "home"), SilentReporter())
    assert "role 'human'" in str(error.value) and "assistant" in str(error.value)


def test_labels_that_are_wrong_are_named_by_file_and_line(place: Path) -> None:
    flags = ["--model", "model", "--method", "dpo", "--dev", "none"]
    refused("train", "rows.jsonl", *flags, cwd=place, code=3, says=["rows.jsonl:1", "(12 rows)"])


def test_a_model_without_a_chat_template_is_told(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    job = _job(place, tmp_path, tmp_path / "base")
    assert [f.code for f in LocalRoute().check(job)] == ["no_chat_template"]
    assert LocalRoute().check(_job(place, tmp_path)) == []


def test_a_forecast_alone_trains_nothing(place: Path, tmp_path: Path) -> None:
    home = {"TUNEWISE_HOME": str(tmp_path)}
    flags = ["--model", "model", "--epochs", "2", "--forecast", "--json"]
    told = tunewise("train", "rows.jsonl", *flags, cwd=place, env=home).json
    assert told["steps"] > 0 and told["seconds"] > 0 and told["peak_memory_bytes"] > 1e6
    assert told["tries"] == 3 and told["tries_seconds"] == pytest.approx(1.02 * told["seconds"])
    assert not list(tmp_path.rglob("*.safetensors"))
    refused("train", "rows.jsonl", *flags, "--explain", cwd=place, code=2, says=["--explain"])


def test_a_reward_that_tells_nothing_apart_is_told(place: Path, tmp_path: Path) -> None:
    flags: dict[str, tuple[str, Any]] = {
        "--model": ("model", str(place / "model")),
        "--method": ("fine_tune.method", "grpo"),
        "--epochs": ("fine_tune.epochs", 1.0),
        "--learning-rate": ("fine_tune.learning_rate", 1e-3),
    }
    more = ["fine_tune.reward=exact_match", "fine_tune.grpo={samples: 2, max_tokens: 1}"]
    study = training_study(str(place / "rows.jsonl"), flags, more)
    reporter = SilentReporter()
    tuned = train_study(study, Workspace(tmp_path), reporter, with_dev=False)
    assert [w for w in reporter.warnings if "nothing was learnt" in w]
    assert tuned.figures["groups_skipped"] == tuned.figures["groups"]


def test_sigterm_pauses_what_trains(place: Path, tmp_path: Path) -> None:
    handle = open_route("local").submit(_job(place, tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        wait(handle, lambda: os.kill(os.getpid(), signal.SIGTERM), pause=True)
    assert signal.getsignal(signal.SIGTERM) is before
    assert handle.status().state == "paused"


class _Lines(SilentReporter):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_what_matters_of_the_events_is_told() -> None:
    lines, done = _Lines(), list[tuple[int, int]]()
    follow = Follower(lines, lambda step, total: done.append((step, total)))
    follow({"event": "path", "path": "plain", "reason": "its layers mix tokens otherwise"})
    follow({"event": "resume", "step": 7, "total_steps": 9})
    follow({"event": "memory", "fits": False, "recompute": True, "longest": 9000})
    finding = {"severity": "warning", "message": "too long", "count": 2, "rows": ["a", "b"]}
    follow({"event": "finding", "split": "train", **finding})
    follow({"event": "finding", "split": "dev", **finding})
    for step in range(1, 101):
        follow({"event": "step", "step": step, "total_steps": 100, "loss": 1.0})
    assert done[-1] == (100, 100)
    assert [text.split(" ")[0] for text in lines.notes] == ["one", "goes"]  # no losses unasked
    assert "9,000 tokens" in lines.warnings[0] and lines.warnings[1].startswith("dev: too long")
    assert len(lines.warnings) == 2
    follow = Follower(lines, lambda step, total: None, losses=True)
    for step in range(1, 101):
        follow({"event": "step", "step": step, "total_steps": 100, "loss": 1.0})
    assert [text for text in lines.notes if text.startswith("step 10 of 100: loss 1.000")]
    assert len(lines.notes) == 2 + 11


def test_a_log_tells_how_far_a_task_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress, "_LOG_SECONDS", 0.0)
    out = io.StringIO()
    with cli_progress.TerminalReporter(Console(file=out, width=100)).task("training") as progress:
        progress(0, 4)
        progress(1, 4)
        progress(4, 4)
    assert "training: 1 of 4, about" in out.getvalue() and "0 of 4" not in out.getvalue()


@pytest.mark.parametrize(
    ("chosen", "says"), [(0.005, "[0.005, 0.01, 0.02]"), (5e-4, "[0.000125, 0.00025, 0.0005]")]
)
def test_a_learning_rate_at_the_edge_is_told(
    chosen: float, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = TrainingRun(
        candidate="fine_tuned",
        route="local",
        method="sft",
        model="m",
        seed=0,
        learning_rate=chosen,
        epochs=1.0,
        steps=1,
        tokens=9,
        seconds=1.0,
        tuned_model="there/adapter",
    )
    losses = {5e-4: 2.0, 0.002: None, 0.005: 1.0}
    tried = [{"learning_rate": rate, "dev_loss": loss} for rate, loss in losses.items()]
    tuned = Tuned(run, {"train": 9, "dev": 2, "test": 0}, "cut", Path("there/adapter"), tried)
    show_training(tuned, as_json=False)
    out = capsys.readouterr().out
    assert says in out and "0.002: failed" in out and "1 step," in out
    show_training(tuned, as_json=True)
    assert json.loads(capsys.readouterr().out)["tried"] == tried
