"""The trackers that come with Tunewise, one class each; their packages are loaded when one opens.

Each class declares in ``needs`` the module that it imports, and the package that brings it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewise.training.trackers import TrackedRun, flat

PROJECT = "tunewise"
"""What the runs stand under, unless the tracker's own environment variable says otherwise."""


def _module(name: str) -> Any:
    """A package that not everybody has, without its types."""
    return importlib.import_module(name)


class TensorBoard:
    """Event files in the job's folder: ``tensorboard --logdir FOLDER``.

    ``TENSORBOARD_LOGDIR`` names another place, under which each run gets a folder.
    """

    needs = ("tensorboard", "tensorboard")

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

    needs = ("mlflow", "mlflow-skinny")

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

    needs = ("wandb", "wandb")

    @staticmethod
    def unattended_without() -> str | None:
        """The variable that it needs where nobody can log in, if that is not set."""
        offline = os.environ.get("WANDB_MODE", "online") != "online"
        return None if offline or os.environ.get("WANDB_API_KEY") else "WANDB_API_KEY"

    def __init__(self, run: TrackedRun) -> None:
        wandb = _module("wandb")
        # It reads `wandb/settings` where it is set up, and where we are that may have come with
        # somebody's data: the key would go to whatever server is named there.
        with contextlib.chdir(run.folder):
            wandb.setup()
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

    needs = ("trackio", "trackio")

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
