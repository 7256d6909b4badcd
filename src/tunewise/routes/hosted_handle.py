"""A job at a hosted service: followed live, stopped, and its result fetched."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewise.errors import TrainingError
from tunewise.routes.base import Event, State, Status
from tunewise.routes.hosted_calls import Connection, explained
from tunewise.routes.hosted_results import Curves, parse_results
from tunewise.training.job import TrainingResult
from tunewise.workspace import write_bytes_atomic

STATES: Mapping[str, State] = {
    "validating_files": "queued",
    "created": "queued",
    "pending": "queued",
    "notRunning": "queued",
    "queued": "queued",
    "running": "running",
    "resuming": "running",
    "pausing": "running",
    "canceling": "running",
    "paused": "paused",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
"""OpenAI's and Azure's words; an unknown one counts as running, since only the known are ends."""

_STEP = re.compile(r"Step (\d+)(?:/(\d+))?: training loss=([0-9.eE+-]+|nan|inf)")
_PAGE = 100


def _state(job: Any) -> State:
    # A server of ours says `queued` and beside it `paused`: OpenAI's document has no such status.
    if getattr(job, "paused", None) is True:
        return "paused"
    return STATES.get(job.status, "running")


class HostedHandle:
    """A job at a service.

    Args:
        job_id: the service's own id.
        folder: where the result file is kept; None keeps none.
        rows: of the training file, where known.
        poll_seconds: the service is asked at most this often.
    """

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        *,
        folder: Path | None = None,
        rows: int = 0,
        poll_seconds: float | None = None,
    ) -> None:
        self.id = f"{connection.prefix}:{job_id}"
        self.connection = connection
        self.job_id = job_id
        self.folder = folder
        self.rows = rows
        default = 0.5 if connection.is_loopback else 5.0
        self.poll_seconds = default if poll_seconds is None else poll_seconds
        self._jobs = connection.reading.fine_tuning.jobs
        self._job: Any = None
        self._asked = -1e9
        self._events: list[Event] = []
        self._known: set[str] = set()
        self._listed = -1e9
        self._complete = False

    def events(self, since: int = 0) -> list[Event]:
        """Events from number ``since`` (counted from 0) on, oldest first.

        Each is ``{"event": "step", "step", "total_steps", "loss", …}`` with the service's other
        figures, or ``{"event": "message", "level", "message"}``; all have ``created_at``.

        Raises:
            TrainingError: the service cannot be asked.
        """
        over = self.status().over
        due = time.monotonic() - self._listed >= self.poll_seconds
        if not self._complete if over else due:
            self._read_events()
            self._complete = over
        return self._events[since:]

    def status(self) -> Status:
        """How it stands; asked anew once in ``poll_seconds``.

        Raises:
            TrainingError: the service cannot be asked.
        """
        job = self._fetch()
        state = _state(job)
        last = next((e for e in reversed(self._events) if e["event"] == "step"), None)
        finish = getattr(job, "estimated_finish", None)
        return Status(
            state,
            step=last["step"] if last else None,
            total_steps=last["total_steps"] if last else None,
            seconds_left=max(0.0, finish - time.time()) if finish and state == "running" else None,
            error=_failure(job) if state == "failed" else None,
        )

    def cancel(self) -> None:
        """Stop for good; what was trained until then is billed."""
        if not self.status().over or self.status().state == "paused":
            self._change("cancel")

    def pause(self) -> None:
        """Make a checkpoint and stop."""
        self._change("pause")

    def resume(self) -> None:
        """Go on after a pause; harmless while it runs."""
        self._asked = -1e9
        if self.status().state == "paused":
            self._change("resume")
            self._complete = False

    def result(
        self, timeout: float | None = None, on_event: Callable[[Event], None] | None = None
    ) -> TrainingResult:
        """Wait for the end, then fetch losses and the tuned model's name.

        Args:
            timeout: seconds.
            on_event: called with each event from now on.

        Raises:
            TrainingError: it failed, was stopped, or takes longer than ``timeout``.
        """
        end = None if timeout is None else time.monotonic() + timeout
        seen = 0 if on_event is None else len(self.events())
        while True:
            status = self.status()
            for event in self.events(seen) if on_event is not None else ():
                seen += 1
                on_event(event)  # type: ignore[misc]
            if status.over:
                break
            if end is not None and time.monotonic() > end:
                raise TrainingError(f"not finished after {timeout:g} s", where=self.id)
            time.sleep(self.poll_seconds)
        if status.state == "succeeded":
            return self._result()
        raise TrainingError(
            status.error or f"training was {status.state}",
            where=self.id,
            hint="Resume it, and wait again."
            if status.state == "paused"
            else "Mend what it names and run the same again: a new job is made.",
        )

    @property
    def fine_tuned_model(self) -> str | None:
        """The tuned model's own name at the service, once there is one."""
        name: str | None = self._fetch().fine_tuned_model
        return name

    def remote(self) -> str | None:
        """The tuned model as a study names it, or None where it cannot be asked yet."""
        name = self.fine_tuned_model
        return None if name is None else f"{self.connection.prefix}:{name}"

    def checkpoints(self) -> list[dict[str, Any]]:
        """Weights kept during the job, newest first: ``name``, ``step`` and ``metrics``.

        Raises:
            TrainingError: the service cannot be asked.
        """
        found = self._call(lambda: list(self._jobs.checkpoints.list(self.job_id)))
        return [
            {
                "name": c.fine_tuned_model_checkpoint,
                "step": c.step_number,
                "metrics": c.metrics.model_dump(exclude_none=True) if c.metrics else {},
            }
            for c in found
        ]

    def _fetch(self) -> Any:
        final = self._job is not None and STATES.get(self._job.status) in (
            "succeeded",
            "failed",
            "cancelled",
        )
        if not final and time.monotonic() - self._asked >= self.poll_seconds:
            self._job = self._call(lambda: self._jobs.retrieve(self.job_id))
            self._asked = time.monotonic()
        return self._job

    def _read_events(self) -> None:
        # They come newest first, and more may come while pages are turned.
        def read() -> list[Any]:
            fresh = []
            for event in self._jobs.list_events(self.job_id, limit=_PAGE):
                if event.id in self._known:
                    break
                fresh.append(event)
            return fresh

        fresh = self._call(read)
        self._listed = time.monotonic()
        self._known.update(event.id for event in fresh)
        self._events += [as_event(event) for event in reversed(fresh)]

    def _change(self, what: str) -> None:
        # Repeated after a lost answer it would be refused for being done already.
        jobs = self.connection.client.fine_tuning.jobs
        self._job = self._call(lambda: getattr(jobs, what)(self.job_id))
        self._asked = time.monotonic()

    def _call(self, ask: Callable[[], Any]) -> Any:
        import openai

        try:
            return ask()
        except openai.APIError as error:
            raise explained(error, self.id) from None

    def _result(self) -> TrainingResult:
        job, events = self._fetch(), self.events()
        steps = [e for e in events if e["event"] == "step"]
        curves = self._curves(job) or _from_events(steps)
        began = steps[0]["created_at"] if steps else job.created_at
        tokens = job.trained_tokens or 0
        # Reinforcement may be told by its rewards alone.
        last = curves.train_loss[-1][0] if curves.train_loss else curves.last_step
        return TrainingResult(
            adapter=None,
            model=None,
            steps=max([last, *(e["total_steps"] for e in steps[-1:])]),
            best_step=last,
            tokens=tokens,
            trained_tokens=tokens,
            rows=self.rows,
            rows_left_out={},
            seconds=float(max(0, (job.finished_at or began) - began)),
            peak_memory_bytes=0,
            train_loss=[loss for _, loss in curves.train_loss],
            dev_loss=curves.dev_loss,
            path="hosted",
            path_reason=f"trained by {self.connection.place.base_url}",
            config=_config(job, self.id),
            metrics=curves.metrics,
            remote=self.remote(),
        )

    def _curves(self, job: Any) -> Curves | None:
        if not job.result_files:
            return None
        id = job.result_files[0]
        content = self._call(lambda: self.connection.reading.files.content(id).content)
        if self.folder is not None:
            write_bytes_atomic(self.folder / "results.csv", content)
        return parse_results(content, f"{self.connection.prefix}:{id}")


def as_event(event: Any) -> Event:
    """A service's event in the form of the routes."""
    data = event.data if isinstance(event.data, dict) else {}
    said = _STEP.match(event.message)
    step = data.get("step") if data.get("step") is not None else said and said[1]
    common = {"message": event.message, "level": event.level, "created_at": event.created_at}
    if step is None or (event.type != "metrics" and said is None):
        return {"event": "message", **common}
    total = data.get("total_steps") or (said[2] if said else None) or step
    loss = data.get("train_loss", float(said[3]) if said else None)
    figures = {k: v for k, v in data.items() if k not in ("step", "total_steps") and v is not None}
    return {
        **figures,
        "event": "step",
        "step": int(step),
        "total_steps": int(total),
        "loss": loss,
        **common,
    }


def _from_events(steps: list[Event]) -> Curves:
    return Curves(
        train_loss=[(e["step"], e["loss"]) for e in steps if e["loss"] is not None],
        dev_loss=[(e["step"], e["full_valid_loss"]) for e in steps if "full_valid_loss" in e],
        last_step=steps[-1]["step"] if steps else 0,
    )


def _config(job: Any, id: str) -> dict[str, Any]:
    asked = job.method and getattr(job.method, job.method.type, None)
    given = (asked and asked.hyperparameters) or job.hyperparameters
    values = given.model_dump(exclude_none=True) if given else {}
    epochs = values.get("n_epochs")
    return {
        "job": id,
        "model": job.model,
        "fine_tuned_model": job.fine_tuned_model,
        "seed": job.seed,
        "hyperparameters": values,
        **({"epochs": float(epochs)} if isinstance(epochs, int | float) else {}),
    }


def _failure(job: Any) -> str:
    from tunewise.study.keys import redact

    error = job.error
    if error is None or not error.message:
        return "the service says that the job failed, and no more"
    code = f" ({error.code})" if error.code else ""
    return redact(f"the service says: {error.message}{code}")
