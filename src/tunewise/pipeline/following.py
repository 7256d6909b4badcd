"""Following a training run: its events as lines for whoever watches, and waiting for its end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tunewise.data.chat import Progress
from tunewise.pipeline.reporter import Reporter
from tunewise.routes.base import Handle
from tunewise.training.job import TrainingResult

_TELLINGS = 10
"""How often the loss is told on the way."""


class Follower:
    """Tells a reporter how far a run is, and what of its events is worth a line.

    Args:
        losses: also its sizes, its loss now and then, and each look at dev.
    """

    def __init__(self, reporter: Reporter, progress: Progress, *, losses: bool = False) -> None:
        self._reporter = reporter
        self._progress = progress
        self._losses = losses

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        handler = getattr(self, f"_on_{event.get('event')}", None)
        if handler is not None:
            handler(event)

    def _on_start(self, event: Mapping[str, Any]) -> None:
        if not self._losses or not event.get("tokens_per_epoch"):
            return
        tokens, trained = event["tokens_per_epoch"], event["trained_tokens_per_epoch"]
        # Where answers are sampled on the way (grpo), none is learnt yet.
        share = f", {trained / tokens:.0%} of them learnt" if trained else ""
        self._reporter.note(
            f"{tokens:,} tokens an epoch{share}; {event['trainable_parameters']:,} weights learn"
        )

    def _on_resume(self, event: Mapping[str, Any]) -> None:
        self._reporter.note(f"goes on from step {event['step']} of {event['total_steps']}")

    def _on_date(self, event: Mapping[str, Any]) -> None:
        self._reporter.note(
            f"the chat template writes a date: {event['date']} in training, and wherever the "
            "tuned model is asked"
        )

    def _on_form(self, event: Mapping[str, Any]) -> None:
        del event
        self._reporter.note(
            "trained on bare text, prompt and completion as they stand, without the chat "
            "template; the tuned model is asked so too"
        )

    def _on_path(self, event: Mapping[str, Any]) -> None:
        if event["path"] == "plain":
            self._reporter.note(f"one row at a time, which is slower: {event['reason']}")

    def _on_memory(self, event: Mapping[str, Any]) -> None:
        if not event["fits"]:
            self._reporter.warn(
                f"the longest row ({event['longest']:,} tokens) may not fit this machine's memory; "
                "a lower `fine_tune.max_length` leaves it out"
            )
        elif event["recompute"]:
            self._reporter.note("activations are computed twice, to save memory")

    def _on_finding(self, event: Mapping[str, Any]) -> None:
        # Those of the rows to learn from were told before the run began.
        if event["split"] == "dev" and event["severity"] != "info":
            rows = ", ".join(event["rows"][:3])
            self._reporter.warn(f"dev: {event['message']} ({event['count']:,}: {rows})")

    def _on_step(self, event: Mapping[str, Any]) -> None:
        step, total = int(event["step"]), int(event["total_steps"])
        self._progress(step, total)
        if self._losses and "loss" in event and _tells(step, total):
            rate = event.get("tokens_per_second")
            speed = "" if rate is None else f", {rate:,.0f} tokens/s"
            self._reporter.note(f"step {step:,} of {total:,}: loss {event['loss']:.3f}{speed}")

    def _on_eval(self, event: Mapping[str, Any]) -> None:
        if not self._losses or event.get("dev_loss") is None:
            return
        best = ", the lowest so far" if event.get("best_step") == event["step"] else ""
        text = f"step {event['step']:,}: dev loss {event['dev_loss']:.3f}{best}"
        if event.get("stopped_early"):
            text += "; it falls no more, so the run ends here"
        self._reporter.note(text)

    def _on_tracker(self, event: Mapping[str, Any]) -> None:
        self._reporter.warn(f"{event['tracker']} follows no more: {event['error']}")


def _tells(step: int, total: int) -> bool:
    """Whether ``step`` is the first of a tenth of the way, or the first of all."""
    return step == 1 or step * _TELLINGS // total > (step - 1) * _TELLINGS // total


def wait(handle: Handle, listen: Callable[[], None], *, pause: bool) -> TrainingResult:
    """Wait for a job's end.

    Args:
        listen: called again and again meanwhile.
        pause: Ctrl-C and SIGTERM pause the job, so that it can go on later. A hosted job goes on
            by itself, and the same study finds it again.

    Raises:
        TrainingError: it failed.
    """
    try:
        with _terminated_as_interrupted():
            while not handle.status().over:
                listen()
                time.sleep(0.1)
            listen()
            return handle.result()
    except KeyboardInterrupt:
        if pause:
            handle.pause()
        raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: what trains in a process of its own would go on otherwise."""
    if threading.current_thread() is not threading.main_thread():  # no place for handlers
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
