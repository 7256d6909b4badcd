"""Experiment trackers that follow a run: each step's figures, once, also where it is resumed.

They are fed in the process that trains, from the events that also stand in ``events.jsonl``; that
file says which steps an earlier process has already told. Where and as whom a tracker writes is
the tracker's own business (its environment variables, its login); no key passes through here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from tunewise.errors import TrainingError
from tunewise.study.keys import redact
from tunewise.training.job import OnEvent, TrainingJob

PROJECT = "tunewise"
"""What the runs stand under, unless the tracker's own environment variable says otherwise."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run before its first step.

    Attributes:
        id: of the job, 16 hex digits; equal jobs have equal ids, and a resumed one keeps it.
        name: for people.
        folder: the job's own, for trackers that write files.
        config: JSON values: the model, and every option of the fine-tune.
        resumed: an earlier process has told steps of this run.
    """

    id: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    resumed: bool


class Tracker(Protocol):
    """One tracker, open for one run. What it raises ends the tracking, never the training."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, by names such as ``train/loss``; steps rise."""
        ...

    def finish(self, *, succeeded: bool) -> None:
        """The process ends; the run may still go on in another."""
        ...


def _module(name: str) -> Any:
    """A package that not everybody has, without its types."""
    return importlib.import_module(name)


class TensorBoard:
    """Event files in the job's folder: ``tensorboard --logdir FOLDER``.

    ``TENSORBOARD_LOGDIR`` names another place, under which each run gets a folder.
    """

    def __init__(self, run: TrackedRun) -> None:
        protocol = "tensorboard.compat.proto"
        writers = _module("tensorboard.summary.writer.event_file_writer")
        place = os.environ.get("TENSORBOARD_LOGDIR")
        folder = Path(place).expanduser() / run.name if place else run.folder / "tensorboard"
        self._event = _module(f"{protocol}.event_pb2").Event
        self._summary = _module(f"{protocol}.summary_pb2").Summary
        self._writer = writers.EventFileWriter(str(folder))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=k, simple_value=v) for k, v in figures.items()]
        summary = self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def finish(self, *, succeeded: bool) -> None:
        self._writer.close()


class Mlflow:
    """A run of MLflow, found again by the job's id; ``MLFLOW_TRACKING_URI`` says where."""

    def __init__(self, run: TrackedRun) -> None:
        entities = _module("mlflow.entities")
        self._metric = entities.Metric
        self._client = _module("mlflow.tracking").MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        place = known.experiment_id if known else self._client.create_experiment(name)
        mine = f"tags.`tunewise.job` = '{run.id}'"
        found = self._client.search_runs([place], mine, max_results=1) if run.resumed else []
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"tunewise.job": run.id}
        self._run = self._client.create_run(place, tags=tags, run_name=run.name).info.run_id
        params = [entities.Param(k, str(v)[:500]) for k, v in flat(run.config).items()]
        for begin in range(0, len(params), 100):  # as many as the API takes at once
            self._client.log_batch(self._run, params=params[begin : begin + 100])

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(k, v, now, step) for k, v in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, *, succeeded: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "KILLED")


class Wandb:
    """A run of Weights & Biases; ``WANDB_PROJECT``, ``WANDB_MODE`` and the like are its own."""

    def __init__(self, run: TrackedRun) -> None:
        wandb = _module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.id,
            name=run.name,
            config=dict(run.config),
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            resume="allow",
            # Figures only: neither the program, nor its output, nor the folder that it runs in.
            settings=wandb.Settings(
                console="off", disable_code=True, disable_git=True, silent=True
            ),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, *, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class Trackio:
    """A run of Trackio, on this machine; ``TRACKIO_PROJECT``, ``TRACKIO_DIR`` say where."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = _module("trackio").init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.name}-{run.id[:8]}",
            config=dict(run.config),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, *, succeeded: bool) -> None:
        self._run.finish()


_BUILT_IN: Mapping[str, tuple[Callable[[TrackedRun], Tracker], str, str]] = {
    "tensorboard": (TensorBoard, "tensorboard", "tensorboard"),
    "mlflow": (Mlflow, "mlflow", "mlflow-skinny"),
    "wandb": (Wandb, "wandb", "wandb"),
    "trackio": (Trackio, "trackio", "trackio"),
}
"""Each with the module that it needs, and the package to install for it."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse, before training starts, trackers that are not there; nothing is imported.

    Raises:
        TrainingError: an unknown name, or a package that is not installed.
    """
    others = {entry.name for entry in entry_points(group="tunewise.trackers")} if names else set()
    for name in names:
        if name in _BUILT_IN:
            _, module, package = _BUILT_IN[name]
            if importlib.util.find_spec(module) is None:
                raise TrainingError(
                    f"{name} is not installed, so it cannot follow the training",
                    where="fine_tune.report_to",
                    hint=f"Install it with: pip install {package}",
                )
        elif name not in others:
            known = ", ".join(sorted({*_BUILT_IN, *others}))
            raise TrainingError(
                f"no such tracker: {name!r}",
                where="fine_tune.report_to",
                hint=f"There is: {known}. Others come by entry point (`tunewise.trackers`).",
            )


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """The tracker called ``name``, a built-in one or one of an entry point.

    An entry point names what is called with a ``TrackedRun`` and gives a ``Tracker``.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name][0](run)
    (entry,) = entry_points(group="tunewise.trackers", name=name)
    tracker: Tracker = entry.load()(run)
    return tracker


class Feed:
    """Passes a run's events on to its trackers; call it with each event.

    A tracker that fails while the run goes on is dropped, and ``tell`` gets an event ``tracker``
    that says so.

    Args:
        job: with ``fine_tune.report_to``; its folder has ``events.jsonl`` of earlier processes.
        tell: takes events about the trackers themselves.

    Raises:
        TrainingError: a tracker cannot be opened.
    """

    def __init__(self, job: TrainingJob, tell: OnEvent) -> None:
        names = list(dict.fromkeys(job.fine_tune.report_to))
        check_trackers(names)
        self._tell = tell
        self._told = _told(job.output / "events.jsonl") if names else {}
        self._open: dict[str, Tracker] = {}
        run = _described(job, resumed=bool(self._told)) if names else None
        for name in names:
            assert run is not None
            try:
                self._open[name] = open_tracker(name, run)
            except Exception as error:  # another package's code, its settings, its network
                self.finish(succeeded=False)
                raise TrainingError(
                    f"{name} cannot be opened: {_words(error)}",
                    where="fine_tune.report_to",
                    hint="Correct its settings (environment variables, login), or leave it out.",
                ) from None

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind, step = str(event.get("event")), event.get("step")
        if not self._open or kind not in _KINDS or not isinstance(step, int):
            return
        if step <= self._told.get(kind, 0):  # told before the run was interrupted
            return
        self._told[kind] = step
        figures = {_named(k): float(v) for k, v in event.items() if _is_figure(k, v)}
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(step, figures)
            except Exception as error:
                self._drop(name, error)

    def finish(self, *, succeeded: bool) -> None:
        """Close the trackers."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.finish(succeeded=succeeded)
            except Exception as error:
                self._drop(name, error)
        self._open = {}

    def _drop(self, name: str, error: Exception) -> None:
        del self._open[name]
        self._tell({"event": "tracker", "tracker": name, "error": _words(error)})


_KINDS = ("step", "eval")
_NO_FIGURES = ("time", "step", "total_steps", "seconds_left", "best_step", "stopped_early")


def _is_figure(name: str, value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and name not in _NO_FIGURES


def _named(key: str) -> str:
    """``train/loss``, ``train/reward_margin``, ``dev/loss``: in groups, as trackers show them."""
    if key.startswith("dev_"):
        return f"dev/{key.removeprefix('dev_')}"
    if key.startswith("valid_"):
        return f"dev/{key.removeprefix('valid_')}"
    return f"train/{key.removeprefix('train_')}"


def _told(events: Path) -> dict[str, int]:
    """The last step of each kind of event that an earlier process has seen."""
    found: dict[str, int] = {}
    try:
        with events.open("rb") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:  # a line that was being written when the process died
                    continue
                kind = event["event"]
                if kind in _KINDS:
                    found[kind] = max(found.get(kind, 0), int(event["step"]))
    except OSError:
        return {}
    return found


def _described(job: TrainingJob, *, resumed: bool) -> TrackedRun:
    model = job.model.rstrip("/").rpartition("/")[-1]
    return TrackedRun(
        id=job.key[:16],
        name=f"{job.fine_tune.method}-{model}-{job.key[:8]}",
        folder=job.output,
        config={
            "model": job.model,
            "rows": len(job.examples),
            "dev_rows": len(job.dev),
            "learning_rate": job.learning_rate,
            "epochs": job.epochs,
            "seed": job.seed,
            # Of graders and hosted services nothing is learnt here that a tracker should keep.
            "fine_tune": job.fine_tune.model_dump(mode="json", exclude={"grader", "hosted"}),
        },
        resumed=resumed,
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names: ``fine_tune.lora.rank``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return redact(f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
