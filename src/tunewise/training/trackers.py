"""Experiment trackers that follow a run: each step's figures, once, also where it is resumed.

They are fed in the process that trains, from the events that also stand in ``events.jsonl``; that
file says which steps an earlier process has already told. Where and as whom a tracker writes is
the tracker's own business (its environment variables, its login); no key passes through here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunewise.errors import TrainingError
from tunewise.study.keys import redact
from tunewise.study.parts import TRACKERS as TRACKERS
from tunewise.training.job import OnEvent, TrainingJob


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


def check_trackers(names: Sequence[str]) -> None:
    """Refuse, before training starts, trackers that are not there.

    Raises:
        TrainingError: an unknown name, a tracker that cannot be imported, or one whose package is
            not installed.
    """
    for name in names:
        needs = getattr(TRACKERS.load(name), "needs", None)
        if needs is not None and importlib.util.find_spec(needs[0].partition(".")[0]) is None:
            raise TrainingError(
                f"{name} is not installed, so it cannot follow the training",
                where="fine_tune.report_to",
                hint=f"Install it with: pip install {needs[1]}",
            )


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """The tracker called ``name``, open for a run. Raises whatever its own code raises.

    Raises:
        TrainingError: there is no such tracker, or it is none.
    """
    tracker: Tracker = TRACKERS.checked(name, TRACKERS.load(name)(run))
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
