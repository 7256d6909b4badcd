"""A real server in a child process, and clients for it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import yaml
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

from cli_support import COMMAND, environment

START_SECONDS = 60


class Running(NamedTuple):
    """A server that answers; ``key`` is an admin's, empty where keys are off."""

    base_url: str
    key: str
    home: Path

    @property
    def root(self) -> str:
        """The address without ``/v1``."""
        return self.base_url.removesuffix("/v1")


@dataclass
class Server:
    """A server's process and where it answers."""

    process: subprocess.Popen[bytes]
    running: Running
    log: Path

    def kill(self) -> None:
        """As the system does when memory runs out: no goodbye."""
        self.process.kill()
        self.process.wait(timeout=30)

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def start_server(
    home: Path,
    *,
    key: str | None = None,
    options: Sequence[object] = (),
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> Server:
    """Start ``tunewise serve`` on a free port and wait until it answers.

    Args:
        home: its folder; kept, so that a second start finds what the first left.
        key: of an earlier start; None makes a new admin key.
        options: of the command, beside ``--config``.
        env: variables of its environment, beside this process's own.
        settings: keys of the settings file.
    """
    home.mkdir(parents=True, exist_ok=True)
    config = home.parent / f"{home.name}.yaml"
    config.write_text(yaml.safe_dump({"home": str(home), "port": 0, **settings}))
    if key is None:
        key = make_key(home, admin=True) if settings.get("auth", True) else ""
    log = home.parent / f"{home.name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [COMMAND, "serve", "--config", config, *map(str, options)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(PYTHONUNBUFFERED="1", **(env or {})),
            cwd=home.parent,
        )
    try:
        base_url = _address(process, log)
        _wait(process, base_url, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Server(process, Running(base_url, key, home), log)


@contextmanager
def running_server(tmp_path: Path, **settings: Any) -> Iterator[Running]:
    """A server with its data in ``tmp_path/server``, stopped at the end.

    Yields ``(base_url, key, home)``; ``base_url`` ends with ``/v1``.
    """
    server = start_server(tmp_path / "server", **settings)
    try:
        yield server.running
    finally:
        code = server.stop()
    assert code == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def make_key(
    home: Path, *, project: str = "default", admin: bool = False, per_minute: int | None = None
) -> str:
    """A new key of the server in ``home``; made in this process, which is quicker."""
    from tunewise.server.keys import create
    from tunewise.server.settings import load_settings

    return create(load_settings(None, {"home": home}), project, "", admin, per_minute)


@contextmanager
def client(running: Running, *, key: str | None = None, **options: Any) -> Iterator[OpenAI]:
    """The official client, without retries."""
    with OpenAI(
        base_url=running.base_url,
        api_key=key or running.key or "none",
        admin_api_key=key or running.key or "none",
        # Loading the system's certificates takes longer than most tests, which need none.
        http_client=DefaultHttpxClient(verify=False),
        **{"max_retries": 0, "timeout": 60, **options},
    ) as opened:
        yield opened


def async_client(running: Running) -> AsyncOpenAI:
    """The official asynchronous client, without retries."""
    return AsyncOpenAI(
        base_url=running.base_url, api_key=running.key or "none", max_retries=0, timeout=60
    )


def call(
    running: Running, method: str, path: str, *, key: str | None = None, **options: Any
) -> httpx2.Response:
    """A raw request; ``path`` with its ``/v1``."""
    headers: dict[str, str] = dict(options.pop("headers", None) or {})
    if key != "" and running.key:
        headers.setdefault("Authorization", f"Bearer {key or running.key}")
    return request(method, running.root + path, headers=headers, **options)


def request(method: str, url: str, **options: Any) -> httpx2.Response:
    """A raw request on a connection of its own."""
    with httpx2.Client(verify=False, timeout=60) as opened:
        return opened.request(method, url, **options)


def envelope(answer: httpx2.Response, status: int, code: str | None = None) -> Mapping[str, Any]:
    """The error in an answer that must be one, of the right shape."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and "Traceback" not in error["message"]
    assert code is None or error["code"] == code, error
    assert answer.headers["x-request-id"].startswith("req_")
    return dict(error)


def chats(count: int = 12) -> bytes:
    """A training file of ``count`` rows."""
    rows = (
        {
            "messages": [
                {"role": "user", "content": f"What is {n} plus one?"},
                {"role": "assistant", "content": str(n + 1)},
            ]
        }
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload_rows(api: OpenAI, rows: list[dict[str, Any]]) -> str:
    """The id of a training file with ``rows``."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return api.files.create(file=("rows.jsonl", data), purpose="fine-tune").id


def finished(api: OpenAI, job_id: str, seconds: float = 200) -> Any:
    """The job once it is over; it must have succeeded."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = api.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled"):
            assert job.status == "succeeded", job.error
            return job
        time.sleep(0.2)
    raise AssertionError(api.fine_tuning.jobs.list_events(job_id).data)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("Tunewise serves on "):
                return line.removeprefix("Tunewise serves on ").strip()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def _wait(process: subprocess.Popen[bytes], base_url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    root = base_url.removesuffix("/v1")
    while time.monotonic() < deadline:
        try:
            if request("GET", f"{root}/healthz", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
    raise AssertionError(f"the server does not answer: {log.read_text()}")
