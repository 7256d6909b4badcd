"""Calls into a sandbox: one at a time, each under its own limits, none ever raising."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from tunewise.errors import TunewiseError
from tunewise.scoring.sandbox.process import LONGEST_REPLY, Process
from tunewise.scoring.sandbox.walls import Limits, Wrap

MAX_SOURCE_BYTES = 256 * 1024

Ending = Literal["ok", "raised", "timeout", "crashed", "refused"]

_START_S = 20.0


class SandboxError(TunewiseError):
    """No sandbox can be had here, so nothing of somebody else's is run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        ending: ``ok``; ``raised`` for an exception or a result that is no finite number;
            ``timeout``; ``crashed`` where the process ended; ``refused`` where none could start.
        value: the result, where ``ok``.
        error: what happened otherwise, in a line.
    """

    ending: Ending
    value: float = 0.0
    error: str | None = None


class Sandbox:
    """One function in one sandbox. Calls are made one at a time; other threads wait.

    Args:
        source: Python source that defines ``function``.
        function: its name; it takes JSON values and returns a finite number.
        limits: what it may use.
        wrap: how the walls are built; by default what :func:`require_sandbox` gives.

    Raises:
        SandboxError: no sandbox can be had here, or the source is too large.
    """

    def __init__(
        self,
        source: str,
        function: str,
        limits: Limits | None = None,
        *,
        wrap: Wrap | None = None,
    ) -> None:
        if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
            raise SandboxError(f"the source is larger than {MAX_SOURCE_BYTES // 1024} KiB")
        self._wrap = wrap or _found()
        self._source = source
        self._function = function
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._broken: Outcome | None = None
        self._busy_s = 0.0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> Outcome:
        """Load the source without calling anything; ``ok`` where it defines the function."""
        with self._lock:
            return self._ready() or Outcome("ok")

    def call(self, *arguments: Any) -> Outcome:
        """Call the function with JSON values; never raises for what the function does."""
        with self._lock:
            failed = self._ready()
            if failed is not None or self._process is None:
                return failed or Outcome("refused", error="the sandbox is closed")
            start = time.monotonic()
            outcome = self._ask({"arguments": arguments})
            self._busy_s += time.monotonic() - start
            return outcome

    def close(self) -> None:
        """End the process and everything that runs with it."""
        with self._lock:
            self._end()

    def _ready(self) -> Outcome | None:
        """Start the process where none runs; what went wrong, else None."""
        # A source that cannot be loaded today cannot be loaded a second later: say so at once,
        # or a hanging import would cost its whole time limit with every call.
        if self._broken is not None:
            return self._broken
        if self._busy_s > self._limits.lifetime_s / 2:
            self._end()
        if self._process is None:
            self._process = Process(self._wrap, self._limits)
            self._busy_s = 0.0
            ready = self._ask(None)
            if ready.ending != "ok":
                self._end()
                return Outcome("refused", error=ready.error)
            loaded = self._ask({"source": self._source, "function": self._function})
            if loaded.ending != "ok":
                self._end()
                self._broken = loaded
                return loaded
        return None

    def _ask(self, request: dict[str, Any] | None) -> Outcome:
        """Send a request and read its answer; None only reads the worker's first word."""
        process = self._process
        assert process is not None
        seconds = self._limits.call_s if request is not None else _START_S
        try:
            text = json.dumps(request, allow_nan=False) + "\n" if request is not None else ""
        except (ValueError, TypeError, RecursionError) as error:
            return Outcome("raised", error=f"the arguments are no JSON: {error}")
        try:
            reply = json.loads(process.exchange(text.encode(), seconds))
            if reply.get("error") is not None:
                return Outcome("raised", error=str(reply["error"])[:LONGEST_REPLY])
            value = float(reply["ok"] or 0.0)
            if not math.isfinite(value):
                raise ValueError("no finite number")
            return Outcome("ok", value)
        except TimeoutError:
            self._end()
            return Outcome("timeout", error=f"took longer than {seconds:g} s and was ended")
        except EOFError:
            code, said = process.end(grace=2.0)
            self._end()
            return Outcome(*_how_it_ended(code, said, seconds))
        except (ValueError, TypeError, AttributeError, KeyError):
            # Who writes into the channel from inside spoils only their own result.
            self._end()
            return Outcome("crashed", error="the function wrote into its caller's channel")

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


def _found() -> Wrap:
    from tunewise.scoring.sandbox.probe import require_sandbox

    return require_sandbox()


def _how_it_ended(code: int, said: str, seconds: float) -> tuple[Ending, float, str]:
    if said:
        return "refused", 0.0, f"the sandbox could not be built: {said}"
    if code == 128 + signal.SIGXCPU:
        return "timeout", 0.0, f"used more than {seconds:g} s of processor time and was ended"
    if code > 128:
        with contextlib.suppress(ValueError):
            return "crashed", 0.0, f"its process was ended by {signal.Signals(code - 128).name}"
    return "crashed", 0.0, f"its process ended itself with code {code}"
