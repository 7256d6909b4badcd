"""What is a further look at the test, and what each candidate's answers hang on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewise.data.read import read_examples
from tunewise.pipeline.inputs import StageInputs
from tunewise.pipeline.ledger import open_test
from tunewise.pipeline.prepare import old_hash, row_keys
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.session import Session
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

SERVERS = {"house": {"base_url": "http://localhost:8001/v1"}}


def rows(n: int, start: int = 0, **more: Any) -> list[dict[str, Any]]:
    words = ("fire", "ice", "sun", "snow")
    return [
        {"input": f"Note {i}: {words[i % 4]}.", "output": ("warm", "cold")[i % 2], **more}
        for i in range(start, start + n)
    ]


class Project:
    """A study of three candidates in a folder; nothing of it is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study: dict[str, Any] = {
            "name": "warm",
            "model": "tunewise/tiny",
            "prompt": ["Warm or cold?", "Which is it?"],
            "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
            "metric": "accuracy",
            "candidates": ["zero_shot", "fine_tuned", "classifier", {"kind": "rag", "name": "rag"}],
            "output": {"max_tokens": 3},
            "servers": SERVERS,
        }
        for name, n in (("train", 40), ("dev", 12), ("test", 20)):
            self.write(name, rows(n, 1000 * len(name)))
        self.study["data"]["documents"] = "documents.txt"
        (folder / "documents.txt").write_text("Fire is warm.\n")

    def write(self, name: str, of: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in of)
        (self.folder / f"{name}.jsonl").write_text(text)

    def read(self, name: str) -> list[dict[str, Any]]:
        lines = (self.folder / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def session(self) -> Session:
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(self.study))
        return Session(load_study(path), Workspace(self.folder / "ws"), SilentReporter())

    def inputs(self) -> StageInputs:
        return self.session().inputs

    def of(self, name: str) -> Any:
        session = self.session()
        return session.inputs.candidate(session.spec(name))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def rename_the_test(project: Project) -> None:
    (project.folder / "test.jsonl").rename(project.folder / "held-out.jsonl")
    project.study["data"]["test"] = "held-out.jsonl"


def turn_the_test_round(project: Project) -> None:
    project.write("test", project.read("test")[::-1])


def add_a_server(project: Project) -> None:
    project.study["servers"] = {**SERVERS, "idle": {"base_url": "http://localhost:9/v1"}}


def move_an_unused_server(project: Project) -> None:
    project.study["servers"] = {"house": {"base_url": "http://localhost:8002/v1"}}


def tell_a_tracker(project: Project) -> None:
    project.study["fine_tune"] = {"report_to": ["tensorboard"]}


def set_another_method(project: Project) -> None:
    project.study["fine_tune"] = {"dpo": {"beta": 0.3}}


@pytest.mark.parametrize(
    "change",
    [
        rename_the_test,
        turn_the_test_round,
        add_a_server,
        move_an_unused_server,
        tell_a_tracker,
        set_another_method,
    ],
)
def test_where_no_answer_can_change_there_is_no_look(
    project: Project, change: Callable[[Project], None]
) -> None:
    before = project.inputs()
    look, experiment = before.look(), before.experiment()
    change(project)
    assert project.inputs().look() == look
    assert project.inputs().experiment() == experiment, "the same folder, all of it stands"


def test_another_name_of_a_candidate_is_no_look_but_another_folder(project: Project) -> None:
    before = project.inputs()
    look, experiment = before.look(), before.experiment()
    project.study["candidates"][0] = {"kind": "zero_shot", "name": "plain"}
    assert project.inputs().look() == look
    assert project.inputs().experiment() != experiment


def replace_a_test_row(project: Project) -> None:
    project.write("test", [*project.read("test")[1:], *rows(1, 9999)])


def want_another_answer(project: Project) -> None:
    first, *more = project.read("test")
    project.write("test", [first | {"output": "neither"}, *more])


def give_the_metric_another_reference(project: Project) -> None:
    first, *more = project.read("test")
    project.write("test", [first | {"note": "lukewarm counts"}, *more])


def learn_from_other_rows(project: Project) -> None:
    project.write("train", rows(40, 7000))


def score_otherwise(project: Project) -> None:
    project.study["metric"] = "exact_match"


def train_longer(project: Project) -> None:
    project.study["fine_tune"] = {"epochs": 4}


def search_other_documents(project: Project) -> None:
    (project.folder / "documents.txt").write_text("Ice is cold.\n")


@pytest.mark.parametrize(
    "change",
    [
        replace_a_test_row,
        want_another_answer,
        give_the_metric_another_reference,
        learn_from_other_rows,
        score_otherwise,
        train_longer,
        search_other_documents,
    ],
)
def test_where_an_answer_or_a_score_can_change_there_is_a_look(
    project: Project, change: Callable[[Project], None]
) -> None:
    before = project.inputs()
    look, experiment = before.look(), before.experiment()
    change(project)
    assert project.inputs().look() != look
    assert project.inputs().experiment() != experiment


def test_a_server_counts_where_it_is_asked(project: Project) -> None:
    project.study["candidates"] = ["classifier", {"kind": "zero_shot", "model": "house:m"}]
    look = project.inputs().look()
    project.study["servers"] = {"house": {"base_url": "http://localhost:8002/v1"}}
    assert project.inputs().look() != look


def test_a_server_counts_where_it_judges(project: Project) -> None:
    project.study["metric"] = {"name": "judge", "options": {"model": "house:m"}}
    look = project.inputs().look()
    project.study["servers"] = {"house": {"base_url": "http://localhost:8002/v1"}}
    assert project.inputs().look() != look


def test_a_data_set_of_the_hub_that_changes_under_its_name_is_a_look(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(project.folder)  # where `datasets` looks before it asks the hub
    folder = project.folder / "owner" / "set"
    folder.mkdir(parents=True)
    lines = [json.dumps(row) for row in rows(20, 500)]
    (folder / "test.jsonl").write_text("\n".join(lines))
    project.study["data"]["test"] = "hf://owner/set:test"
    before = project.inputs()
    look, experiment, data = before.look(), before.experiment(), before.data()
    assert project.inputs().look() == look
    (folder / "test.jsonl").write_text("\n".join([*lines[1:], json.dumps(rows(1, 600)[0])]))
    after = project.inputs()
    assert after.look() != look and after.experiment() != experiment and after.data() != data


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"fine_tune": {"epochs": 4}}, {"fine_tuned"}),
        ({"fine_tune": {"hosted": {"suffix": "mine"}}}, set()),
        ({"output": {"max_tokens": 9}}, {"zero_shot", "fine_tuned", "rag"}),
        ({"prompt": ["Warm or cold?", "Well?"]}, {"zero_shot", "rag"}),
        ({"servers": {**SERVERS, "idle": {"base_url": "http://localhost:9/v1"}}}, set()),
        ({"metric": "exact_match"}, {"zero_shot", "fine_tuned", "classifier", "rag"}),
        ({"effort": "quick"}, {"zero_shot", "fine_tuned", "rag"}),
        ({"primary": ["fine_tuned", "zero_shot"]}, set()),
        ({"documents": "Ice is cold.\n"}, {"rag"}),
    ],
)
def test_a_candidate_hangs_on_what_its_own_answers_hang_on(
    project: Project, change: dict[str, Any], changed: set[str]
) -> None:
    names = ("zero_shot", "fine_tuned", "classifier", "rag")
    before = {name: project.of(name) for name in names}
    if "documents" in change:
        (project.folder / "documents.txt").write_text(change["documents"])
    else:
        project.study |= change
    assert {name for name in names if project.of(name) != before[name]} == changed


def test_a_sweep_hangs_on_no_metric(project: Project) -> None:
    def sweep() -> Any:
        session = project.session()
        return session.inputs.learning(session.spec("fine_tuned"))

    before = sweep()
    project.study |= {"metric": "exact_match", "output": {"max_tokens": 9}}
    assert sweep() == before
    project.write("train", rows(40, 7000))
    assert sweep() != before


def test_lines_of_an_earlier_release_count_where_they_can_be_read_and_are_told_where_not(
    project: Project,
) -> None:
    session = project.session()
    test = list(read_examples(project.folder / "test.jsonl"))
    (project.folder / "ws").mkdir()
    ledger = project.folder / "ws" / "test-ledger.jsonl"
    lines = [
        {"rows": old_hash(test), "study": "warm", "study_hash": "one"},
        {"rows": old_hash(test[:5]), "study": "part", "study_hash": "two"},
        {"rows": "f" * 64, "study": "other", "study_hash": "three"},
    ]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert open_test(session) == 2, "the old look at the same rows, and this one"
    told = session.reporter.warnings  # type: ignore[attr-defined]
    assert len(told) == 1 and "part, other" in told[0] and "fresh test rows" in told[0]
    assert "warm" not in told[0]
    assert open_test(session) == 2 and len(told) == 1, "told once, counted once"
    looks = session.workspace.test_looks(row_keys(test, "warm"), all_rows=old_hash(test))
    assert [look["study"] for look in looks] == ["warm", "warm"]
