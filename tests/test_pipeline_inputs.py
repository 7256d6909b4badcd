"""A change of a study file does again what it can change, and nothing else: shown by counters."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from models_support import save_model
from tunewise.data.chat import Completion, Request
from tunewise.models.local_engine import LocalEngine
from tunewise.pipeline.kept_trainings import bring
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, report_study, run_study
from tunewise.routes import local
from tunewise.study.loading import load_study
from tunewise.training import forecast as training_forecast
from tunewise.training.job import TrainingJob
from tunewise.training.job_files import read_job
from tunewise.training.loop import Run
from tunewise.workspace import Workspace

PRICES = """\
date: 2026-11-01
source: a test
models: {}
training:
  local: {usd_per_hour: 1.0}
"""


class House(BaseHTTPRequestHandler):
    """A served model: it is asked over HTTP, and every request is counted."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        self.asked[self.path] += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        warm = any(w in body["messages"][-1]["content"] for w in ("fire", "sun", "coal"))
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "warm" if warm else "cold"},
                }
            ],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture(scope="module")
def house() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), House) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Requests that the model on this machine answered, and trainings that really ran.

    A learning rate is tried in this process, a fine-tune runs in one that is started for it.
    """
    counts: Counter[str] = Counter()
    answer, here, elsewhere = LocalEngine.iterate_rows, Run.run, local.start

    def iterate_rows(
        self: LocalEngine, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion, Any]]:
        counts["requests"] += len(requests)
        return answer(self, requests)

    def run(self: Run) -> Any:
        counts["tries"] += 1
        return here(self)

    def start(kind: Any, folder: Path) -> Any:
        counts["trainings"] += 1
        return elsewhere(kind, folder)

    monkeypatch.setattr(LocalEngine, "iterate_rows", iterate_rows)
    monkeypatch.setattr(Run, "run", run)

    def measure(kind: Any, folder: Path) -> Any:
        counts["forecasts"] += 1
        return elsewhere(kind, folder)

    monkeypatch.setattr(local, "start", start)
    monkeypatch.setattr(training_forecast, "start", measure)
    return counts


def rows(n: int, start: int = 0) -> str:
    lines = []
    for i in range(start, start + n):
        word = ("fire", "ice", "sun", "snow", "coal", "hail")[i % 6]
        warm = (i % 2 == 0) != (i % 7 == 0)
        answer = "warm" if warm else "cold"
        row = {"input": f"Note {i}: {word}.", "output": answer, "part": "ab"[i % 2]}
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


class Project:
    """A study in a folder, changed and run again."""

    def __init__(self, folder: Path, house: str) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "workspace")
        self.text: dict[str, Any] = {
            "name": "warm",
            "model": "./model",
            "prompt": "Warm or cold?",
            "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
            "metric": "accuracy",
            "candidates": [
                "zero_shot",
                {"name": "house", "kind": "zero_shot", "model": "house:m", "prompt": "Which?"},
                "fine_tuned",
            ],
            "servers": {"house": {"base_url": house}},
            "fine_tune": {"epochs": 1, "learning_rate": [0.005, 0.01]},
            "forgetting": {"suite": None},
            "output": {"max_tokens": 3},
            "effort": "quick",
            "prompt_search": 0,
        }

    def write(self) -> None:
        save_model(self.folder / "model")
        for name, n in (("train", 40), ("dev", 12), ("test", 20)):
            (self.folder / f"{name}.jsonl").write_text(rows(n, 1000 * len(name)))

    def load(self, **changes: Any) -> Any:
        self.text |= changes
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(self.text))
        return load_study(path)

    def run(self, **changes: Any) -> Outcome:
        return run_study(self.load(**changes), self.workspace, SilentReporter())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, house: str) -> Path:
    """The folder of a study that has been run."""
    folder = tmp_path_factory.mktemp("finished")
    project = Project(folder, house)
    project.write()
    outcome = project.run()
    assert outcome.verdict.ended_at == "G5" and outcome.verdict.test.opened == 1
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, house: str) -> Project:
    """The same study with all that it left, elsewhere: that it was moved plays no part."""
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    House.asked.clear()
    return Project(folder, house)


def test_prose_prices_and_traffic_change_the_document_alone(
    project: Project, counted: Counter[str]
) -> None:
    first = project.run()
    assert counted == Counter()
    ledger = (project.workspace.root / "test-ledger.jsonl").read_bytes()
    (project.folder / "prices.yaml").write_text(PRICES)
    changes = {
        "use_case": "Tell warm from cold.",
        "traffic": {"requests_per_month": 1000, "value_per_correct": 0.5},
        "costs": {"prices": "prices.yaml", "hour": 50, "hours": 2, "label": 0.1, "labels": 3},
        "target": {"minimal_gain": 3.0},
        "slices": "part",
        "also": ["exact_match"],
    }
    before = first.verdict_json.read_bytes()
    for key, value in changes.items():
        reported = report_study(project.load(**{key: value}), project.workspace)
        again = project.run()
        assert again.folder == first.folder and reported.verdict.test.opened == 1
        assert again.verdict_json.read_bytes() != before, "the document says so"
        before = again.verdict_json.read_bytes()
    assert counted == Counter() and House.asked == Counter()
    assert (project.workspace.root / "test-ledger.jsonl").read_bytes() == ledger
    assert again.verdict.use_case == "Tell warm from cold."
    assert again.verdict.primary.minimal_gain == 3.0 != first.verdict.primary.minimal_gain
    assert again.verdict.primary.gain == first.verdict.primary.gain
    assert again.verdict.study_hash != first.verdict.study_hash


def test_another_prompt_asks_trains_and_looks_again(
    project: Project, counted: Counter[str]
) -> None:
    again = project.run(prompt="Which of the two is it, warm or cold?")
    assert counted["requests"] >= 2 * (12 + 20)
    assert (counted["tries"], counted["trainings"], counted["forecasts"]) == (2, 1, 1)
    assert House.asked == Counter(), "it has a prompt of its own"
    assert again.verdict.test.opened == 2
    assert any("This is look 2" in text for text in again.verdict.warnings)


def test_another_metric_scores_again_and_asks_and_trains_nothing(
    project: Project, counted: Counter[str]
) -> None:
    again = project.run(metric="exact_match")
    assert counted == Counter() and House.asked == Counter()
    assert again.verdict.metric == "exact_match" and again.verdict.test.opened == 2


def test_another_candidate_is_asked_alone(project: Project, counted: Counter[str]) -> None:
    project.run()
    counted.clear()
    other = {"kind": "zero_shot", "name": "terse", "prompt": "warm/cold:"}
    again = project.run(candidates=[*project.text["candidates"], other])
    assert counted["trainings"] == counted["tries"] == 0 and House.asked == Counter()
    # Two wordings on dev, the better one on test; the others' answers are kept.
    assert counted["requests"] == 2 * 12 + 20
    assert again.verdict.test.opened == 2


def test_what_prompts_are_held_to_and_tried_asks_prompted_models_alone(
    project: Project, counted: Counter[str]
) -> None:
    more = project.run(prompt_search=1)
    held = {c.name: c.chosen["held_to"] for c in more.verdict.candidates if not c.constant}
    assert len(set(held.values())) == 1, "the tuned model is held to what the others are"
    # One more wording on dev for each of the two; the house's answers to the others are kept.
    assert 12 <= counted["requests"] <= 12 + 20
    assert counted["trainings"] == counted["tries"] == 0
    counted.clear()
    free = project.run(prompt_search=0, output={"max_tokens": 3, "constrain": False})
    assert counted["requests"] >= 12, "answers that were held to a form are others"
    assert counted["trainings"] == counted["tries"] == 0
    assert all("held_to" not in c.chosen for c in free.verdict.candidates)


def test_another_learning_rate_is_tried_alone(project: Project, counted: Counter[str]) -> None:
    project.run(fine_tune={"epochs": 1, "learning_rate": [0.005, 1e-9, 0.01]})
    assert (counted["tries"], counted["trainings"]) == (1, 0), "one that learns nothing loses"


def test_another_name_finds_what_was_trained(project: Project, counted: Counter[str]) -> None:
    first = project.run()
    again = project.run(name="warmer")
    assert counted == Counter() and House.asked == Counter()
    assert again.verdict.study == "warmer" and again.verdict.test.opened == 1
    assert again.verdict.primary.gain == first.verdict.primary.gain
    trained = Path(again.verdict.training[0].tuned_model)
    assert trained.is_relative_to(project.workspace.root / "studies" / "warmer")
    # Each of the two can be removed alone.
    shutil.rmtree(project.workspace.root / "studies" / "warm")
    assert project.run(metric="exact_match").verdict.metric == "exact_match"
    assert counted == Counter()


def test_only_a_finished_training_of_the_same_content_is_taken(
    project: Project, tmp_path: Path
) -> None:
    (result,) = project.workspace.root.glob("studies/warm/training/*/training.json")
    job = read_job(result.parent / "job")
    mine = replace(job, output=tmp_path / "studies" / "mine" / "training" / result.parent.name)
    theirs = tmp_path / "studies" / "theirs" / "training" / result.parent.name
    shutil.copytree(result.parent, theirs)

    def brought(job: TrainingJob) -> bool:
        bring(job)
        there = job.output.exists()
        shutil.rmtree(job.output, ignore_errors=True)
        return there

    assert brought(mine)
    assert not brought(replace(mine, seed=7)), "other weights, whatever its folder is called"
    text = (theirs / "training.json").read_text()
    (theirs / "training.json").write_text(text[:-40])
    assert not brought(mine)
    (theirs / "training.json").write_text(text)
    (theirs / "status.json").write_text('{"state": "running", "pid": 1}')
    assert not brought(mine)


def test_test_rows_in_another_order_and_file_ask_nothing_and_are_no_look(
    project: Project, counted: Counter[str]
) -> None:
    first = project.run()
    test = project.folder / "test.jsonl"
    lines = test.read_text().splitlines()
    test.unlink()
    (project.folder / "held-out.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    again = project.run(data={**project.text["data"], "test": "held-out.jsonl"})
    assert counted == Counter() and House.asked == Counter()
    assert again.folder == first.folder and again.verdict.test.opened == 1
    assert again.verdict.primary.gain == first.verdict.primary.gain


def test_a_model_replaced_in_place_is_asked_again(project: Project, counted: Counter[str]) -> None:
    first = project.run()
    save_model(project.folder / "model", num_hidden_layers=2)
    again = project.run()
    assert counted["requests"] > 0 and (counted["tries"], counted["trainings"]) == (2, 1)
    assert again.folder == first.folder and again.verdict.test.opened == 2


def test_rows_added_to_the_test_are_a_further_look(project: Project, counted: Counter[str]) -> None:
    with (project.folder / "test.jsonl").open("a") as file:
        file.write(rows(5, 9000))
    assert project.run().verdict.test.opened == 2


def test_scores_of_two_studies_with_equal_ids_are_two_tests(tmp_path: Path) -> None:
    opened = []
    for name in ("mine", "yours"):
        for system in ("a", "b"):
            lines = [json.dumps({"id": f"row-{i}", "score": i % 2}) for i in range(30)]
            (tmp_path / f"{name}-{system}.jsonl").write_text("\n".join(lines) + "\n")
        study = {
            "name": name,
            "metric": "accuracy",
            "candidates": [
                {"name": "base", "kind": "recorded", "answers": f"{name}-a.jsonl"},
                {
                    "name": "tuned",
                    "kind": "recorded",
                    "answers": f"{name}-b.jsonl",
                    "fine_tuned": True,
                },
            ],
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(study))
        outcome = run_study(load_study(path), Workspace(tmp_path / "ws"), SilentReporter())
        opened.append(outcome.verdict.test.opened)
    assert opened == [1, 1]
