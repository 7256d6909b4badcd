"""Uploads in parts whose server is killed while a part comes in, or while the parts are joined."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from server_support import Running, Server, call, start_server

_BOUNDARY = "in-the-middle"


def test_a_part_and_a_joining_are_killed(tmp_path: Path) -> None:
    kills_in_uploads(tmp_path, kills=2, size=2_000_000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thirty_kills_in_parts_and_joinings(tmp_path: Path) -> None:
    kills_in_uploads(tmp_path, kills=30, size=30_000_000, seed=2)


def kills_in_uploads(folder: Path, *, kills: int, size: int, seed: int) -> None:
    """Kill a server ``kills`` times, in turn in the middle of a part's body and while the parts of
    an upload are joined, and go on with the same upload each time.

    Args:
        size: of an upload, in bytes.
    """
    draw = random.Random(seed)
    server = start_server(folder / "server")
    done: dict[str, str] = {}
    try:
        for _ in range(kills // 2):
            pieces = [draw.randbytes(size // 2) for _ in range(2)]
            whole = hashlib.md5(b"".join(pieces)).hexdigest()
            body: dict[str, Any] = {
                "filename": "a",
                "purpose": "user_data",
                "bytes": 2 * len(pieces[0]),
            }
            made = _ok(
                call(server.running, "POST", "/v1/uploads", json={**body, "mime_type": "a/b"})
            )
            path = f"/v1/uploads/{made['id']}"
            first = _part(server.running, path, pieces[0])
            _half(server.running, f"{path}/parts", pieces[1], draw.random())
            server = _killed(server)
            assert list((server.running.home / "files" / "incoming").iterdir()) == []
            second = _part(server.running, path, pieces[1])
            end = {"part_ids": [first, second], "md5": whole}
            with_kill = threading.Thread(target=_unanswered, args=(server.running, path, end))
            with_kill.start()
            time.sleep(draw.uniform(0, size / 3e8))
            server = _killed(server)
            with_kill.join()
            finished = _ok(call(server.running, "POST", f"{path}/complete", json=end))
            assert finished["status"] == "completed"
            done[finished["file"]["id"]] = whole
        listed = _ok(call(server.running, "GET", "/v1/files"))["data"]
        assert {file["id"] for file in listed} == done.keys(), "each is there once"
        for file, digest in done.items():
            content = call(server.running, "GET", f"/v1/files/{file}/content").content
            assert hashlib.md5(content).hexdigest() == digest
        deadline = time.monotonic() + 40  # parts that a killed server left are swept
        while _contents(server.running) > len(done):
            assert time.monotonic() < deadline, "only the files' contents are left"
            time.sleep(0.2)
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    finally:
        if server.process.poll() is None:
            server.stop()


def _killed(server: Server) -> Server:
    server.kill()
    assert "Traceback" not in server.log.read_text()
    return start_server(server.running.home, key=server.running.key)


def _part(running: Running, path: str, data: bytes) -> str:
    return str(_ok(call(running, "POST", f"{path}/parts", files={"data": ("x", data)}))["id"])


def _half(running: Running, path: str, data: bytes, share: float) -> None:
    """Send a part of the request that would upload ``data``, and leave the connection open."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    at = urlsplit(running.root)
    lines = (
        f"POST {path} HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {running.key}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        f"Content-Length: {len(head) + len(data) + len(tail)}\r\n\r\n"
    ).encode()
    connection = socket.create_connection((at.hostname or "", at.port or 0))
    _OPEN.append(connection)
    connection.sendall(lines + head + data[: round(share * len(data))])
    incoming = running.home / "files" / "incoming"
    deadline = time.monotonic() + 30
    while not any(incoming.iterdir()):
        assert time.monotonic() < deadline, "it is being received"
        time.sleep(0.01)


_OPEN: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    while _OPEN:
        _OPEN.pop().close()


def _unanswered(running: Running, path: str, body: dict[str, Any]) -> None:
    with suppress(httpx2.TransportError):
        call(running, "POST", f"{path}/complete", json=body)


def _ok(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def _contents(running: Running) -> int:
    return len(list((running.home / "files").glob("??/*")))
