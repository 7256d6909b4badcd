"""Files that the server fetches: from the public internet and from nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from azure_support import VERSION, azure_error
from server_support import Running, call, chats, running_server
from tunewise.server.azure.fetching import _checked, fetch, is_public
from tunewise.server.errors import ApiError

SECRET = "sig=do-not-show"


class _Handler(BaseHTTPRequestHandler):
    """``/rows``, ``/to?URL`` (a redirect), ``/large``, ``/slow``, ``/packed``."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.seen.append((self.path, dict(self.headers)))
        parts = urlsplit(self.path)
        if parts.path == "/to":
            self._start(302, {"Location": parts.query, "Set-Cookie": "a=b"})
        elif parts.path == "/large":
            self._start(200, {})
            with_room = 64
            while with_room and not server.stopping.is_set():
                with_room -= 1
                try:
                    self.wfile.write(b"x" * 65536)
                except OSError:
                    return
        elif parts.path == "/slow":
            self._start(200, {})
            while not server.stopping.wait(0.1):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
        elif parts.path == "/packed":
            self._start(200, {"Content-Encoding": "gzip"})
        elif parts.path == "/rows":
            self._start(200, {})
            self.wfile.write(chats(12))
        else:
            self._start(404, {})

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.stopping = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def source() -> Iterator[_Server]:
    with serving() as server:
        yield server


def get(
    url: str, *, most: int = 1 << 20, seconds: float = 10, allowed: tuple[str, ...] = ()
) -> bytes:
    """What ``fetch`` gives for ``url``."""
    received = bytearray()

    async def write(data: bytes) -> None:
        received.extend(data)

    asyncio.run(fetch(url, write, most=most, seconds=seconds, allowed=allowed))
    return bytes(received)


def refusal(url: str, **options: Any) -> str:
    """Why ``url`` is not fetched; never with the signature that it may hold."""
    with pytest.raises(ApiError) as caught:
        get(url, **options)
    assert (caught.value.status, caught.value.code) == (400, "file_import_failed")
    assert SECRET not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0", "localhost", "LOCALHOST.",
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "168.63.129.16",
        "224.0.0.1", "255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[fe80::1]",
        "[fd00:ec2::254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[ff02::1]",
    ],
)  # fmt: skip
def test_private_hosts_are_refused(host: str) -> None:
    said = refusal(f"http://{host}:9/rows?{SECRET}")
    assert "not on the public internet" in said or "is not known" in said


PRIVATE = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "168.63.129.16", "172.16.0.1", "172.31.255.254", "192.0.0.1", "192.168.1.1", "198.18.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip


def spellings(address: str) -> list[str]:
    """The ways to write an IPv4 address as a host, and to wrap it into one of IPv6."""
    plain = ipaddress.IPv4Address(address)
    number, parts = int(plain), address.split(".")
    low = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return [
        address, str(number), hex(number), f"0{number:o}",
        ".".join(f"0{int(p):o}" for p in parts), ".".join(hex(int(p)) for p in parts),
        f"{parts[0]}.{number & 0xFFFFFF}", f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        f"[::ffff:{address}]", f"[::{low}]", f"[64:ff9b::{low}]", f"[2002:{low}::]",
    ]  # fmt: skip


def test_no_spelling_of_a_private_address_is_taken(
    record_property: Callable[[str, object], None],
) -> None:
    """Only looked up: nothing is connected to, whatever the check would let through."""
    hosts = [host for address in PRIVATE for host in spellings(address)]
    hosts += ["localhost", "LOCALHOST", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[ff02::1]"]
    hosts += ["[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[100::1]", "[2001:db8::1]"]
    for host in hosts:
        with pytest.raises((ApiError, httpx2.InvalidURL)):
            raise AssertionError(asyncio.run(_checked(httpx2.URL(f"http://{host}:9/rows"), ())))
    record_property("tried", f"{len(hosts)} URLs of hosts that are not on the internet")


def test_what_counts_as_public() -> None:
    for public in ("8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"):
        assert is_public(ipaddress.ip_address(public)), public


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "must begin with http"),
        ("ftp://example.org/a", "must begin with http"),
        ("gopher://127.0.0.1/", "must begin with http"),
        ("rows.jsonl", "must begin with http"),
        ("http://", "must begin with http"),
        (f"https://user:word@8.8.8.8/rows?{SECRET}", "user name or password"),
        ("http://[::1/rows", "not a URL"),
        ("http://no-such-host.invalid/rows", "is not known"),
    ],
)
def test_what_is_no_address(url: str, says: str) -> None:
    assert says in refusal(url)


def test_an_allowed_host_gives_its_file(source: _Server) -> None:
    assert get(f"http://{source.host}/rows?{SECRET}", allowed=(source.host,)) == chats(12)
    path, headers = source.seen[0]
    assert path == f"/rows?{SECRET}" and headers["Host"] == source.host
    assert not {"Authorization", "Cookie", "Api-Key"} & set(headers)


def test_redirects_are_checked_like_the_first_address(source: _Server) -> None:
    start, allowed = f"http://{source.host}/to?", (source.host,)
    with serving() as inside:
        for target in (
            f"http://{inside.host}/rows",
            f"//{inside.host}/rows",
            f"http://localhost:{source.server_port}/rows",
            f"http://[::ffff:127.0.0.1]:{inside.server_port}/rows",
            "http://169.254.169.254/latest/meta-data/",
        ):
            assert "not on the public internet" in refusal(start + target, allowed=allowed)
        assert inside.seen == []
    assert "must begin with http" in refusal(start + "file:///etc/passwd", allowed=allowed)
    assert get(start + "/rows", allowed=allowed) == chats(12)
    assert "Cookie" not in source.seen[-1][1]


def test_a_circle_of_redirects_ends(source: _Server) -> None:
    circle = f"http://{source.host}/to?"
    said = refusal(circle, allowed=(source.host,))  # an empty target is the same address again
    assert "redirects too often" in said and len(source.seen) == 6


def test_limits_of_size_and_time(source: _Server) -> None:
    allowed = (source.host,)
    said = refusal(f"http://{source.host}/large?{SECRET}", most=100_000, allowed=allowed)
    assert "larger than the 100,000 bytes" in said
    began = time.monotonic()
    assert "within 1 seconds" in refusal(f"http://{source.host}/slow", seconds=1, allowed=allowed)
    assert time.monotonic() - began < 5
    assert "compressed" in refusal(f"http://{source.host}/packed", allowed=allowed)
    assert "status 404" in refusal(f"http://{source.host}/nothing", allowed=allowed)


def test_a_name_is_allowed_with_its_port_only(source: _Server) -> None:
    assert "public internet" in refusal(f"http://{source.host}/rows", allowed=("127.0.0.1",))
    assert "public internet" in refusal(
        f"http://localhost:{source.server_port}/rows", allowed=(source.host,)
    )
    name = f"localhost:{source.server_port}"
    assert get(f"http://{name}/rows", allowed=(name,)) == chats(12)


def test_a_name_is_looked_up_once(source: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # A name server that gives a public address to the check and a private one to the connection
    # gets no second question.
    asked, look_up = [], socket.getaddrinfo

    def counting(host: Any, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return look_up("127.0.0.1" if host == "files.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    name = f"files.example:{source.server_port}"
    assert get(f"http://{name}/rows", allowed=(name.upper(),)) == chats(12)
    assert asked.count("files.example") == 1
    assert source.seen[0][1]["Host"] == name


def _import(running: Running, url: str, prefix: str = "/openai", **body: Any) -> Any:
    return call(
        running,
        "POST",
        f"{prefix}/files/import",
        params={} if prefix.endswith("v1") else {"api-version": VERSION},
        json={"purpose": "fine-tune", "filename": "rows.jsonl", "content_url": url, **body},
    )


def test_imports_through_the_server(tmp_path: Path, source: _Server) -> None:
    with serving() as inside, running_server(tmp_path, import_hosts=[source.host]) as running:
        url = f"http://{source.host}/rows?{SECRET}"
        made = _import(running, url)
        assert made.status_code == 201, made.text
        assert made.json()["bytes"] == len(chats(12)) and made.json()["status"] == "processed"
        place = made.headers["location"].removeprefix(running.root)
        assert place == f"/openai/files/{made.json()['id']}?api-version={VERSION}"
        content = place.replace("?", "/content?")
        assert call(running, "GET", content).content == chats(12)
        assert _import(running, url, "/openai/v1").status_code == 201

        for wrong in (
            f"http://{inside.host}/rows",
            f"http://{source.host}/to?http://{inside.host}/rows",
            f"http://localhost:{inside.server_port}/rows",
            running.base_url + "/models",
        ):
            error = azure_error(_import(running, wrong), 400, "fileImportFailed")
            assert error["target"] == "content_url"
        assert inside.seen == []
        azure_error(_import(running, url, purpose="theft"), 400, "invalidPayload")
        rows = f"http://{source.host}/large"
        azure_error(_import(running, rows), 400, "jsonlValidationFailed")
        listed = call(running, "GET", "/v1/files").json()["data"]
        assert len(listed) == 2
    assert SECRET.encode() not in b"".join(p.read_bytes() for p in tmp_path.glob("*.log"))
    assert list((running.home / "files" / "incoming").iterdir()) == []
