"""Trackers follow a run: every step once, also over a kill and a resume; none may end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from training_support import save_small_model, word_examples
from tunewise.errors import TrainingError
from tunewise.routes.local import LocalRoute
from tunewise.study.fine_tune import FineTune
from tunewise.training import trackers
from tunewise.training.job import TrainingJob, TrainingStopped
from tunewise.training.loop import train
from tunewise.training.trackers import Feed, TrackedRun, check_trackers

KEY = "sk-proj-FakeKeyOfATest0123456789abcdef"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model"))


def _job(model: Path, output: Path, *names: str, epochs: float = 2) -> TrainingJob:
    fine_tune = FineTune(batch_size=4, report_to=list(names))
    rows = word_examples(20)
    return TrainingJob(str(model), rows, rows[:4], fine_tune, 1e-3, epochs, 0, output, threads=1)


def _interrupted(job: TrainingJob, after: int = 3) -> list[Mapping[str, Any]]:
    """Train with a stop after some steps, whose checkpoint then is lost, and a resume."""
    seen: list[Mapping[str, Any]] = []
    steps = 0
    job.output.mkdir()

    def listen(feed: Feed) -> Any:
        def take(event: Mapping[str, Any]) -> None:
            nonlocal steps
            steps += event["event"] == "step"
            seen.append(event)
            feed(event)

        return take

    feed = Feed(job, seen.append)
    with pytest.raises(TrainingStopped):
        train(job, listen(feed), stop=lambda: steps >= after)
    feed.finish(succeeded=False)
    # As after a kill between checkpoints: the run begins anew, and repeats steps that were told.
    for file in (job.output / "checkpoints").rglob("*"):
        if file.is_file():
            file.unlink()
    feed = Feed(job, seen.append)
    train(job, listen(feed))
    feed.finish(succeeded=True)
    assert sum(e["event"] == "step" for e in seen) == 10 + after
    return seen


def _expected(events: list[Mapping[str, Any]], kind: str, name: str) -> list[tuple[int, float]]:
    return list({e["step"]: (e["step"], e[name]) for e in events if e["event"] == kind}.values())


def _tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events*")):
        read = EventAccumulator(str(file)).Reload()
        for tag in read.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, e.value) for e in read.Scalars(tag))
    return found


def test_tensorboard_has_every_step_once(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    job = _job(model, tmp_path / "run", "tensorboard")
    events = _interrupted(job)
    found = _tensorboard(job.output / "tensorboard")
    assert len(found["train/loss"]) == 10
    assert dict(found["train/loss"]) == pytest.approx(dict(_expected(events, "step", "loss")))
    assert len(found["dev/loss"]) == 2
    assert dict(found["dev/loss"]) == pytest.approx(dict(_expected(events, "eval", "dev_loss")))
    assert [s for s, _ in found["train/lr"]] == list(range(1, 11))
    assert "train/mean_token_accuracy" in found and "dev/mean_token_accuracy" in found
    assert "train/time" not in found and "train/seconds_left" not in found


@pytest.mark.filterwarnings("ignore")  # mlflow's own: it calls what its database layer deprecates
def test_mlflow_has_one_run_with_every_step_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "words")
    from mlflow.tracking import MlflowClient

    job = _job(model, tmp_path / "run", "mlflow")
    events = _interrupted(job)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("words")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["fine_tune.lora.rank"] == "16"
    history = sorted(client.get_metric_history(run.info.run_id, "train/loss"), key=lambda m: m.step)
    assert [(m.step, m.value) for m in history] == _expected(events, "step", "loss")


def test_wandb_offline_keeps_no_key(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + "deadbeef")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    job = _job(model, tmp_path / "run", "wandb")
    _interrupted(job)
    assert list(job.output.glob("wandb/offline-run-*/*.wandb"))
    for file in job.output.rglob("*"):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            assert KEY.encode() not in content and b"deadbeef" not in content, file


def test_wandb_takes_no_server_from_where_we_are(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for name in ("wandb", ".wandb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings").write_text("[default]\nbase_url = https://theirs.invalid\n")
    (tmp_path / "run").mkdir()
    code = (
        "from types import SimpleNamespace; from pathlib import Path\n"
        "from tunewise.training.own_trackers import Wandb\n"
        "run = SimpleNamespace(id='a1', name='n', config={}, folder=Path('run').absolute())\n"
        "tracker = Wandb(run)\n"
        "print(tracker._run.settings.base_url)\n"
        "tracker.finish(succeeded=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("https://") and "theirs" not in done.stdout


def test_a_killed_worker_goes_on_without_doubled_steps(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    job = _job(model, tmp_path / "run", "tensorboard", epochs=12)
    handle = LocalRoute().submit(job)
    deadline = time.monotonic() + 120
    while not any(e["event"] == "step" for e in handle.events()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = json.loads((job.output / "status.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    while handle.status().state == "running":
        time.sleep(0.02)
    result = LocalRoute().submit(job).result(timeout=120)
    found = [step for step, _ in _tensorboard(job.output / "tensorboard")["train/loss"]]
    assert len(found) == len(set(found))
    # A figure that was under way when the process was killed may be missing, no more.
    assert len(found) >= result.steps - 1 and max(found) == result.steps


def test_who_watches_is_not_part_of_the_key(model: Path, tmp_path: Path) -> None:
    assert _job(model, tmp_path, "tensorboard").key == _job(model, tmp_path).key


def test_one_name_is_a_list_of_one() -> None:
    assert FineTune.model_validate({"report_to": "mlflow"}).report_to == ["mlflow"]


def test_a_missing_package_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    for name, package in (("mlflow", "mlflow-skinny"), ("trackio", "trackio")):
        with pytest.raises(TrainingError, match=f"{name} is not installed") as error:
            check_trackers([name])
        assert error.value.hint == f"Install it with: pip install {package}"
        assert error.value.where == "fine_tune.report_to"
    with pytest.raises(TrainingError, match="no tracker called 'tensorbord'") as error:
        check_trackers(["tensorbord"])
    assert "tensorboard" in str(error.value.hint)


class Failing:
    """A tracker of another package: fails on its third step, or at once."""

    steps: list[int]

    def __init__(self, run: TrackedRun) -> None:
        if os.environ.get("FAILING_AT_ONCE"):
            raise RuntimeError(f"no login for {KEY}")
        self.steps = []
        Failing.last = self

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if step == 3:
            raise ConnectionError(f"the network is gone; key {KEY}")
        self.steps.append(step)

    def finish(self, *, succeeded: bool) -> None:
        self.steps.append(-1)

    last: Failing


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point, found as any installed one is."""
    info = tmp_path / "site" / "failing-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.0\n")
    target = f"{Failing.__module__}:Failing"
    (info / "entry_points.txt").write_text(f"[tunewise.trackers]\nfailing = {target}\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.usefixtures("installed")
def test_a_tracker_that_fails_is_dropped_and_the_training_goes_on(
    model: Path, tmp_path: Path
) -> None:
    job = _job(model, tmp_path / "run", "failing")
    told: list[Mapping[str, Any]] = []
    feed = Feed(job, told.append)
    assert train(job, feed).steps == 10
    feed.finish(succeeded=True)
    assert Failing.last.steps == [1, 2]
    (event,) = told
    assert event["tracker"] == "failing" and "the network is gone" in event["error"]
    assert KEY not in event["error"]


@pytest.mark.usefixtures("installed")
def test_a_tracker_that_cannot_be_opened_stops_the_run_before_it_starts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILING_AT_ONCE", "1")
    with pytest.raises(TrainingError, match="failing cannot be opened") as error:
        Feed(_job(model, tmp_path / "run", "failing"), lambda _: None)
    assert KEY not in str(error.value)
