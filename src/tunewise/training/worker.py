"""A training job in a process of its own: ``python -m tunewise.training.worker FOLDER``.

``status.json`` in the folder says how it stands. SIGTERM and Ctrl-C make a checkpoint and stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tunewise.crash import unforeseen
from tunewise.errors import TunewiseError
from tunewise.training.job import TrainingStopped
from tunewise.training.job_files import read_job
from tunewise.workspace import write_json_atomic


def main(folder: Path) -> int:
    """Run the job that lies in ``folder / "job"``; returns the exit code."""
    status = folder / "status.json"
    stopping = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _write(status, "running")
    try:
        from tunewise.training.loop import train
        from tunewise.training.surroundings import Events
        from tunewise.training.trackers import Feed

        job = read_job(folder / "job")
        with Events(job.output / "events.jsonl", None) as tell:
            feed, succeeded = Feed(job, tell), False
            try:
                train(job, feed, stop=lambda: stopping)
                succeeded = True
            except TrainingStopped:
                _write(status, "paused")
                return 0
            finally:
                feed.finish(succeeded=succeeded)
    except TunewiseError as error:
        _write(status, "failed", error=_words(error))
        return error.exit_code
    except Exception as error:
        told = unforeseen(error, "Training", "Its checkpoints are kept; the same command goes on.")
        with contextlib.suppress(OSError, TunewiseError):
            _write(status, "failed", error=_words(told))
        return told.exit_code
    _write(status, "succeeded")
    return 0


def _words(error: TunewiseError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
    }


def _write(path: Path, state: str, **more: Any) -> None:
    write_json_atomic(path, {"state": state, "pid": os.getpid(), **more})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
