"""Fine-tuning on this machine, in a process of its own that outlives its caller."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewise.data.findings import Finding
from tunewise.errors import TrainingError
from tunewise.routes.base import Capabilities, Event, Forecast, State, Status
from tunewise.training.fork_server import Process, start
from tunewise.training.job import LossSpikeError, NotFiniteError, TrainingJob, TrainingResult
from tunewise.training.job_files import write_job
from tunewise.workspace import write_json_atomic

# Processes that this one has started, by job: whoever holds a handle, they must be reaped once.
_children: dict[str, Process] = {}
_POLL_SECONDS = 0.1
_KINDS: Mapping[str, type[TrainingError]] = {
    "NotFiniteError": NotFiniteError,
    "LossSpikeError": LossSpikeError,
}
_START_SECONDS = 60.0


class LocalRoute:
    """Runs jobs in child processes; a job's id is its output folder."""

    name = "local"
    capabilities = Capabilities(local_weights=True, this_machine=True, charges_money=False)

    def missing(self) -> str | None:
        """The packages that train, where they are not installed."""
        from importlib.util import find_spec

        absent = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
        return f'pip install "tunewise[local]" (for {", ".join(absent)})' if absent else None

    def check(self, job: TrainingJob) -> list[Finding]:
        """The label audit: encodes all rows, loads only the tokenizer.

        Raises:
            DataError, ModelError: when a row cannot be encoded or the model is not there.
        """
        from tunewise.training.forecast import audit_job

        return audit_job(job)[1]

    def forecast(self, job: TrainingJob) -> Forecast:
        """Time and memory from the rows' real token counts and a calibration of a few seconds."""
        from tunewise.training.forecast import forecast_job

        found = forecast_job(job)
        return Forecast(
            seconds=found.seconds,
            peak_memory_bytes=found.peak_memory_bytes,
            usd=0.0,
            tokens=found.tokens,
            steps=found.steps,
            basis=found.basis,
        )

    def submit(self, job: TrainingJob) -> LocalHandle:
        """Start the job in a child process.

        A finished job with the same key is returned as it is; one that runs is attached to; one
        that was interrupted goes on.

        Raises:
            TrainingError: another job runs in the folder.
        """
        handle = LocalHandle(job.output)
        known = handle.key()
        if known == job.key:
            if handle.status().over:  # what is not part of the key may have changed
                write_job(job, job.output / "job")
            handle.resume()
            return handle
        if handle.status().state == "running":
            raise TrainingError(
                "another job runs in this folder",
                where=str(job.output),
                hint="Wait for it, cancel it, or give another folder.",
            )
        for name in ("status.json", "events.jsonl", "training.json"):
            (job.output / name).unlink(missing_ok=True)
        shutil.rmtree(job.output / "checkpoints", ignore_errors=True)
        write_job(job, job.output / "job")
        handle.resume()
        return handle

    def attach(self, id: str) -> LocalHandle:
        """The job whose output folder is ``id``.

        Raises:
            TrainingError: no job was submitted there.
        """
        handle = LocalHandle(Path(id))
        if handle.key() is None:
            raise TrainingError("no training job lies here", where=id, hint="Submit it first.")
        return handle


class LocalHandle:
    """A job in a folder of this machine; all state lies in that folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.id = str(self.folder)
        self._events: list[Event] = []
        self._read_to = 0

    def key(self) -> str | None:
        """The key of the job that was submitted here."""
        value = _read(self.folder / "job" / "job.json")
        return None if value is None else value.get("key")

    def events(self, since: int = 0) -> list[Event]:
        """Events from number ``since`` on; a line that is being written is left for next time."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                if file.seek(0, 2) < self._read_to:  # another run began
                    self._read_to, self._events = 0, []
                file.seek(self._read_to)
                whole, _, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        if whole:
            self._read_to += len(whole) + 1
            self._events += [json.loads(line) for line in whole.splitlines()]
        return self._events[since:]

    def status(self) -> Status:
        """How it stands, from ``status.json`` and whether the process lives."""
        value = _read(self.folder / "status.json")
        if value is None:
            return Status("queued" if self.key() else "interrupted")
        state: State = value["state"]
        if (state == "running" and not self._lives(value["pid"])) or (
            state == "queued" and not self._starts()
        ):
            state = "interrupted"
        error = value.get("error")
        text = None if error is None else _error(error)
        self.events()
        last = next((e for e in reversed(self._events) if e["event"] == "step"), None)
        if last is None:
            return Status(state, error=None if text is None else str(text))
        return Status(
            state,
            last["step"],
            last["total_steps"],
            last["seconds_left"],
            None if text is None else str(text),
        )

    def cancel(self) -> None:
        """Stop for good; checkpoints are removed."""
        self._stop()
        if self.status().state != "succeeded":
            _write_state(self.folder, "cancelled")
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def pause(self) -> None:
        """Make a checkpoint and stop."""
        self._stop()

    def resume(self) -> None:
        """Start the process unless it runs or has succeeded."""
        if self.status().state in ("running", "succeeded"):
            return
        if (before := _children.pop(self.id, None)) is not None:
            before.wait()
        _write_state(self.folder, "queued")  # the worker itself writes all that follows
        _children[self.id] = start("worker", self.folder)

    def result(
        self, timeout: float | None = None, on_event: Callable[[Event], None] | None = None
    ) -> TrainingResult:
        """Wait for the end.

        Args:
            timeout: seconds.
            on_event: called with each event from now on.

        Raises:
            TrainingError: it failed, was stopped, or takes longer than ``timeout``.
        """
        end = None if timeout is None else time.monotonic() + timeout
        seen = len(self.events())
        while True:
            status = self.status()
            if on_event is not None:
                for event in self.events(seen):
                    seen += 1
                    on_event(event)
            if status.over:
                break
            if end is not None and time.monotonic() > end:
                raise TrainingError(f"not finished after {timeout:g} s", where=self.id)
            time.sleep(_POLL_SECONDS)
        if (child := _children.pop(self.id, None)) is not None:
            child.wait()  # it has said its last word and is about to end
        if status.state == "succeeded":
            value = _read(self.folder / "training.json")
            if value is not None:
                return TrainingResult.from_dict(value, self.folder)
        error = (_read(self.folder / "status.json") or {}).get("error")
        if error is not None:
            raise _error(error)
        raise TrainingError(
            f"training was {status.state}",
            where=self.id,
            hint="Run the same again: it goes on from the last checkpoint.",
        )

    def _starts(self) -> bool:
        """Whether a process that has not reported yet may still do so."""
        if self.id in _children:
            return _children[self.id].alive()
        age = time.time() - (self.folder / "status.json").stat().st_mtime
        return abs(age) < _START_SECONDS  # a clock that was set back makes files of the future

    def _lives(self, pid: int) -> bool:
        if self.id in _children and _children[self.id].pid == pid:
            return _children[self.id].alive()
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return _signal(pid, 0) if not Path("/proc/self").exists() else False
        # A process number may belong to somebody else by now.
        return b"tunewise.training." in command

    def _stop(self) -> None:
        # The worker installs its handlers before it reports; until then there is nobody to tell.
        while self.status().state == "queued":
            time.sleep(_POLL_SECONDS)
        value = _read(self.folder / "status.json")
        if value is None or not self._lives(value["pid"]):
            return
        _signal(value["pid"], signal.SIGTERM)
        while self._lives(value["pid"]):
            time.sleep(_POLL_SECONDS)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def _write_state(folder: Path, state: State) -> None:
    write_json_atomic(folder / "status.json", {"state": state, "pid": 0})


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _error(value: dict[str, Any]) -> TrainingError:
    kind = _KINDS.get(str(value.get("kind")), TrainingError)
    return kind(value["message"], where=value.get("where"), hint=value.get("hint"))
