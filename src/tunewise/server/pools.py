"""Threads for what blocks: a pool for each kind of work, with a share of it for each project.

Handlers that wait (for a grader, a disk, the engine) would otherwise wait in the threads that look
up keys and answer everybody else. A pool that is full says so at once: nobody is kept waiting for
a place that others hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

from tunewise.server.access import Caller
from tunewise.server.errors import ApiError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 2


class Turns:
    """Lets everybody do a few things at once, and wait for nobody but themselves.

    Args:
        places: for each name.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """One of the places of ``name``."""
        lane = self._lanes.setdefault(name, _Lane(asyncio.Semaphore(self._places)))
        lane.calls += 1
        try:
            async with lane.places:
                yield
        finally:
            lane.calls -= 1
            if not lane.calls:
                self._lanes.pop(name, None)


@dataclass(slots=True)
class _Lane:
    """Places of one name, and how many calls have or want them."""

    places: asyncio.Semaphore
    calls: int = 0


class Pool:
    """Threads for one kind of work.

    Args:
        name: what runs in it, for messages.
        threads: calls that run at once.
        running: of them, those of one project.
        waiting: calls of one project that may wait beside those.
    """

    def __init__(self, name: str, *, threads: int, running: int, waiting: int) -> None:
        self._name = name
        self._threads = threads
        self._running = running
        self._most = running + waiting
        self._total = 4 * self._most
        self._lanes: dict[str, _Lane] = {}
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(
        self, caller: Caller, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call ``work`` in a thread of the pool.

        Raises:
            ApiError: 429, the project's share is used up; 503, the whole pool is.
        """
        lane = self._lanes.setdefault(caller.project, _Lane(asyncio.Semaphore(self._running)))
        try:
            self._enter(lane)
            try:
                async with lane.places:
                    return await anyio.to_thread.run_sync(
                        lambda: work(*args, **kwargs), limiter=self._threads_of_loop()
                    )
            finally:
                lane.calls -= 1
        finally:
            if not lane.calls:
                self._lanes.pop(caller.project, None)

    def _enter(self, lane: _Lane) -> None:
        headers = {"Retry-After": str(RETRY_SECONDS)}
        if lane.calls >= self._most:
            raise ApiError(
                429,
                f"Too many {self._name} of this project run or wait already ({lane.calls}). Send "
                "fewer at once, or try again in a moment.",
                type="requests",
                code="too_many_at_once",
                headers=headers,
            )
        if sum(one.calls for one in self._lanes.values()) >= self._total:
            raise ApiError(
                503,
                f"Too many {self._name} run at once. Try again in a moment.",
                type="server_error",
                code="overloaded",
                headers=headers,
            )
        lane.calls += 1

    def _threads_of_loop(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # made here, since it belongs to the event loop
            self._limiter = anyio.CapacityLimiter(self._threads)
        return self._limiter


@dataclass
class Pools:
    """The pools of a server.

    Attributes:
        sandboxes: Python graders, each of which may take its 2 GB.
        graders: all others; they wait for the engine.
        embeddings: they wait for the engine, too.
        files: what reads or writes whole files: checks, joins, copies.
    """

    sandboxes: Pool = field(
        default_factory=lambda: Pool("Python graders", threads=2, running=1, waiting=16)
    )
    graders: Pool = field(
        default_factory=lambda: Pool("graders", threads=16, running=8, waiting=32)
    )
    embeddings: Pool = field(
        default_factory=lambda: Pool("embeddings", threads=16, running=8, waiting=64)
    )
    files: Pool = field(
        default_factory=lambda: Pool("uploads and checks of files", threads=8, running=4,
                                     waiting=32)
    )  # fmt: skip
