"""A change of a study file does again what it can change, and nothing else: shown by counters."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from models_support import save_model
from tunewise.data.chat import Completion, Request
from tunewise.models.local_engine import LocalEngine
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, report_study, run_study
from tunewise.routes.local import LocalRoute
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

PRICES = """\
date: 2026-11-01
source: a test
models: {}
training:
  local: {usd_per_hour: 1.0}
"""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many requests the model answered and how many training runs were submitted."""
    counts: Counter[str] = Counter()
    answer, submit = LocalEngine.iterate_rows, LocalRoute.submit

    def iterate_rows(
        self: LocalEngine, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion, Any]]:
        counts["requests"] += len(requests)
        return answer(self, requests)

    def submitted(self: LocalRoute, job: Any) -> Any:
        counts["trainings"] += not (job.output / "training.json").exists()
        return submit(self, job)

    monkeypatch.setattr(LocalEngine, "iterate_rows", iterate_rows)
    monkeypatch.setattr(LocalRoute, "submit", submitted)
    return counts


def rows(n: int, start: int = 0) -> str:
    lines = []
    for i in range(start, start + n):
        word = ("fire", "ice", "sun", "snow", "coal", "hail")[i % 6]
        warm = (i % 2 == 0) != (i % 7 == 0)
        answer = "warm" if warm else "cold"
        lines.append(json.dumps({"input": f"Note {i}: {word}.", "output": answer}))
    return "\n".join(lines) + "\n"


class Project:
    """A study in a folder, changed and run again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "workspace")
        self.text: dict[str, Any] = {
            "name": "warm",
            "model": "./model",
            "prompt": "Warm or cold?",
            "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
            "metric": "accuracy",
            "candidates": ["zero_shot", "fine_tuned"],
            "fine_tune": {"epochs": 1, "learning_rate": 0.005},
            "forgetting": {"suite": None},
            "output": {"max_tokens": 3},
            "effort": "quick",
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
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has been run."""
    folder = tmp_path_factory.mktemp("finished")
    project = Project(folder)
    project.write()
    outcome = project.run()
    assert outcome.verdict.ended_at == "G5" and outcome.verdict.test.opened == 1
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """The same study with all that it left, elsewhere: that it was moved plays no part."""
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    return Project(folder)


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
    }
    for key, value in changes.items():
        reported = report_study(project.load(**{key: value}), project.workspace)
        again = project.run()
        assert again.folder == first.folder and reported.verdict.test.opened == 1
    assert counted == Counter()
    assert (project.workspace.root / "test-ledger.jsonl").read_bytes() == ledger
    assert again.verdict.use_case == "Tell warm from cold."
    assert again.verdict.primary.minimal_gain == 3.0 != first.verdict.primary.minimal_gain
    assert again.verdict.primary.gain == first.verdict.primary.gain
    assert again.verdict.study_hash != first.verdict.study_hash


def test_another_prompt_asks_trains_and_looks_again(
    project: Project, counted: Counter[str]
) -> None:
    again = project.run(prompt="Which of the two is it, warm or cold?")
    assert counted["requests"] >= 2 * (12 + 20) and counted["trainings"] == 1
    assert again.verdict.test.opened == 2
    assert any("opened 2 times" in text for text in again.verdict.warnings)


def test_another_metric_scores_again_and_asks_nothing(
    project: Project, counted: Counter[str]
) -> None:
    again = project.run(metric="exact_match")
    assert counted == Counter()
    assert again.verdict.metric == "exact_match" and again.verdict.test.opened == 2


def test_another_candidate_is_asked_alone(project: Project, counted: Counter[str]) -> None:
    project.run()
    counted.clear()
    other = {"kind": "zero_shot", "name": "terse", "prompt": "warm/cold:"}
    again = project.run(candidates=["zero_shot", other, "fine_tuned"])
    assert counted["trainings"] == 0
    # Two wordings on dev, the better one on test; the others' answers are kept.
    assert counted["requests"] == 2 * 12 + 20
    assert again.verdict.test.opened == 2


def test_a_model_replaced_in_place_is_asked_again(project: Project, counted: Counter[str]) -> None:
    first = project.run()
    save_model(project.folder / "model", num_hidden_layers=2)
    again = project.run()
    assert counted["requests"] > 0 and counted["trainings"] == 1
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
