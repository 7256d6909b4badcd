"""What a hostile client can send: answered with its fault or not at all, and nobody else is hurt.

Each test ends with the server answering others; the fixture looks for tracebacks in its log. What
is hostile in keys, forms, names of uploads and chats' own bodies stands in the tests of those.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import httpx2
import pytest
from openai import BadRequestError

from server_support import (
    Running,
    call,
    chats,
    client,
    envelope,
    running_server,
)
from tunewise.scoring.sandbox import sandbox_kind

MODEL = "tunewise/tiny"
MB = 1024**2
BODY_SECONDS = 2
ROW = chats(1).decode().strip()
needs_sandbox = pytest.mark.skipif(sandbox_kind() is None, reason="no sandbox here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(
        tmp_path_factory.mktemp("hostile"), max_body_bytes=MB, body_seconds=BODY_SECONDS
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _still_there(server: Running) -> Iterator[None]:
    yield
    assert call(server, "GET", "/v1/files?limit=1", timeout=10).status_code == 200


def chat(server: Running, **changes: Any) -> Any:
    body = {
        "model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}], **changes
    }  # fmt: skip
    return call(server, "POST", "/v1/chat/completions", json=body, timeout=120)


def raw(server: Running, *lines: bytes, body: bytes = b"", seconds: float = 20) -> bytes:
    """What comes back for bytes that no client library would send, until the connection ends."""
    with connected(server) as connection:
        connection.settimeout(seconds)
        connection.sendall(b"\r\n".join((*lines, b"", body)))
        answer = b""
        try:
            while data := connection.recv(65_536):
                answer += data
        except ConnectionResetError:
            pass
        return answer


def connected(server: Running) -> socket.socket:
    host, port = server.root.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def bearer(server: Running) -> bytes:
    return f"Authorization: Bearer {server.key}".encode()


POST = b"POST /v1/uploads HTTP/1.1"
GET = b"GET /v1/files HTTP/1.1"


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((POST, b"Host: x", b"Content-Length: -5"), b"", b"400"),
        ((POST, b"Host: x", b"Content-Length: 5", b"Content-Length: 6"), b"abcdef", b"400"),
        ((POST, b"Host: x", b"Transfer-Encoding: chunked"), b"ZZZ\r\n\r\n", b"400"),
        ((POST, b"Host: x", b"Transfer-Encoding: chunked"), b"F" * 18 + b"\r\n\r\n", b"408"),
        ((POST, b"Host: x", b"Content-Length: 1000000000000", b"Connection: close"), b"", b"413"),
        ((GET, b"Host: x", b"X: " + b"a" * 200_000), b"", b"400"),
        ((GET,), b"", b"400"),
        ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",), b"", b"400"),
        ((b"FROB /v1/files HTTP/1.1", b"Host: x", b"Connection: close"), b"", b"405"),
        ((b"GET http://evil.example/v1/files HTTP/1.1", b"Host: evil.example",
          b"Connection: close"), b"", b"404"),
        ((b"GET /v1/files/" + b"a" * 60_000 + b" HTTP/1.1", b"Host: x", b"Connection: close"),
         b"", b"404"),
        ((b"GET /v1/files?after=" + b"a" * 60_000 + b" HTTP/1.1", b"Host: x",
          b"Connection: close"), b"", b"400"),
    ],
)  # fmt: skip
def test_broken_http_is_refused(
    server: Running, lines: tuple[bytes, ...], body: bytes, status: bytes
) -> None:
    answer = raw(server, lines[0], bearer(server), *lines[1:], body=body)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:300]
    assert answer.count(b"HTTP/1.1 ") == 1


def test_one_request_hides_no_second_one(server: Running) -> None:
    """Of a length and chunks, chunks count; what follows them is a request of its own."""
    hidden = b"0\r\n\r\nGET /v1/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(
        server, POST, bearer(server), b"Host: x", b"Content-Length: 5",
        b"Transfer-Encoding: chunked", body=hidden,
    )  # fmt: skip
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses[0] == b"400" and set(statuses[1:]) <= {b"401"}, answer


def test_oversize_bodies_are_refused_however_they_come(server: Running) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"model": "'
        for _ in range(40):
            yield b"x" * (MB // 10)

    headers = {"content-type": "application/json"}
    for content in (b"{" + b" " * 2 * MB + b"}", chunks()):
        answer = call(server, "POST", "/v1/chat/completions", content=content, headers=headers)
        envelope(answer, 413, "request_too_large")


def test_connections_that_never_say_what_they_want_are_closed(server: Running) -> None:
    """Some say nothing, some never finish their first line, some their second request."""
    with ExitStack() as stack:
        opened = [stack.enter_context(connected(server)) for _ in range(150)]
        for number, connection in enumerate(opened):
            if number % 3 == 1:
                connection.sendall(GET + b"\r\nHost: x\r\nX-Slow: ")
            elif number % 3 == 2:
                connection.sendall(GET + b"\r\nHost: x\r\n\r\nGET /v1/fi")
        began = time.monotonic()
        assert call(server, "GET", "/v1/files?limit=1").status_code == 200
        for connection in opened:
            connection.settimeout(20)
            while connection.recv(65_536):
                pass
        assert BODY_SECONDS - 1 < time.monotonic() - began < 15


def test_what_looks_like_sql_or_a_path_is_only_an_id(server: Running) -> None:
    with closing(sqlite3.connect(server.home / "tunewise.db")) as base:
        before = base.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for text in ("' OR 1=1 --", '"; DROP TABLE files; --', "%27%20OR%20%271", "..%2f..", "%00"):
            for path in (
                f"/v1/files/{text}", f"/v1/files/{text}/content", f"/v1/models/{text}",
                f"/v1/fine_tuning/jobs/{text}", f"/v1/fine_tuning/jobs/{text}/events",
                f"/v1/fine_tuning/checkpoints/{text}/permissions",
                f"/v1/chat/completions/{text}", f"/v1/responses/{text}",
            ):  # fmt: skip
                envelope(call(server, "GET", path), 404)
            for path in ("/v1/files", "/v1/fine_tuning/jobs", "/v1/chat/completions"):
                envelope(call(server, "GET", f"{path}?after={text}"), 400)
            found = call(server, "GET", f"/v1/fine_tuning/jobs?metadata[{text}]={text}")
            assert found.json()["data"] == []
        assert base.execute("SELECT count(*) FROM sqlite_master").fetchone() == before


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b'filename="a%0d%0aSet-Cookie: x=1.jsonl"', "a%0d%0aSet-Cookie: x=1.jsonl"),
        (b'filename="a\\"; x=\\"b.html"', 'a"; x="b.html'),
        (b'filename="<img src=x onerror=alert(1)>.html"', "<img src=x onerror=alert(1)>.html"),
        (b'filename="\xff\xfe\xe2\x80\xae.exe"', "\ufffd\ufffd.exe"),
        (b'filename="."', "."),
        (b"filename=", "upload"),
    ],
)
def test_names_in_forms_reach_no_header(server: Running, name: bytes, shown: str) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; ' + name + b"\r\n"
        b"Content-Type: text/html\r\n\r\n<script>alert(1)</script>\r\n--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = call(server, "POST", "/v1/files", content=form, headers=headers)
    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert file["filename"] == shown
    read = call(server, "GET", f"/v1/files/{file['id']}/content")
    assert "set-cookie" not in read.headers
    assert read.headers["content-disposition"].startswith("attachment; filename")
    assert read.headers["x-content-type-options"] == "nosniff"


def test_headers_of_requests_are_not_given_back(server: Running) -> None:
    headers = {
        "x-request-id": "req_mine", "Idempotency-Key": "k\t%0d%0aX-Evil: 1",
        "X-Forwarded-Host": "evil.example", "OpenAI-Organization": "x" * 5000,
    }  # fmt: skip
    upload = {"filename": "a", "purpose": "evals", "bytes": 1, "mime_type": "a/b"}
    for _ in range(2):
        answer = call(server, "POST", "/v1/uploads", json=upload, headers=headers)
        assert answer.status_code == 200
        assert "x-evil" not in answer.headers and answer.headers["x-request-id"] != "req_mine"
        assert "evil" not in str(answer.headers)


HOSTILE_LINES = {
    "deep": b'{"messages": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "huge": b'{"messages": [{"role": "user", "content": "' + b"x" * 11 * MB + b'"}]}',
    "nul": ROW.replace("plus", "pl\0us").encode(),
    "lone surrogate": ROW.replace("plus", "\\ud800").encode(),
    "invalid utf-8": ROW.replace("plus", "pl\xfcs").encode("latin-1"),
    "no number": ROW.replace("[", '[{"role": "user", "content": 1e999}, ', 1).encode(),
    "long number": b'{"messages": ' + b"9" * 100_000 + b"}",
    "not a number": b'{"messages": NaN}',
}


@pytest.mark.parametrize("line", HOSTILE_LINES)
def test_hostile_lines_are_named(server: Running, line: str) -> None:
    data = chats(3) + HOSTILE_LINES[line] + b"\n" + chats(20)
    began = time.monotonic()
    answer = call(
        server, "POST", "/v1/files", files={"file": ("a", data)}, data={"purpose": "fine-tune"}
    )
    message = envelope(answer, 400)["message"]
    assert "Line 4" in message or "line 4" in message or "UTF-8" in message, message
    assert len(message) < 1000 and time.monotonic() - began < 20


@pytest.mark.parametrize(
    "data",
    [
        chats(12).decode().encode("utf-16"),
        chats(12).decode().encode("utf-8-sig"),
        chats(12).replace(b"\n", b"\r\n"),
    ],
    ids=["utf-16", "byte-order mark", "carriage returns"],
)
def test_odd_but_readable_files_are_taken(server: Running, data: bytes) -> None:
    with client(server) as api:
        assert api.files.create(file=("a", data), purpose="fine-tune").bytes == len(data)


def test_a_key_that_stands_twice_is_told_with_its_line(server: Running) -> None:
    """JSON's readers take the last of the two, and nobody knows which was meant."""
    data = chats(11) + ROW.replace('{"messages"', '{"messages": [], "messages"', 1).encode()
    with client(server) as api, pytest.raises(BadRequestError, match=r"Line 12: .*twice"):
        api.files.create(file=("a", data), purpose="fine-tune")


def test_a_long_file_keeps_nobody_waiting(server: Running) -> None:
    """50,000 lines, and one that is wrong at the end; others are answered meanwhile."""
    data = chats(50_000) + b'{"messages": []}\n'
    form: dict[str, Any] = {"files": {"file": ("a", data)}, "data": {"purpose": "fine-tune"}}
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(call, server, "POST", "/v1/files", **form)
        while not sent.done():
            began = time.monotonic()
            assert call(server, "GET", "/v1/files?limit=1").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
    assert "50001" in envelope(sent.result(), 400)["message"].replace(",", "")
    assert slowest < 5


SCHEMAS: dict[str, Any] = {
    "one that backtracking would never end": {"type": "string", "pattern": "^(a+)+$"},
    "large counts": {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
    "many that all must hold": {
        "allOf": [{"type": "string", "pattern": f".*{n}.*"} for n in range(60)]
    },
    "never long enough": {"type": "string", "minLength": 10**9},
    "itself": {"$ref": "#"},
    "a file": {"$ref": "file:///etc/passwd"},
    "a host": {"$ref": "http://127.0.0.1:1/x.json"},
    "many values": {"enum": [f"v{n}" for n in range(20_000)]},
}


def test_no_schema_keeps_the_engine_busy(server: Running) -> None:
    """All at once, and more than once; then everybody else is answered as before."""
    assert chat(server).status_code == 200
    shapes = [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        for schema in SCHEMAS.values()
    ]
    with ThreadPoolExecutor(len(shapes)) as pool:
        answers = list(pool.map(lambda shape: chat(server, response_format=shape), shapes * 2))
    for name, answer in zip([*SCHEMAS, *SCHEMAS], answers, strict=True):
        if answer.status_code == 200:
            continue
        error = envelope(answer, 400, "invalid_schema")
        assert "root" not in error["message"], (name, error)
        if name.startswith("many that all"):
            assert "too long" in error["message"]
    began = time.monotonic()
    assert chat(server).status_code == 200
    assert time.monotonic() - began < 10, "nothing is left over that computes"


def test_texts_that_cannot_fit_are_refused_before_they_are_cut_up(server: Running) -> None:
    content = "ab " * 300_000
    began = time.monotonic()
    answer = chat(server, messages=[{"role": "user", "content": content}])
    assert "at least" in envelope(answer, 400, "context_length_exceeded")["message"]
    body = {"model": MODEL, "prompt": content}
    envelope(call(server, "POST", "/v1/completions", json=body), 400, "context_length_exceeded")
    assert time.monotonic() - began < 10


@needs_sandbox
def test_python_graders_do_no_harm(server: Running) -> None:
    """Each tries one thing; the answer says that it failed, and the host is as it was."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        sources = {
            "forks": "import os\ndef grade(sample, item):\n    return float(os.fork() >= 0)",
            "reads": "def grade(sample, item):\n"
            f"    return float(len(open({str(server.home / 'tunewise.db')!r}, 'rb').read()))",
            "connects": "import socket\ndef grade(sample, item):\n"
            f"    return float(socket.create_connection(('127.0.0.1', {port}), 2) is not None)",
            "writes": "def grade(sample, item):\n"
            f"    return float(open({str(server.home / 'evil')!r}, 'w').write('x'))",
        }
        for what, source in sources.items():
            grader = {"type": "python", "name": what, "source": source}
            body = {"grader": grader, "model_sample": "x"}
            answer = call(server, "POST", "/v1/fine_tuning/alpha/graders/run", json=body).json()
            assert answer["reward"] == 0.0, (what, answer)
            errors = answer["metadata"]["errors"]
            assert errors["python_grader_runtime_error"], (what, answer)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert not (server.home / "evil").exists()


@needs_sandbox
def test_a_grader_that_never_ends_is_ended(server: Running) -> None:
    grader = {"type": "python", "name": "loops", "source": "while True:\n    pass"}
    path = "/v1/fine_tuning/alpha/graders/validate"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, server, "POST", path, json={"grader": grader}, timeout=120)
        time.sleep(1)
        began = time.monotonic()
        assert chat(server).status_code == 200
        assert time.monotonic() - began < 15
    envelope(asked.result(), 400, "invalid_grader")


def test_no_method_on_no_path_makes_the_server_stumble(server: Running) -> None:
    """All paths of the server, with ids that name nothing, and methods that they do not have."""
    paths = call(server, "GET", "/openapi.json").json()["paths"]
    headers = {"Authorization": f"Bearer {server.key}"}
    wrong = 0
    with httpx2.Client(base_url=server.root, headers=headers, verify=False, timeout=30) as opened:
        for path, operations in paths.items():
            if path in ("/healthz", "/metrics"):
                continue
            url = re.sub(r"\{[^}]*\}", "nothing", path) + "?api-version=2024-10-21"
            for method in {"GET", "POST", "DELETE", "PATCH"} - {o.upper() for o in operations}:
                answer = opened.request(method, url, json={})
                assert 400 <= answer.status_code < 500, (method, path, answer.text)
                assert answer.json()["error"]["message"]
                wrong += answer.status_code == 405
    assert wrong > 20


def drop_streams(server: Running, count: int) -> None:
    """Begin ``count`` streamed chats, eight at a time, and go away after the first bytes."""
    body = {
        "model": MODEL, "max_tokens": 64, "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }  # fmt: skip

    def drop(_: int) -> None:
        url, headers = (
            f"{server.base_url}/chat/completions",
            {"Authorization": f"Bearer {server.key}"},
        )
        with (
            httpx2.Client(verify=False, timeout=60) as opened,
            opened.stream("POST", url, json=body, headers=headers) as answer,
        ):
            assert answer.status_code == 200, answer.read()
            next(answer.iter_raw())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(drop, range(count)))


def still_answered(server: Running) -> float:
    """Requests in flight, by the server's own count, beside the one that asks."""
    text = call(server, "GET", "/metrics").text
    found = re.search(r"^tunewise_requests_in_flight (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


@pytest.mark.parametrize("count", [24, pytest.param(600, marks=pytest.mark.soak)])
def test_dropped_streams_leave_nothing_behind(
    server: Running, count: int, record_property: Callable[[str, object], None]
) -> None:
    before = still_answered(server)
    drop_streams(server, count)
    deadline = time.monotonic() + 20
    while still_answered(server) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert still_answered(server) == before
    began = time.monotonic()
    assert chat(server).status_code == 200
    assert time.monotonic() - began < 10  # the engine does not go on for those who left
    record_property("tried", f"{count} streams dropped after their first bytes")


MALFORMED: tuple[tuple[str, bytes], ...] = (
    ("application/json", b""),
    ("application/json", b"{"),
    ("application/json", b"[]"),
    ("application/json", b"null"),
    ("application/json", b'"text"'),
    ("application/json", b"\xff\xfe{}"),
    ("application/json", b'{"a": NaN, "b": 1e999}'),
    ("application/json", b'{"model": "a", "model": "b"}'),
    ("application/json", b'{"n": ' + b"9" * 5_000 + b"}"),
    ("application/json", b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    ("application/json", b'{"model": {}, "messages": {}, "input": {}, "training_file": []}'),
    ("application/json", b'{"model": null, "messages": null, "grader": null, "part_ids": null}'),
    ("application/json", '{"model": "\\ud800\\u0000", "purpose": "\u202e"}'.encode()),
    ("application/x-www-form-urlencoded", b"model=a&model=b&&&=%zz"),
    ("multipart/form-data", b"--b\r\n\r\n--b--"),
    ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n"),
    ("text/plain; charset=nothing", b"{}"),
)
"""Bodies that no operation can mean, with their content types."""


def malformed(server: Running) -> Iterator[tuple[str, str, str, bytes]]:
    """Method, path, content type and body: every operation with every malformed body."""
    paths = call(server, "GET", "/openapi.json").json()["paths"]
    for path, operations in sorted(paths.items()):
        url = re.sub(r"\{[^}]*\}", "nothing", path) + "?api-version=2024-10-21"
        for method in sorted({o.upper() for o in operations} & {"POST", "PUT", "PATCH", "DELETE"}):
            for kind, body in MALFORMED:
                yield method, url, kind, body


def stumbles(server: Running, requests: list[tuple[str, str, str, bytes]]) -> list[Any]:
    """Requests that were answered with a 5xx, or with no error of ours."""
    headers = {"Authorization": f"Bearer {server.key}"}
    found = []
    with httpx2.Client(base_url=server.root, headers=headers, verify=False, timeout=60) as opened:
        for method, url, kind, body in requests:
            answer = opened.request(method, url, content=body, headers={"Content-Type": kind})
            # A deletion reads no body, and what is not there may be deleted as if it were.
            good = answer.status_code < 300 and (method == "DELETE" or not body)
            told = 400 <= answer.status_code < 500 and "error" in answer.json()
            if not good and not told:
                found.append((method, url, kind, body[:40], answer.status_code, answer.text[:200]))
    return found


def test_malformed_requests_are_the_clients_fault(
    server: Running, record_property: Callable[[str, object], None]
) -> None:
    requests = list(malformed(server))[::7]
    assert not stumbles(server, requests)
    record_property("tried", f"{len(requests)} malformed requests")


@pytest.mark.soak
def test_all_malformed_requests_are_the_clients_fault(
    server: Running, record_property: Callable[[str, object], None]
) -> None:
    requests = list(malformed(server))
    assert not stumbles(server, requests)
    record_property("tried", f"{len(requests)} malformed requests")


def test_many_keys_at_once_that_are_none(server: Running) -> None:
    """Guessing costs the server little, and others are answered meanwhile."""
    stop = threading.Event()

    def guess() -> None:
        while not stop.is_set():
            key = "sk-tunewise-" + "a" * 12 + "-" + "b" * 43
            assert call(server, "GET", "/v1/files", key=key).status_code == 401

    with ThreadPoolExecutor(4) as pool:
        guessing = [pool.submit(guess) for _ in range(4)]
        began = time.monotonic()
        for _ in range(10):
            assert call(server, "GET", "/v1/files?limit=1").status_code == 200
        took = time.monotonic() - began
        stop.set()
    for guessed in guessing:
        guessed.result()
    assert took < 20
    assert json.loads(call(server, "GET", "/v1/files?limit=1").text)["object"] == "list"
