"""A study with a local model, from file to verdict: baselines, fine-tune, test, report, rerun."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from cli_support import COMMAND, environment, tunewise
from models_support import save_model
from tunewise.errors import WorkspaceError
from tunewise.pipeline.alone import train_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, plan_study, report_study, run_study
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

WARM = ("fire", "sun", "soup", "stove", "coal")
COLD = ("ice", "snow", "frost", "sleet", "hail")


def _rows(n: int, start: int = 0) -> str:
    lines = []
    for i in range(start, start + n):
        word = (WARM if i % 2 else COLD)[(i // 2) % 5]
        question = f"Note {i}: there is {word} here."
        # Every seventh label is wrong: a perfect baseline would end the study before training.
        warm = bool(i % 2) != (i % 7 == 0)
        lines.append(json.dumps({"input": question, "output": "warm" if warm else "cold"}))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    save_model(folder / "model")
    (folder / "train.jsonl").write_text(_rows(60))
    (folder / "dev.jsonl").write_text(_rows(20, 1000))
    (folder / "test.jsonl").write_text(_rows(30, 2000))
    (folder / "must.jsonl").write_text(_rows(4, 3000))
    text = {
        "name": "warm",
        "use_case": "Tell warm from cold.",
        "model": "./model",
        "prompt": "Is it warm or cold?",
        "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
        "metric": "accuracy",
        "candidates": [
            "zero_shot",
            {"kind": "few_shot", "k": [2], "selection": ["fixed"], "orders": 1},
            "classifier",
            "fine_tuned",
        ],
        "fine_tune": {"epochs": 1, "learning_rate": 0.005},
        "forgetting": {"suite": None, "must_pass": "must.jsonl"},
        "output": {"max_tokens": 4},
        "effort": "quick",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


@pytest.fixture(scope="module")
def done(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Outcome]:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    return workspace, run_study(load_study(study), workspace, SilentReporter())


def test_every_candidate_is_tested_on_the_same_rows(done: tuple[Workspace, Outcome]) -> None:
    verdict = done[1].verdict
    assert verdict.ended_at == "G5"
    assert [c.name for c in verdict.candidates] == [
        "zero_shot",
        "few_shot",
        "classifier",
        "fine_tuned",
        "constant",
    ]
    assert {(c.measured_on, c.n, c.failures) for c in verdict.candidates} == {("test", 30, 0)}
    classifier = verdict.candidates[2]
    assert classifier.score == pytest.approx(100 * 26 / 30)
    assert verdict.primary.without == "classifier"
    assert verdict.primary.with_ == "fine_tuned"
    assert verdict.primary.interval is not None
    assert verdict.training[0].steps
    assert verdict.training[0].forecast_seconds
    assert verdict.audit.rows == {"train": 60, "dev": 20, "test": 30}
    assert len(verdict.checklist) == 9


def test_the_report_is_written_and_says_the_same(done: tuple[Workspace, Outcome]) -> None:
    outcome = done[1]
    written = json.loads(outcome.verdict_json.read_text())
    assert written["headline"] == outcome.verdict.headline
    assert "classifier" in outcome.report.read_text()


def test_a_rerun_asks_and_trains_nothing(
    study: Path, done: tuple[Workspace, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, before = done
    from tunewise.models.local_engine import LocalEngine
    from tunewise.routes.local import LocalRoute

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be asked or trained again")

    monkeypatch.setattr(LocalEngine, "iterate", refuse)
    monkeypatch.setattr(LocalRoute, "submit", refuse)
    after = run_study(load_study(study), workspace, SilentReporter()).verdict
    assert after.model_copy(update={"created": before.verdict.created}) == before.verdict


def test_the_verdict_is_recomputed_from_items(study: Path, done: tuple[Workspace, Outcome]) -> None:
    workspace, before = done
    after = report_study(load_study(study), workspace).verdict
    assert after.model_copy(update={"created": before.verdict.created}) == before.verdict


def test_items_changed_by_hand_are_not_reported(
    study: Path, done: tuple[Workspace, Outcome]
) -> None:
    workspace, before = done
    items = before.folder / "items" / "classifier.test.jsonl"
    whole = items.read_text()
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        items.write_text("".join(json.dumps({**row, "score": 1.0}) + "\n" for row in rows))
        with pytest.raises(WorkspaceError, match="changed"):
            report_study(load_study(study), workspace)
    finally:
        items.write_text(whole)


def test_a_changed_target_trains_nothing_again(
    study: Path, done: tuple[Workspace, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, before = done
    from tunewise.training import loop

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be trained again")

    monkeypatch.setattr(loop, "train", refuse)
    loaded = load_study(study, overrides=["target.minimal_gain=5"])
    after = run_study(loaded, workspace, SilentReporter()).verdict
    assert after.primary.gain == before.verdict.primary.gain
    assert after.primary.minimal_gain == 5
    assert after.test.opened == 1  # no answer and no choice can have changed
    assert any("before: minimal_gain 2.0" in text for text in after.warnings)


def test_a_killed_run_goes_on_to_the_same_scores(
    study: Path, done: tuple[Workspace, Outcome], tmp_path: Path
) -> None:
    env = {"TUNEWISE_HOME": str(tmp_path / "home")}
    child = subprocess.Popen(
        [COMMAND, "run", study, "--json"],
        env=environment(**env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if list((tmp_path / "home").glob("studies/warm/*/stages/fit-zero_shot.json")):
            break
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    again = tunewise("run", study, "--json", cwd=tmp_path, env=env).json
    whole = done[1].verdict
    assert {c["name"]: c["score"] for c in again["candidates"]} == {
        c.name: c.score for c in whole.candidates
    }
    assert again["verdict"] == whole.verdict


def test_plan_says_what_a_run_takes(study: Path, done: tuple[Workspace, Outcome]) -> None:
    plan = plan_study(load_study(study), done[0], SilentReporter())
    tuned = plan.candidates[3]
    assert plan.rows["test"] == 30
    assert tuned.training is not None
    assert tuned.training["seconds"] > 0
    assert plan.candidates[2].requests == 0


def test_train_alone_copies_the_weights(
    study: Path, done: tuple[Workspace, Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    tuned = train_study(load_study(study), done[0], SilentReporter(), out)
    assert (out / "adapter_model.safetensors").is_file()
    assert tuned.run.tuned_model == str(out)


def test_standard_effort_draws_a_curve_and_trains_several_seeds(
    study: Path, tmp_path: Path
) -> None:
    overrides = ["effort=standard", "fine_tune.seeds=[0, 1]", "forgetting.must_pass=null"]
    loaded = load_study(study, overrides=overrides)
    verdict = run_study(loaded, Workspace(tmp_path / "home"), SilentReporter()).verdict
    assert [p.rows for p in verdict.learning_curve.points] in ([15], [15, 60])
    if verdict.ended_at == "G2":  # the pilot's curve was flat and far below the classifier
        assert verdict.because == ["not_tested"]
        assert any("flat" in warning for warning in verdict.warnings)
    else:
        assert verdict.ended_at == "G5"
        assert verdict.primary.seeds == 2
        assert {run.seed for run in verdict.training} == {0, 1}
        assert verdict.learning_curve.reason is not None  # two sizes make no curve
