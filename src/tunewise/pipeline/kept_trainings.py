"""Trainings and forecasts of another study of the workspace: found by content, not made again.

A study keeps what it trains in ``studies/<name>/training``, each run in a folder named by the hash
of all that determines its weights. A study that was renamed, or one with another question to the
same rows, takes such a run over. Weights become a second name of the same file where the disk can
do that, so that each study can be removed alone and nothing lies there twice.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tunewise.data.chat import canonical_hash
from tunewise.digests import DamagedError, hold
from tunewise.errors import WorkspaceError
from tunewise.routes.base import Forecast
from tunewise.training.job import TrainingJob
from tunewise.workspace import read_json, write_json_atomic

_LEFT = shutil.ignore_patterns("checkpoints", "epochs", "sweep", ".*")


def bring(job: TrainingJob) -> None:
    """Put the finished run of another study into the job's folder, if there is one.

    A folder in which something has begun already is left alone.
    """
    if any(job.output.glob("*")):
        return
    for found in _elsewhere(job.output.parent, job.output.name):
        if not _finished(found, job.key):
            continue
        part = job.output.with_name(f".{job.output.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(found, part, ignore=_LEFT, copy_function=_same_or_copy)
            part.rename(job.output)
        except OSError:  # the other study may be on its way out, or the disk full: train
            shutil.rmtree(part, ignore_errors=True)
            continue
        return


def trial_folders(training: Path) -> list[Path]:
    """Where tried learning rates are kept: the study's own folder, then those of the others."""
    return [training / "trials", *_elsewhere(training, "trials")]


def _elsewhere(training: Path, name: str) -> Iterator[Path]:
    """Folders of this name among the trainings of other studies."""
    found = sorted(training.parent.parent.glob(f"*/{training.name}/{name}"))
    return (path for path in found if path.parent != training)


def _finished(folder: Path, key: str) -> bool:
    try:
        result, status = read_json(folder / "training.json"), read_json(folder / "status.json")
    except (OSError, WorkspaceError):
        return False
    if result.get("key") != key or status.get("state") != "succeeded":
        return False
    kept = result.get("adapter") or result.get("model")
    try:
        if kept and result.get("sha256"):
            hold(folder / str(kept), result["sha256"], "the weights")
    except DamagedError:
        return False  # train anew
    return True


def _same_or_copy(source: str, target: str) -> None:
    # Weights are written once; a small file may be written again, and is each study's own.
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)


def forecast_once(job: TrainingJob, training: Path, measure: Callable[[], Forecast]) -> Forecast:
    """The forecast of a job, measured where no study of the workspace has measured it here.

    Args:
        training: the study's folder of trainings.
        measure: takes seconds, and the memory of a training.
    """
    name = f"{canonical_hash([job.key, _machine()])[:16]}.json"
    places = [training / "forecasts", *_elsewhere(training, "forecasts")]
    for place in places:
        try:
            found = Forecast(**read_json(place / name))
        except (OSError, WorkspaceError, TypeError):
            continue  # not there, or damaged: measured again
        break
    else:
        found = measure()
    # In the study's own folder too, so that each study can be removed alone.
    write_json_atomic(places[0] / name, asdict(found))
    return found


def _machine() -> list[object]:
    """What the time and the memory of a training hang on, beside the job."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    libraries = [version(name) for name in ("torch", "transformers")]
    return [platform.node(), platform.machine(), cores, threads, *libraries]
