"""One job in a process of its own: ``python -m tunewise.server.jobs.worker FOLDER``.

The folder belongs to the job. In it lie ``job.json`` (what the queue wants), ``run/`` (the
trainer's output, with its ``events.jsonl``), and what the queue watches: ``worker.lock``, held as
long as this process lives and holding its number; ``heartbeat``, touched all the time; and at the
end ``outcome.json``. SIGTERM makes a checkpoint and stops.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, overload

from tunewise import digests
from tunewise.crash import unforeseen
from tunewise.data.chat import Example
from tunewise.errors import DataError, ModelError, TunewiseError, WorkspaceError
from tunewise.workspace import write_json_atomic

if TYPE_CHECKING:
    from tunewise.models.raw_form import Form
    from tunewise.server.jobs.training_files import Method
    from tunewise.study.schema import FineTune
    from tunewise.training.job import OnEvent, TrainingJob

LOCK = "worker.lock"
HEARTBEAT = "heartbeat"
OUTCOME = "outcome.json"
JOB = "job.json"
RUN = "run"
ROWS = "job"

HELD_BY_ANOTHER = 75
"""Exit code where another process works on the job already."""

KEPT_EPOCHS = 4
"""One more than the API shows, so that a model that is still listed is still there."""

GROUP_SIZE = 8
"""Answers to each prompt that reinforcement compares, times ``compute_multiplier``."""

_BEAT_SECONDS = 1.0
_LOCK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the queue wants trained; ``job.json``.

    Attributes:
        method: as the API calls it.
        model: spec or folder of the base.
        training, validation: files of rows, and how many rows each has.
        hyperparameters: resolved, without ``auto``.
        start: folder of the adapter that training begins with; None for the base.
        start_sha256: of that folder, where it is known.
        grader: of a reinforcement job.
        trackers: that are told each step, with environment variables that say where.
        threads: for torch; None takes what the machine has.
        form: of the text that is trained on.
    """

    method: Method
    model: str
    training: str
    training_rows: int
    validation: str | None
    validation_rows: int
    hyperparameters: dict[str, Any]
    seed: int
    grader: dict[str, Any] | None
    trackers: dict[str, dict[str, str]]
    threads: int | None
    start: str | None = None
    start_sha256: str | None = None
    form: Form = "chat"


def main(folder: Path) -> int:
    """Train what lies in ``folder``; returns the exit code."""
    lock = _lock(folder / LOCK)
    if lock is None:
        return HELD_BY_ANOTHER
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    (folder / OUTCOME).unlink(missing_ok=True)
    threading.Thread(target=_beat, args=(folder / HEARTBEAT,), daemon=True).start()
    outcome: dict[str, Any]
    try:
        from tunewise.training.job import TrainingStopped
        from tunewise.training.loop import train

        try:
            with _tracked(job := _training_job(folder)) as follow:
                train(job, follow, stop=stopping.is_set)
            outcome = {"state": "succeeded"}
        except TrainingStopped:
            outcome = {"state": "stopped"}
    except TunewiseError as error:
        outcome = {"state": "failed", "error": _told(error)}
    except Exception as error:
        told = unforeseen(error, "Training")
        print(told, file=sys.stderr)  # into the job's log, which its caller does not see
        text = (
            f"Training ended by an unforeseen {type(error).__name__}; the server's files say more."
        )
        outcome = {
            "state": "failed",
            "error": {"code": "server_error", "message": text, "param": None},
        }
    write_json_atomic(folder / OUTCOME, outcome)
    return 0 if outcome["state"] != "failed" else 1


def _lock(path: Path) -> IO[str] | None:
    """Take the job for this process, until it ends; None where another one has it."""
    file = path.open("a+")
    end = time.monotonic() + _LOCK_SECONDS  # the queue looks at the lock by taking it for a moment
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                file.close()
                return None
            time.sleep(0.05)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _beat(path: Path) -> None:
    while True:
        path.touch()
        time.sleep(_BEAT_SECONDS)


def _training_job(folder: Path) -> TrainingJob:
    """The trainer's job: made once, and read again by a worker that goes on."""
    from tunewise.models.template_date import today
    from tunewise.server.jobs.hyperparameters import learning_rate
    from tunewise.training.job import TrainingJob, date_of
    from tunewise.training.job_files import read_job, write_job

    rows = folder / RUN / ROWS
    if not (rows / JOB).exists():
        wanted = Assignment(**json.loads((folder / JOB).read_text("utf-8")))
        values = wanted.hyperparameters
        shutil.rmtree(rows, ignore_errors=True)
        _hold(wanted)
        start = Path(wanted.start) if wanted.start else None
        job = TrainingJob(
            model=wanted.model,
            examples=FileRows(Path(wanted.training), wanted.training_rows),
            dev=FileRows(Path(wanted.validation), wanted.validation_rows)
            if wanted.validation
            else (),
            fine_tune=_fine_tune(wanted),
            learning_rate=learning_rate(
                wanted.model, wanted.method, values["learning_rate_multiplier"]
            ),
            epochs=values["n_epochs"],
            seed=wanted.seed,
            output=folder / RUN,
            threads=wanted.threads,
            keep="last",
            keep_epochs=KEPT_EPOCHS,
            start=start,
            eval_every=values.get("eval_interval"),
            eval_rows=values.get("eval_samples", 1),
            date=date_of(wanted.model, start, today()),
            form=wanted.form,
        )
        write_job(job, rows)
    return read_job(rows)


def _hold(wanted: Assignment) -> None:
    """What training is built on, against what was noted when it came; the name of a content is its
    digest."""
    again = "Upload it again and make a new job."
    digests.hold(Path(wanted.training), Path(wanted.training).name, "the training file", again)
    if wanted.validation:
        place = Path(wanted.validation)
        digests.hold(place, place.name, "the validation file", again)
    if wanted.start and wanted.start_sha256:
        digests.hold(Path(wanted.start), wanted.start_sha256, "the model that training begins with")


@contextmanager
def _tracked(job: TrainingJob) -> Iterator[OnEvent | None]:
    """What passes a run's events on to its trackers. What they lack is no reason not to train."""
    from tunewise.training.surroundings import Events
    from tunewise.training.trackers import Feed

    if not job.fine_tune.report_to:
        yield None
        return
    wanted = json.loads((job.output.parent / JOB).read_text("utf-8"))
    for variables in wanted["trackers"].values():
        os.environ.update(variables)
    with Events(job.output / "events.jsonl", None) as tell:
        try:
            feed = Feed(job, tell)
        except TunewiseError as error:
            tell({"event": "tracker", "tracker": "a tracker", "error": error.message})
            yield None
            return
        succeeded = False
        try:
            yield feed
            succeeded = True
        finally:
            feed.finish(succeeded=succeeded)


def _fine_tune(wanted: Assignment) -> FineTune:
    """The trainer's options for what the API calls a method and its hyper-parameters."""
    from tunewise.server.jobs.hyperparameters import TRAINERS
    from tunewise.study.schema import FineTune

    values = wanted.hyperparameters
    options: dict[str, Any] = {}
    if wanted.method == "supervised":
        options["trained_rows"] = "all_assistant"
    elif wanted.method == "dpo":
        options["dpo"] = {"beta": values["beta"]}
    else:
        samples = max(2, round(GROUP_SIZE * values["compute_multiplier"]))
        options["grader"] = wanted.grader
        options["grpo"] = {"samples": samples}
    return FineTune(
        method=TRAINERS[wanted.method],
        batch_size=values["batch_size"],
        # A hosted service goes on whatever the loss does, and a batch of one row jumps a lot.
        loss_spike=None,
        report_to=list(wanted.trackers),
        **options,
    )


class FileRows(Sequence[Example]):
    """The examples of a training file, read anew each time; none is kept in memory."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        from tunewise.server.jobs.training_files import examples

        return examples(self._path)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return list(itertools.islice(self, *index.indices(len(self))))
        return next(itertools.islice(self, range(len(self))[index], None))


def _told(error: TunewiseError) -> dict[str, Any]:
    """A failure as the ``error`` of a job; places on this machine's disk are left out."""
    if isinstance(error, digests.DamagedError):
        code, param = "damaged_content", None
    elif isinstance(error, WorkspaceError):
        code, param = "server_error", None
    elif isinstance(error, ModelError):
        code, param = "model_not_loadable", "model"
    elif isinstance(error, DataError):
        code, param = "invalid_training_file", "training_file"
    else:
        code, param = "training_failed", None
    message = f"{error.message}. {error.hint}" if error.hint else f"{error.message}."
    return {"code": code, "message": message, "param": param}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
