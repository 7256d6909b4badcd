"""The API's side of the engine: starts its process, talks to it, starts it again if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from itertools import count
from typing import Any

from tunewise.processes import command, environment
from tunewise.server.inference import wire
from tunewise.server.inference.lanes import Lanes
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.inference.protocol import (
    Done,
    Embed,
    Embedded,
    EngineError,
    Event,
    Failed,
    Generate,
    LoadedInfo,
    Piece,
)

log = logging.getLogger(__name__)

_Sink = Callable[[list[Event | Embedded]], None]

_DIED = Failed(
    "The engine's process ended while this request was running; it is being started again. "
    "Send the request again.",
    "server_error",
)
_STOPPED = Failed("The server is stopping.", "server_error")
_MOST_WAIT_S = 10.0
_SHARE = 0.75
"""Of all that may be computed or wait, what one project may have."""


class InferenceClient:
    """All methods may be called from any thread; ``generate`` from any event loop.

    The API's own threads never wait for the engine: one thread writes to it and one reads from it.

    Args:
        limits: what the engine may take.
    """

    def __init__(self, limits: EngineLimits | None = None) -> None:
        self._limits = limits or EngineLimits()
        self._lock = threading.Lock()
        self._sinks: dict[str, _Sink] = {}
        total = self._limits.rows + self._limits.waiting
        self._lanes = Lanes(self._limits.rows, total, max(1, int(total * _SHARE)))
        self._kept: dict[str, dict[str, Any]] = {}
        self._outbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answers: dict[int, queue.SimpleQueue[list[LoadedInfo]]] = {}
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._stopping = threading.Event()
        self._heard = time.monotonic()

    @property
    def pid(self) -> int | None:
        """The engine's process, for monitoring; None where there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the engine's process; returns at once, requests wait until it is ready."""
        with self._lock:
            if self._keeper is not None:
                return
            self._stopping.clear()
            self._launch()
            self._keeper = threading.Thread(target=self._keep, name="engine", daemon=True)
            self._keeper.start()

    def stop(self) -> None:
        """End the engine's process; running requests fail."""
        self._stopping.set()
        process, keeper = self._process, self._keeper
        if process is not None:
            self._outbox.put(None)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
        if keeper is not None:
            keeper.join(10)
        self._keeper = None
        self._fail_all(_STOPPED)

    async def generate(self, request: Generate) -> AsyncIterator[Piece | Done | Failed]:
        """The answer as it comes: pieces, then one ``Done`` or ``Failed``.

        Closing the iterator early (as when the caller's connection ends) cancels the request.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[list[Event | Embedded]] = asyncio.Queue()

        def sink(events: list[Event | Embedded]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(arrived.put_nowait, events)

        refused = self._submit(request, sink, "generate", request.n)
        if refused is not None:
            yield refused
            return
        over = False
        try:
            while not over:
                for event in await arrived.get():
                    assert not isinstance(event, Embedded)
                    over = over or not isinstance(event, Piece)
                    yield event
        finally:
            if not over:
                self.cancel(request.id)

    def generate_sync(self, request: Generate) -> list[Piece | Done | Failed]:
        """All of ``generate`` at once, for callers without an event loop."""
        arrived: queue.SimpleQueue[list[Event | Embedded]] = queue.SimpleQueue()
        refused = self._submit(request, arrived.put, "generate", request.n)
        if refused is not None:
            return [refused]
        events: list[Piece | Done | Failed] = []
        try:
            while not events or isinstance(events[-1], Piece):
                events += [e for e in arrived.get() if not isinstance(e, Embedded)]
        except BaseException:
            self.cancel(request.id)
            raise
        return events

    def embed_sync(self, request: Embed) -> Embedded:
        """Vectors of texts.

        Raises:
            EngineError: the engine could not compute them; its ``failed`` says why.
        """
        arrived: queue.SimpleQueue[list[Event | Embedded]] = queue.SimpleQueue()
        refused = self._submit(request, arrived.put, "embed", 1)
        (event,) = [refused] if refused is not None else arrived.get()
        if isinstance(event, Embedded):
            return event
        assert isinstance(event, Failed)
        raise EngineError(event)

    def cancel(self, id: str) -> None:
        """Stop computing a request whose caller is gone; unknown ids are ignored."""
        with self._lock:
            sink = self._drop(id)
        if sink is not None:
            self._outbox.put({"cancel": id})
            sink([Failed("The request was cancelled.", "cancelled")])

    def loaded(self) -> list[LoadedInfo]:
        """What is in memory; empty while the engine does not answer."""
        number = next(self._numbers)
        answer: queue.SimpleQueue[list[LoadedInfo]] = queue.SimpleQueue()
        self._answers[number] = answer
        self._outbox.put({"loaded": number})
        try:
            return answer.get(timeout=10)
        except queue.Empty:
            return []
        finally:
            del self._answers[number]

    def _submit(
        self, request: Generate | Embed, sink: _Sink, kind: str, rows: int
    ) -> Failed | None:
        """Send a request; gives the refusal where it cannot be taken."""
        with self._lock:
            if self._keeper is None or self._stopping.is_set():
                return Failed("The engine is not running.", "server_error")
            if request.id in self._sinks:
                return Failed(f"A request with the id {request.id} is running.", "invalid_request")
            scope = request.scope if isinstance(request, Generate) else ""
            entry = self._lanes.enter(request.id, request.model.base, scope, rows)
            if entry in ("full", "share"):
                shared = entry == "share"
                held = self._lanes.held_by(scope) if shared else self._lanes.held
                whose = " of this project" if shared else ""
                return Failed(
                    f"{held} answers{whose} are being computed or wait already. Try again shortly.",
                    "overloaded",
                )
            self._sinks[request.id] = sink
            message = {kind: wire.pack_request(request)}
            if entry == "go":
                self._outbox.put(message)
            else:
                self._kept[request.id] = message
        return None

    def _drop(self, id: str) -> _Sink | None:
        sink = self._sinks.pop(id, None)
        self._kept.pop(id, None)
        for following in self._lanes.leave(id):
            self._outbox.put(self._kept.pop(following))
        return sink

    def _drop_all(self) -> list[_Sink]:
        lost = list(self._sinks.values())
        self._sinks, self._kept = {}, {}
        self._lanes.clear()
        return lost

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            command("tunewise.server.inference.process", json.dumps(asdict(self._limits))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self._heard = time.monotonic()
        for target in (self._write, self._watch):
            threading.Thread(target=target, args=(self._process,), daemon=True).start()

    def _keep(self) -> None:
        """Read from the process while it lives, and start another one when it dies."""
        wait = 0.0
        while True:
            process = self._process
            assert process is not None and process.stdout is not None
            began = time.monotonic()
            with contextlib.suppress(OSError, ValueError):
                while (message := wire.receive(process.stdout)) is not None:
                    self._heard = time.monotonic()
                    self._deliver(message)
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:  # it runs, but can be talked to no longer
                process.kill()
                process.wait()
            with self._lock:
                self._outbox.put(None)  # ends the writer
            if self._stopping.is_set():
                self._close_pipes(process)
                return
            log.error("the engine's process ended (code %s); starting it again", process.returncode)
            # One that dies at once would otherwise be started without end.
            wait = min(_MOST_WAIT_S, 2 * wait + 0.5) if time.monotonic() - began < 10 else 0.0
            with self._lock:
                lost = self._drop_all()
                self._outbox = queue.SimpleQueue()
            for sink in lost:
                sink([_DIED])
            self._close_pipes(process)
            if self._stopping.wait(wait):
                return
            self._launch()

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        outbox, stream = self._outbox, process.stdin
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):
            while (message := outbox.get()) is not None:
                wire.send(stream, message)
        with contextlib.suppress(OSError):
            stream.close()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """End a process that gives no sign of life."""
        while process.poll() is None and not self._stopping.wait(1.0):
            if time.monotonic() - self._heard > self._limits.stall_s:
                log.error("the engine gave no sign of life for %g s", self._limits.stall_s)
                process.kill()

    def _deliver(self, message: dict[str, Any]) -> None:
        if "loaded" in message:
            answer = self._answers.get(message["loaded"])
            if answer is not None:
                answer.put([wire.unpack_loaded(m) for m in message["models"]])
            return
        by_id: dict[str, list[Event | Embedded]] = {}
        for id, values in message.get("events", ()):
            by_id.setdefault(id, []).append(wire.unpack_event(values))
        for id, events in by_id.items():
            with self._lock:
                over = not isinstance(events[-1], Piece)
                sink = self._drop(id) if over else self._sinks.get(id)
            if sink is not None:
                sink(events)

    def _fail_all(self, failed: Failed) -> None:
        with self._lock:
            lost = self._drop_all()
        for sink in lost:
            sink([failed])

    @staticmethod
    def _close_pipes(process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
