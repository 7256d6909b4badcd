"""Answers the requests of all batches, a few at a time, in turn between projects.

What is to be done stands in the database and in the batches' folders: a server that was killed goes
on after the last answer that it kept. A request goes through the application like any other, with
the rights of the key that made the batch.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from tunewise.data.lines import Numbered, json_lines
from tunewise.server.access import Caller
from tunewise.server.batches import work
from tunewise.server.batches.inside import Answered, ask
from tunewise.server.batches.service import ACTIVE
from tunewise.server.batches.tables import Batch
from tunewise.server.clock import surely
from tunewise.server.database import reading, writing
from tunewise.server.errors import told
from tunewise.server.state import ServerState
from tunewise.server.tables import ApiKey

IDLE_SECONDS = 5.0
"""Between two looks while nothing happens: whoever changes a batch rings the bell."""
COUNT_SECONDS = 1.0
"""Between two counts of a batch in the database."""
TRIES = 5
"""Of a request that the server is too busy for."""
PAUSE_SECONDS = 2.0
"""Before the second try; twice as long before each further one."""
BUSY = frozenset({429, 503, 507})


@dataclass(slots=True)
class _Active:
    """A batch in progress.

    Attributes:
        requests: those that are left; None once all were begun.
        running: requests that are being answered.
        turn: when one of its requests was begun last.
    """

    id: str
    project: str
    caller: Caller
    endpoint: str
    folder: Path
    answers: work.Answers
    requests: Iterator[Numbered] | None
    running: int = 0
    turn: float = 0.0
    counted: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class BatchRunner:
    """Runs the batches of a server.

    Args:
        app: the whole application; requests go through it.
    """

    def __init__(self, state: ServerState, app: ASGIApp) -> None:
        self._state = state
        self._app = app
        self._folder = state.settings.home / "batches"
        self._active: dict[str, _Active] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run while the server does; requests that are being answered at its end are asked anew."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._forever())
        try:
            yield
        finally:
            tasks = [task, *self._tasks]
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for active in self._active.values():
                active.answers.close()

    def wake(self) -> None:
        """A batch was made or cancelled; from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._bell.set)

    async def _forever(self) -> None:
        await run_in_threadpool(self._clear)
        while True:
            self._bell.clear()
            try:
                await self._turn()
            except Exception as error:
                told(error, "the runner of batches failed")
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._bell.wait()
            except TimeoutError:
                pass

    async def _turn(self) -> None:
        """Look at all batches that are not over, and begin as many requests as there are places."""
        for row in await run_in_threadpool(self._rows):
            if row.status == "validating":
                await run_in_threadpool(work.check, self._state, row.id)
                self._bell.set()
                continue
            active = self._active.get(row.id)
            if active is None:
                active = self._active[row.id] = await run_in_threadpool(self._open, row)
            if row.status == "cancelling" or row.expires_at <= surely():
                active.requests = None
            if active.requests is None and not active.running:
                ended = {"cancelling": "cancelled"}.get(row.status, "completed")
                if row.status == "in_progress" and len(active.answers.done) < row.total:
                    ended = "expired"
                await run_in_threadpool(
                    work.finish, self._state, row.id, active.folder, active.answers, ended
                )
                del self._active[row.id]
        while len(self._tasks) < self._state.settings.batch_requests_at_once:
            if (active := self._next()) is None:
                return
            await self._begin(active)

    def _next(self) -> _Active | None:
        """The batch whose turn it is: of the project with the fewest running, the longest ago."""
        busy = Counter[str]()
        for active in self._active.values():
            busy[active.project] += active.running
        waiting = [a for a in self._active.values() if a.requests is not None]
        return min(waiting, key=lambda a: (busy[a.project], a.turn), default=None)

    async def _begin(self, active: _Active) -> None:
        assert active.requests is not None
        number, row = await run_in_threadpool(_next_of, active.requests, active.answers.done)
        if not isinstance(row, dict):
            active.requests = None
            self._bell.set()  # perhaps that was all of it
            return
        active.running += 1
        active.turn = time.monotonic()
        task = asyncio.create_task(self._answer(active, number, row))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, active: _Active, number: int, row: dict[str, Any]) -> None:
        try:
            answered = await self._asked(active, json.dumps(row["body"]).encode("utf-8"))
            response = {
                "status_code": answered.status,
                "request_id": answered.request_id,
                "body": answered.body,
            }
            line = work.answer_line(row["custom_id"], response, None)
            async with active.lock:
                await run_in_threadpool(
                    active.answers.add, number, line, failed=answered.status >= 400
                )
                await self._count(active)
        except Exception as error:
            told(error, f"a request of the batch {active.id} failed")
            active.requests = await run_in_threadpool(self._requests, active.id)
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            active.running -= 1
            self._bell.set()

    async def _asked(self, active: _Active, body: bytes) -> Answered:
        for attempt in range(TRIES):
            answered = await ask(self._app, active.caller, active.endpoint, body)
            if answered.status not in BUSY or active.requests is None:
                break
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
        return answered

    async def _count(self, active: _Active) -> None:
        if time.monotonic() - active.counted < COUNT_SECONDS:
            return
        active.counted = time.monotonic()
        failed = active.answers.failed
        values = {"completed": len(active.answers.done) - failed, "failed": failed}

        def write() -> None:
            with writing(self._state.sessions) as session:
                session.execute(update(Batch).where(Batch.id == active.id).values(**values))

        await run_in_threadpool(write)

    def _rows(self) -> Sequence[Batch]:
        with reading(self._state.sessions) as session:
            return session.scalars(
                select(Batch).where(Batch.status.in_(ACTIVE)).order_by(Batch.seq)
            ).all()

    def _open(self, row: Batch) -> _Active:
        folder = self._folder / row.id
        with reading(self._state.sessions) as session:
            key = session.get(ApiKey, row.key_id) if row.key_id else None
        caller = Caller(row.project, row.key_id, False, key_name=key.name if key else "")
        answers = work.Answers(folder)
        requests = self._requests(row.id)
        return _Active(row.id, row.project, caller, row.endpoint, folder, answers, requests)

    def _requests(self, batch_id: str) -> Iterator[Numbered]:
        with reading(self._state.sessions) as session:
            batch = session.scalar(select(Batch).where(Batch.id == batch_id))
            assert batch is not None
            return json_lines(work.requests_path(self._state, session, batch))

    def _clear(self) -> None:
        """Remove the folders of batches that are over: a killed server may have left some."""
        if not self._folder.is_dir():
            return
        kept = {row.id for row in self._rows()}
        for folder in self._folder.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _next_of(requests: Iterator[Numbered], done: set[int]) -> Numbered:
    """The next request that has no answer; ``(0, None)`` where none is left."""
    return next(((number, row) for number, row in requests if number not in done), (0, None))
