"""One project asks for everything at once; the others are answered all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server_support import Running, call, chats, client, envelope, make_key, running_server
from tunewise.server.access import Caller
from tunewise.server.errors import ApiError
from tunewise.server.pools import Pool, Turns

MODEL = "tunewise/tiny"
SLEEPS = {
    "type": "python",
    "name": "sleeps",
    "source": "import time\n\n\ndef grade(sample, item):\n    time.sleep(6)\n    return 1.0\n",
}
EQUAL = {"type": "string_check", "input": "a", "reference": "a", "operation": "eq"}
AT_ONCE = {**SLEEPS, "name": "quick", "source": "def grade(sample, item):\n    return 1.0\n"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "What is 1 plus one?"}]}
RUN = "/v1/fine_tuning/alpha/graders/run"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("neighbours")) as running:
        yield running


class Flood:
    """Many requests of one project, sent at once and left open."""

    def __init__(self, running: Running, key: str, path: str, body: Any, count: int) -> None:
        self._url, self._body, self._count = running.root + path, body, count
        self._headers = {"Authorization": f"Bearer {key}"}
        self.answers: list[httpx2.Response] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def open(self) -> int:
        return sum(not task.done() for task in self._tasks)

    async def __aenter__(self) -> Flood:
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.AsyncClient(
            verify=False, timeout=None, limits=limits, headers=self._headers
        )
        self._tasks = [asyncio.create_task(self._one()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _one(self) -> None:
        self.answers.append(await self._client.post(self._url, json=self._body))

    async def settled(self, most: int) -> None:
        """Until no more than ``most`` are open."""
        async with asyncio.timeout(60):
            while self.open > most:
                await asyncio.sleep(0.02)


def everything(running: Running, key: str) -> None:
    """Chat, files, lists, graders and liveness, one after the other."""
    assert call(running, "GET", "/healthz", key="").json()["status"] == "ok"
    ready = call(running, "GET", "/readyz", key="")
    assert ready.json()["parts"].keys() == {"database", "disk", "engine", "queue"}
    with client(running, key=key, timeout=120) as api:
        file = api.files.create(file=("rows.jsonl", chats(10)), purpose="fine-tune")
        assert api.files.content(file.id).read() == chats(10)
        assert [f.id for f in api.files.list()] == [file.id]
        assert api.files.delete(file.id).deleted
        assert api.chat.completions.create(**CHAT, max_tokens=4).choices
        assert api.embeddings.create(model=MODEL, input="Hi").data
        for grader in (EQUAL, AT_ONCE):
            answer = call(
                running, "POST", RUN, key=key, json={"grader": grader, "model_sample": "a"}
            )
            assert answer.json()["reward"] == 1.0, answer.text


def test_graders_that_sleep_stop_nobody(server: Running) -> None:
    loud, quiet = (make_key(server.home, project=name) for name in ("loud", "quiet"))
    everything(server, quiet)

    async def flood() -> None:
        body = {"grader": SLEEPS, "model_sample": "a"}
        async with Flood(server, loud, RUN, body, 120) as graders:
            await graders.settled(17)  # one runs, sixteen wait; the others were told at once
            refused = Counter(answer.status_code for answer in graders.answers)
            assert refused[429] >= 100 and set(refused) <= {200, 429}
            error = next(a for a in graders.answers if a.status_code == 429)
            assert "Python graders of this project" in envelope(error, 429)["message"]
            assert int(error.headers["retry-after"]) >= 1
            await asyncio.to_thread(everything, server, quiet)
            assert graders.open, "the others were answered while these wait"
            # Nor is the same project's own chat.
            answer = await asyncio.to_thread(
                call, server, "POST", "/v1/chat/completions", key=loud, json=CHAT
            )
            assert answer.status_code == 200 and graders.open

    asyncio.run(flood())


def test_a_flood_of_chats_files_and_lists_leaves_places_to_others(server: Running) -> None:
    loud, quiet = (make_key(server.home, project=name) for name in ("louder", "quieter"))

    async def flood() -> None:
        long = {**CHAT, "max_tokens": 400, "logit_bias": {"20": 100}}
        async with Flood(server, loud, "/v1/chat/completions", long, 300) as answers:
            await answers.settled(256)
            assert {a.status_code for a in answers.answers} <= {200, 429, 503}
            assert all(a.headers["retry-after"] for a in answers.answers if a.status_code != 200)
            with_upload = {"filename": "a", "purpose": "user_data", "bytes": 1, "mime_type": "a/b"}
            async with Flood(server, loud, "/v1/uploads", with_upload, 100):
                await asyncio.to_thread(everything, server, quiet)
                assert answers.open > 50, "the other project did not wait for all of them"

    asyncio.run(flood())


def test_everybody_takes_turns_with_themselves_only() -> None:
    async def work() -> None:
        turns = Turns(2)
        open_ = asyncio.Event()
        inside: list[str] = []

        async def one(name: str) -> None:
            async with turns.turn(name):
                inside.append(name)
                await open_.wait()

        tasks = [asyncio.create_task(one("loud")) for _ in range(100)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(one(name)) for name in ("a", "b")]
        await asyncio.sleep(0.01)
        assert inside == ["loud", "loud", "a", "b"]
        tasks[50].cancel()
        open_.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(inside) == 101 and not turns._lanes

    asyncio.run(work())


def test_a_pool_gives_each_project_its_share() -> None:
    a, b, c, d, e = (Caller(name, None, False) for name in "abcde")

    async def work() -> None:
        pool = Pool("things", threads=2, running=1, waiting=1)
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def until_done() -> str:
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result(30)
            return "done"

        tasks = [asyncio.create_task(pool.run(a, until_done)) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match="Too many things of this project") as caught:
            await pool.run(a, until_done)
        assert caught.value.status == 429 and caught.value.headers["Retry-After"]
        assert await pool.run(b, lambda: "quick") == "quick", "a has one of the two threads"
        tasks += [asyncio.create_task(pool.run(x, until_done)) for x in (b, c, d) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match="Too many things run at once") as caught:
            await pool.run(e, until_done)
        assert caught.value.status == 503
        tasks.pop().cancel()
        await asyncio.sleep(0)
        done.set()
        assert await asyncio.gather(*tasks) == ["done"] * 7
        assert await pool.run(a, lambda: 1) == 1 and not pool._lanes

    asyncio.run(work())


def test_readiness_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    from tunewise.server.app import create_app
    from tunewise.server.settings import load_settings

    monkeypatch.setattr("tunewise.server.health.SPARE_BYTES", 1 << 60)
    app = create_app(load_settings(None, {"home": tmp_path / "server", "auth": False}))
    answer = TestClient(app, base_url="http://127.0.0.1").get("/readyz")  # nothing was started
    assert answer.status_code == 503
    parts = answer.json()["parts"]
    assert parts["database"] == "ok" and "MB are free" in parts["disk"]
    assert "does not run" in parts["engine"] and "does not run" in parts["queue"]
