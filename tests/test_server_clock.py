"""A clock that jumps: what is done by it is done late rather than wrongly."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server_support import (
    Running,
    call,
    chats,
    client,
    finished,
    start_server,
    upload_rows,
)
from tunewise.models.retry import retry_after
from tunewise.server import clock
from tunewise.server.clock import HOLD_SECONDS, Clock

MODEL = "tunewise/tiny"
HOUR, DAY, YEAR = 3600, 86400, 365 * 86400


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The system's clock and seconds that passed, as the test wants them."""
    value = SimpleNamespace(wall=1e9, passed=50.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: value.wall))
    monkeypatch.setattr(clock, "_passed", lambda: value.passed)
    return value


def test_a_jump_ahead_is_believed_after_an_hour(times: SimpleNamespace) -> None:
    now = Clock()

    def after(seconds: float, jump: float = 0.0) -> float:
        times.passed += seconds
        times.wall += seconds + jump
        return now.surely() - 1e9

    assert after(100) == 100
    assert after(100, jump=YEAR) == 200
    assert after(HOLD_SECONDS - 1) == HOLD_SECONDS + 199
    assert after(1) == HOLD_SECONDS + 200 + YEAR
    assert after(10, jump=-YEAR) == HOLD_SECONDS + 210, "back at once: less expires then"
    assert after(10, jump=30) == HOLD_SECONDS + 250, "kept in step, not set"


def test_a_jump_that_is_undone_has_left_nothing(times: SimpleNamespace) -> None:
    now = Clock()
    times.wall += YEAR
    assert now.surely() == 1e9
    times.passed += HOLD_SECONDS / 2
    times.wall += HOLD_SECONDS / 2 - YEAR
    assert now.surely() == times.wall
    times.wall += YEAR
    times.passed += HOLD_SECONDS / 2 + 1  # the first jump's time does not count for this one
    times.wall += HOLD_SECONDS / 2 + 1
    assert now.surely() == 1e9 + HOLD_SECONDS + 1


def test_a_wait_until_a_time_of_day_goes_by_the_servers_clock() -> None:
    headers = {
        "date": "Wed, 21 Oct 2015 07:28:00 GMT",
        "retry-after": "Wed, 21 Oct 2015 07:28:07 GMT",
    }
    assert retry_after(headers) == 7.0


class SettableClock:
    """The system's clock for processes with ``env``, set while they run; seconds that pass are the
    true ones. (libfaketime also bends sleeps, and breaks them when the clock is set back.)"""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            pytest.skip("no C compiler here, or no Linux")
        library = folder / "clock.so"
        source = Path(__file__).with_name("settable_clock.c")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        self._file = folder / "ahead"
        self._file.write_bytes(bytes(8))
        self.env = {"LD_PRELOAD": str(library), "SETTABLE_CLOCK": str(self._file)}

    def set(self, ahead: int) -> None:
        """Let the clock be so many seconds ahead of the true one."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", ahead))


@pytest.fixture
def faked(tmp_path: Path) -> Iterator[tuple[Running, SettableClock]]:
    fake = SettableClock(tmp_path)
    server = start_server(tmp_path / "server", env=fake.env, worker_threads=1)
    try:
        yield server.running, fake
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.stop()
    log = server.log.read_text()
    assert "Traceback" not in log and "no sign of life" not in log, log


def jumped(running: Running, ahead: int) -> bool:
    """Whether the server's clock is so far ahead, by what it notes of a new upload."""
    made = _upload(running)
    return bool(abs(made["created_at"] - time.time() - ahead) < 30)


def _upload(running: Running) -> Any:
    body = {"filename": "a", "purpose": "user_data", "bytes": 3, "mime_type": "a/b"}
    return call(running, "POST", "/v1/uploads", json=body).json()


def through_jumps(
    running: Running, fake: SettableClock, jumps: list[int], pause: float, rows: int
) -> None:
    """Train, chat and upload while the clock is set ahead by each of ``jumps`` in turn; all that
    was there is there in the end."""
    key = {"Idempotency-Key": "once"}
    with client(running) as api:
        file = upload_rows(api, [json.loads(line) for line in chats(rows).splitlines()])
        kept = call(
            running, "POST", "/v1/files", files={"file": ("kept", b"kept")},
            data={"purpose": "user_data", "expires_after[anchor]": "created_at",
                  "expires_after[seconds]": str(HOUR)},
            headers=key,
        ).json()["id"]  # fmt: skip
        upload = _upload(running)["id"]
        chat = api.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=2, store=True
        )
        options: Any = {"n_epochs": 2, "batch_size": 4}
        job = api.fine_tuning.jobs.create(model=MODEL, training_file=file, hyperparameters=options)
        for ahead in jumps:
            fake.set(ahead)
            assert jumped(running, ahead)
            time.sleep(pause)
            again = call(
                running, "POST", "/v1/files", files={"file": ("kept", b"kept")},
                data={"purpose": "user_data", "expires_after[anchor]": "created_at",
                      "expires_after[seconds]": str(HOUR)},
                headers=key,
            )  # fmt: skip
            assert again.json()["id"] == kept, "a request that is sent again is done once"
            assert api.files.content(kept).read() == b"kept"
            assert api.chat.completions.retrieve(chat.id).id == chat.id
            assert call(running, "GET", "/healthz").json()["uptime_seconds"] >= 0
        done = finished(api, job.id)
        assert done.fine_tuned_model
        part = call(running, "POST", f"/v1/uploads/{upload}/parts", files={"data": ("x", b"abc")})
        assert part.status_code == 200, part.text
        end = {"part_ids": [part.json()["id"]]}
        whole = call(running, "POST", f"/v1/uploads/{upload}/complete", json=end)
        assert whole.json()["status"] == "completed"


def test_a_server_whose_clock_is_set_ahead_and_back(faked: tuple[Running, SettableClock]) -> None:
    through_jumps(*faked, [YEAR, -YEAR, 0], 0.1, 12)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_server_through_thirty_jumps(faked: tuple[Running, SettableClock]) -> None:
    draw = random.Random(5)
    sizes = (90, HOUR, DAY, 40 * DAY, YEAR, 10 * YEAR)
    jumps = [draw.choice(sizes) * draw.choice((1, -1)) for _ in range(29)]
    through_jumps(*faked, [*jumps, 0], 4.0, 2000)
