"""Rows tested fold by fold: every row once, by what never saw it; where a test shows little."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewise.data.chat import Example
from tunewise.data.split import split_folds
from tunewise.errors import StudyError
from tunewise.pipeline.folds import Folds, gates_of
from tunewise.pipeline.measured import Measured
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import plan_study, report_study, run_study
from tunewise.pipeline.session import open_session
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

WORDS = ("ice", "fire", "sun", "snow", "coal", "hail", "lava", "frost")


def rows(n: int) -> list[dict[str, Any]]:
    warm = {"fire", "sun", "coal", "lava"}
    found = []
    for i in range(n):
        word = WORDS[(i * 7) % 8]
        found.append(
            {"input": f"Note {i} of {word}.", "output": "warm" if word in warm else "cold"}
        )
    return found


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "ws")
        self.study: dict[str, Any] = {
            "name": "s",
            "metric": "accuracy",
            "candidates": ["classifier", "constant"],
            "data": {"examples": "rows.jsonl"},
        }
        self.write(rows(90))

    def write(self, found: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in found)
        (self.folder / "rows.jsonl").write_text(text)

    def load(self, split: Any = None, **changes: Any) -> Any:
        study = self.study | changes
        if split is not None:
            study = study | {"data": study["data"] | {"split": split}}
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(study))
        return load_study(path)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def examples(n: int, group: int = 1) -> list[Example]:
    return [
        Example(
            id=f"r{i}",
            messages=(
                {"role": "user", "content": f"{WORDS[i % 8]} {i * i} {WORDS[i // 8 % 8]} {i}"},
                {"role": "assistant", "content": "yes"},
            ),
            group=f"g{i // group}" if group > 1 else None,
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("group", [1, 4])
def test_every_row_is_tested_once_and_no_group_is_torn(group: int) -> None:
    made = split_folds(examples(100, group), 5)
    assert Counter(row.id for fold in made for row in fold.test) == Counter(
        f"r{i}" for i in range(100)
    )
    for fold in made:
        parts = [{row.id for row in part} for part in (fold.train, fold.dev, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 100
        assert 16 <= len(fold.test) <= 24 and len(fold.dev) >= 8 and len(fold.train) >= 55
        if group > 1:
            groups = [{row.group for row in part} for part in (fold.train, fold.dev, fold.test)]
            assert not groups[0] & groups[2] and not groups[1] & groups[2]
    again = split_folds(examples(100, group)[::-1], 5)
    assert [{r.id for r in f.test} for f in again] == [{r.id for r in f.test} for f in made]


def test_shares_are_taken_as_given(project: Project) -> None:
    with open_session(
        project.load({"test": 0.5, "dev": 0.2}), project.workspace, SilentReporter()
    ) as s:
        assert (len(s.train), len(s.dev), len(s.test)) == (27, 18, 45)


def test_folds_are_chosen_by_what_a_test_can_show(project: Project) -> None:
    def chosen(split: Any, n: int) -> tuple[bool, str]:
        project.write(rows(n))
        with open_session(project.load(split), project.workspace, SilentReporter()) as session:
            why = session.prepared.split.how["why"]
            return isinstance(gates_of(session), Folds), why

    folds, why = chosen("auto", 90)
    assert folds and "One test of 30 of the 90 rows shows gains from about 22.9 points" in why
    folds, why = chosen("auto", 900)
    assert not folds and "One test of 200 rows" in why
    folds, why = chosen(None, 90)
    assert not folds and "`data.split: {folds: 5}`" in why, "offered, not taken"
    assert chosen({"folds": 3}, 900)[0]


def test_a_study_in_folds(project: Project) -> None:
    loaded = project.load({"folds": 3})
    verdict = run_study(loaded, project.workspace, SilentReporter()).verdict
    assert verdict.test.n == 90 and verdict.test.opened == 1
    assert verdict.audit.rows["test"] == 90 and verdict.audit.rows["train"] < 60
    assert verdict.audit.split is not None and "3 folds" in verdict.audit.split
    row = next(c for c in verdict.candidates if c.name == "classifier")
    assert (row.measured_on, row.n) == ("test", 90) and row.score is not None
    assert len(row.chosen["folds"]) == 3
    reported = report_study(project.load({"folds": 3}), project.workspace).verdict
    assert reported.model_dump(exclude={"created"}) == verdict.model_dump(exclude={"created"})
    again = run_study(project.load({"folds": 3}), project.workspace, SilentReporter()).verdict
    assert again.model_dump(exclude={"created"}) == verdict.model_dump(exclude={"created"})
    more = run_study(project.load({"folds": 4}), project.workspace, SilentReporter()).verdict
    assert more.test.opened == 2, "other folds, other answers: a further look"


def test_what_learns_never_sees_the_fold_it_is_tested_on(project: Project) -> None:
    """Answers drawn by lot: what had seen them would know them."""
    import random

    draw = random.Random(0)
    project.write([row | {"output": draw.choice(("warm", "cold"))} for row in rows(120)])
    loaded = project.load({"folds": 4})
    with open_session(loaded, project.workspace, SilentReporter()) as session:
        gates = gates_of(session)
        gates.run()
        assert isinstance(gates, Folds)
        for child in gates.children:
            learnt = {row.user_text for row in (*child.session.train, *child.session.dev)}
            assert not learnt & {row.user_text for row in child.session.test}
        measured = Measured(gates.gates.case())
        assert measured.folds is not None and set(measured.folds.values()) == {0, 1, 2, 3}
        assert 30 < measured.bench.score(measured.test["classifier"]) < 70


def test_what_goes_with_no_folds_is_refused(project: Project) -> None:
    with pytest.raises(StudyError, match="test every row"):
        project.load({"folds": 3}, data={"train": "rows.jsonl", "test": "rows.jsonl"})
    with pytest.raises(StudyError, match="not both"):
        project.load({"folds": 3, "test": 0.5})
    project.write(
        [row | {"split": ("train", "dev", "test")[i % 3]} for i, row in enumerate(rows(90))]
    )
    with pytest.raises(StudyError, match="split already"):
        run_study(project.load({"folds": 3}), project.workspace, SilentReporter())


def test_the_plan_counts_all_folds(project: Project) -> None:
    once = plan_study(project.load(), project.workspace, SilentReporter())
    folded = plan_study(project.load({"folds": 3}), project.workspace, SilentReporter())
    assert once.folds is None and folded.folds == 3 and folded.rows["test"] == 90
    assert folded.mde < 0.7 * once.mde and folded.split == "That is what `data.split` says."


@pytest.mark.parametrize(
    ("n", "epochs"), [(24, 1), pytest.param(72, 16, marks=pytest.mark.soak)], ids=str
)
def test_each_fold_trains_a_model_and_one_of_all_rows_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, epochs: int
) -> None:
    from models_support import save_model
    from tunewise.routes.local import LocalRoute

    project = Project(tmp_path)
    project.write(rows(n))
    save_model(tmp_path / "model")
    changes: dict[str, Any] = {
        "model": "./model",
        "prompt": "Warm or cold?",
        "candidates": ["zero_shot", "fine_tuned"],
        "fine_tune": {"epochs": epochs, "learning_rate": 0.004, "loss_spike": None},
        "output": {"max_tokens": 4},
        "effort": "quick",
    }
    submitted = []
    submit = LocalRoute.submit

    def counted(self: LocalRoute, job: Any) -> Any:
        submitted.append(len(job.examples))
        return submit(self, job)

    monkeypatch.setattr(LocalRoute, "submit", counted)
    verdict = run_study(
        project.load({"folds": 3}, **changes), project.workspace, SilentReporter()
    ).verdict
    runs = {run.fold: run for run in verdict.training}
    assert {1, 2, 3} <= set(runs) and all(runs[f].tuned_model is None for f in (1, 2, 3))
    assert verdict.primary.folds == 3 and verdict.primary.n == n
    assert "this checkpoint" not in verdict.headline
    if epochs > 1:
        assert verdict.verdict == "FINE_TUNE"
        assert runs[None].rows == n == submitted[-1] and runs[None].tuned_model is not None
        assert f"The tuned weights: {runs[None].tuned_model}" in verdict.next_steps
        assert any("was not itself tested" in note for note in verdict.primary.notes)
    assert len(submitted) == (4 if epochs > 1 else 3)
    again = run_study(
        project.load({"folds": 3}, **changes), project.workspace, SilentReporter()
    ).verdict
    assert len(submitted) == (4 if epochs > 1 else 3), "all of it stands"
    assert again.model_dump(exclude={"created"}) == verdict.model_dump(exclude={"created"})
