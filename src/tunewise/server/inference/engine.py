"""The engine's own thread: takes requests, has them prepared, steps the models, tells of it."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from tunewise.server.inference import wire
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.inference.memory import Budget
from tunewise.server.inference.models import Held, Models, Wish
from tunewise.server.inference.prepare import (
    RefusedError,
    count_tokens,
    prepare,
    prompt_ids,
    too_long,
)
from tunewise.server.inference.protocol import Done, Embed, Embedded, Event, Failed, Generate
from tunewise.server.inference.runner import Runner
from tunewise.server.inference.sequence import RequestState
from tunewise.server.inference.serving import Serving

log = logging.getLogger(__name__)

_HEARTBEAT_S = 2.0
_CRASHED = Failed("The engine failed at this request; the server's log says why.", "server_error")


@dataclass(slots=True, eq=False)
class _Embedding:
    """Texts that wait for their vectors."""

    id: str
    held: Held
    inputs: list[list[int]]
    vectors: list[torch.Tensor]


class Engine:
    """Answers what comes in, until told to end.

    Args:
        limits: what it may take.
        send: takes messages for the other process.
    """

    def __init__(self, limits: EngineLimits, send: Callable[[dict[str, Any]], None]) -> None:
        self._limits, self._send = limits, send
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._budget = Budget(limits.cache_bytes)
        self._models = Models(limits, self._budget, self._inbox.put)
        self._models.on_evict = self._forget
        self._preparing = ThreadPoolExecutor(2, "prepare")
        self._runners: dict[Serving, Runner] = {}
        self._held: dict[str, Held] = {}
        self._open: set[str] = set()
        self._embeddings: deque[_Embedding] = deque()
        self._events: list[list[Any]] = []
        self._told = 0.0
        self._ending = False
        fast = torch.cuda.is_available()
        self._chunk = limits.chunk or (2048 if fast else 256)

    def take(self, message: dict[str, Any] | None) -> None:
        """Take a message of the other process, from any thread; None ends the engine."""
        self._inbox.put(lambda: self._handle(message))

    @torch.inference_mode()
    def run(self) -> None:
        """Work until the end."""
        while not self._ending:
            busy = [r for r in self._runners.values() if r.busy]
            self._read_inbox(wait=not busy and not self._embeddings)
            for runner in list(self._runners.values()):
                if runner.busy:
                    self._guarded(runner.step, runner)
            if self._embeddings:
                self._embed_some()
            self._tell()

    def _read_inbox(self, *, wait: bool) -> None:
        try:
            self._inbox.get(wait, _HEARTBEAT_S)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _tell(self) -> None:
        now = time.monotonic()
        if self._events:
            events, self._events = self._events, []
            self._send({"events": events})
            self._told = now
        elif now - self._told >= _HEARTBEAT_S:
            self._send({"alive": True})
            self._told = now

    def _emit(self, id: str, event: Event | Embedded) -> None:
        self._events.append([id, wire.pack_event(event)])

    def _guarded(self, step: Callable[[], None], runner: Runner) -> None:
        try:
            step()
        except Exception:
            log.exception("a step failed")
            runner.fail_all(_CRASHED)

    def _handle(self, message: dict[str, Any] | None) -> None:
        if message is None:
            self._ending = True
        elif "generate" in message:
            self._accept(message["generate"], lambda v: self._generate(wire.unpack_generate(v)))
        elif "embed" in message:
            self._accept(message["embed"], lambda v: self._embed(wire.unpack_embed(v)))
        elif "cancel" in message:
            self._cancel(message["cancel"])
        elif "loaded" in message:
            infos = [wire.pack_loaded(info) for info in self._models.info()]
            self._send({"loaded": message["loaded"], "models": infos})

    def _accept(self, values: dict[str, Any], accept: Callable[[dict[str, Any]], None]) -> None:
        """Take one request; whatever is odd about it must not end the others'."""
        try:
            accept(values)
        except Exception:
            log.exception("a request could not be taken")
            self._open.discard(values["id"])
            self._emit(values["id"], _CRASHED)

    def _generate(self, request: Generate) -> None:
        def counted(id: str, tokens: int) -> None:
            self._emit(id, Done(tokens, 0, 0))
            self._ended(id)

        def work(held: Held) -> Callable[[], None]:
            if request.count_only:
                tokens = count_tokens(request, held.serving, held.trained)
                return lambda: counted(request.id, tokens)
            state = prepare(request, held.serving, held.number, held.trained)
            return lambda: self._start(state, held)

        self._get_ready(request, work)

    def _embed(self, request: Embed) -> None:
        def work(held: Held) -> Callable[[], None]:
            inputs = [prompt_ids(text, held.serving) for text in request.inputs]
            limit = held.serving.loaded.context_length
            for ids in inputs:
                if len(ids) > limit:
                    raise too_long(limit, len(ids), "input")
            embedding = _Embedding(request.id, held, inputs, [])
            return lambda: self._embeddings.append(embedding)

        self._get_ready(request, work)

    def _get_ready(
        self, request: Generate | Embed, work: Callable[[Held], Callable[[], None]]
    ) -> None:
        """Have the model loaded, then ``work`` done beside the running steps, then its result."""
        id = request.id
        self._open.add(id)

        def fail(failed: Failed) -> None:
            if id in self._open:
                self._open.discard(id)
                self._emit(id, failed)

        def beside(held: Held) -> None:
            try:
                then = work(held)
            except RefusedError as error:
                failed = error.failed
            except Exception:
                log.exception("a request could not be prepared")
                failed = _CRASHED
            else:
                self._inbox.put(lambda: self._when_ready(id, held, then))
                return

            def refuse() -> None:
                fail(failed)
                self._models.release(held)

            self._inbox.put(refuse)

        def ready(held: Held) -> None:
            if id in self._open:
                self._preparing.submit(beside, held)
            else:
                self._models.release(held)

        self._models.want(Wish(request.model, ready, fail))

    def _when_ready(self, id: str, held: Held, then: Callable[[], None]) -> None:
        if id in self._open:
            self._held[id] = held
            then()
        else:
            self._models.release(held)

    def _start(self, state: RequestState, held: Held) -> None:
        runner = self._runners.get(held.serving)
        if runner is None:
            runner = self._runners[held.serving] = Runner(
                held.serving,
                self._emit,
                lambda request: self._ended(request.id),
                self._free_memory,
                self._limits.rows,
                self._chunk,
            )
        runner.add(state)

    def _ended(self, id: str) -> None:
        self._open.discard(id)
        held = self._held.pop(id, None)
        if held is not None:
            self._models.release(held)

    def _cancel(self, id: str) -> None:
        self._open.discard(id)
        held = self._held.get(id)
        if held is None:
            return
        waiting = [e for e in self._embeddings if e.id == id]
        for embedding in waiting:
            self._embeddings.remove(embedding)
            self._ended(id)
        runner = self._runners.get(held.serving)
        if runner is not None:
            runner.cancel(id)

    def _free_memory(self) -> bool:
        return any(serving.backend.shrink() for serving in self._models.all)

    def _forget(self, serving: Serving) -> None:
        self._runners.pop(serving, None)

    def _embed_some(self) -> None:
        """Compute a few inputs of the first embedding request, and send it to the end."""
        work = self._embeddings.popleft()
        done = len(work.vectors)
        last, tokens = done, 0
        while last < len(work.inputs) and (last == done or tokens < self._chunk):
            tokens += len(work.inputs[last])
            last += 1
        try:
            if last > done:
                found = work.held.serving.backend.embed(work.inputs[done:last], work.held.number)
                work.vectors += torch.nn.functional.normalize(found, dim=-1)
        except Exception:
            log.exception("an embedding failed")
            self._emit(work.id, _CRASHED)
            self._ended(work.id)
            return
        if last < len(work.inputs):
            self._embeddings.append(work)
            return
        vectors = tuple(tuple(v.tolist()) for v in work.vectors)
        self._emit(work.id, Embedded(vectors, sum(map(len, work.inputs))))
        self._ended(work.id)
