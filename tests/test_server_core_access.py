"""Keys, limits and the gate: who gets in, and what everybody else is told."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from openai import AuthenticationError, NotFoundError, RateLimitError
from starlette.types import Receive, Scope, Send

from cli_support import refused, tunewise
from server_support import (
    Running,
    async_client,
    call,
    client,
    envelope,
    make_key,
    running_server,
    start_server,
)
from tunewise.errors import UsageError
from tunewise.server.database import open_engine
from tunewise.server.gate import Gate
from tunewise.server.keys import listed, revoke
from tunewise.server.serving import _listen
from tunewise.server.settings import load_settings
from tunewise.server.state import open_state


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {"gpt-4o-mini-2024-07-18": "tunewise/tiny", "org/name.v1:x": "tunewise/tiny"}
    folder = tmp_path_factory.mktemp("core")
    with running_server(folder, models=models, body_seconds=1) as running:
        yield running


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("open"), auth=False) as running:
        yield running


def test_two_servers_on_one_database_are_refused_whatever_their_folders(
    server: Running, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(server.home, target_is_directory=True)
    for folder in (server.home, link):
        url = f"sqlite:///{folder / 'tunewise.db'}"
        arguments = ("serve", "--port", "0", "--home", tmp_path / "other", "--database", url)
        refused(*arguments, cwd=tmp_path, code=3, says=["another server works on this database"])


def test_connections_send_at_once() -> None:
    """Asyncio switches Nagle's algorithm off only where the socket says that it is TCP."""
    with _listen(load_settings(None, {"port": 0})) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_bad_keys_are_refused_before_anything_is_read(server: Running) -> None:
    missing = call(server, "GET", "/v1/files", key="")
    assert "You didn't provide an API key" in envelope(missing, 401)["message"]
    almost = server.key[:-1] + ("a" if server.key[-1] != "a" else "b")
    for key in ("sk-wrong", "x", "sk-proj-" + "a" * 40, almost, server.key + "a", "ké"):
        headers = {"Authorization": f"Bearer {key}".encode()}
        answer = call(server, "GET", "/v1/files", key="", headers=headers)
        message = envelope(answer, 401, "invalid_api_key")["message"]
        assert key not in message or len(key) < 4
    with client(server, key=almost) as api, pytest.raises(AuthenticationError):
        api.files.create(file=("a", b"x" * 5_000_000), purpose="evals")
    # Nobody without a key learns which paths there are.
    envelope(call(server, "GET", "/v1/nothing", key=""), 401)
    assert call(server, "GET", "/healthz", key="").json()["status"] == "ok"


def test_keys_come_in_both_headers_and_end_when_revoked(server: Running) -> None:
    key = make_key(server.home, project="short")
    for headers in ({"api-key": key}, {"Authorization": f"bearer {key}"}):
        more = {**headers, "OpenAI-Organization": "org-x", "OpenAI-Project": "proj_x"}
        answer = call(server, "GET", "/v1/files", key="", headers=more)
        assert answer.status_code == 200
        assert re.fullmatch(r"req_\w{32}", answer.headers["x-request-id"])
    envelope(call(server, "GET", "/metrics", key=key), 403, "insufficient_permissions")
    identity = key.split("-")[2]
    revoke(load_settings(None, {"home": server.home}), identity)
    envelope(call(server, "GET", "/v1/files", key=key), 401, "invalid_api_key")
    shown = tunewise("server", "key", "list", "--json", "--home", server.home, cwd=server.home)
    assert key not in shown.out and server.key not in shown.out
    assert next(k for k in shown.json if k["id"] == identity)["revoked_at"]
    for path in server.home.rglob("*"):
        assert not path.is_file() or server.key.encode() not in path.read_bytes()


def test_a_limited_key_is_told_when_to_come_back(server: Running) -> None:
    key = make_key(server.home, per_minute=3)
    with client(server, key=key) as api:
        for _ in range(3):
            api.files.list()
        with pytest.raises(RateLimitError) as limited:
            api.files.list()
    assert limited.value.code == "rate_limit_exceeded"
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 20


def test_wrong_paths_and_methods_get_the_envelope(server: Running) -> None:
    envelope(call(server, "GET", "/v1/nothing"), 404, "unknown_url")
    envelope(call(server, "GET", "/"), 404, "unknown_url")
    for method, path in (("PUT", "/v1/files"), ("PATCH", "/v1/models/x"), ("GET", "/v1/uploads")):
        assert envelope(call(server, method, path), 405, "method_not_supported")
    for path in ("/v1/files/%00", "/v1/files/..%2f..%2fetc", "/v1/files/" + "x" * 5000):
        assert call(server, "GET", path).status_code == 404
    answer = call(server, "OPTIONS", "/v1/files", headers={"Origin": "https://evil.example"})
    assert not [h for h in answer.headers if h.startswith("access-control")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b"\xff\xfe", None),
        (b"[]", None),
        (b'{"purpose": "evals", "bytes": 1, "mime_type": "a/b"}', "filename"),
        (b'{"filename": 5, "purpose": "evals", "bytes": 1, "mime_type": "a/b"}', "filename"),
        (b'{"filename": "a", "purpose": "evals", "bytes": -1, "mime_type": "a"}', "bytes"),
        (b'{"filename": "a", "purpose": "evals", "bytes": NaN, "mime_type": "a"}', "bytes"),
        (b'{"filename": "a", "purpose": "\\ud800", "bytes": 1, "mime_type": "a"}', "purpose"),
        (
            b'{"filename": "a", "purpose": "evals", "bytes": 1, "mime_type": "a", "expires_after":'
            b' {"anchor": "created_at", "seconds": 1}}',
            "expires_after.seconds",
        ),
        (b'{"filename":"a","purpose":"evals","bytes":' + b"9" * 400 + b',"mime_type":"a"}', None),
    ],
)
def test_bodies_that_cannot_be_meant_name_the_parameter(
    server: Running, body: bytes, param: str | None
) -> None:
    headers = {"content-type": "application/json"}
    answer = call(server, "POST", "/v1/uploads", content=body, headers=headers)
    error = envelope(answer, 400)
    assert param is None or error["param"] == param


def test_text_that_is_no_text_does_no_harm(server: Running) -> None:
    body = b'{"filename": "a\\ud800b", "purpose": "evals", "bytes": 1, "mime_type": "a\\udfff"}'
    headers = {"content-type": "application/json"}
    answer = call(server, "POST", "/v1/uploads", content=body, headers=headers)
    assert envelope(answer, 400)["param"] == "filename"


def test_models_are_listed_found_and_not_deleted(server: Running) -> None:
    with client(server) as api:
        names = [model.id for model in api.models.list()]
        assert names == ["gpt-4o-mini-2024-07-18", "org/name.v1:x"]
        for name in names:
            assert api.models.retrieve(name).id == name
            assert call(server, "DELETE", f"/v1/models/{name}").status_code == 403
        with pytest.raises(NotFoundError) as missing:
            api.models.retrieve("gpt-4o-mini")
    assert missing.value.code == "model_not_found" and names[0] in str(missing.value)

    async def first() -> str:
        async with async_client(server) as api:
            return (await api.models.list()).data[0].id

    assert asyncio.run(first()) == names[0]


def test_metrics_count_routes_and_not_paths(server: Running) -> None:
    call(server, "GET", "/v1/files/file-secretname")
    text = call(server, "GET", "/metrics").text
    assert 'route="/v1/files/{file_id}",status="404"' in text
    assert "secretname" not in text and "tunewise_request_seconds_bucket" in text


def test_a_body_that_stops_coming_is_given_up(server: Running) -> None:
    address = server.root.removeprefix("http://").split(":")
    with closing(socket.create_connection((address[0], int(address[1])), timeout=30)) as line:
        line.sendall(
            b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n"
            b"Authorization: Bearer " + server.key.encode() + b"\r\n\r\n{"
        )
        assert line.recv(100).startswith(b"HTTP/1.1 408")


def test_without_keys_no_web_page_gets_in(open_server: Running) -> None:
    with client(open_server) as api:
        assert list(api.files.list()) == []
    here = open_server.root.removeprefix("http://")
    own = {"Origin": open_server.root}
    assert call(open_server, "GET", "/v1/files", headers=own).status_code == 200
    port = here.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "10.0.0.1"):
        answer = call(open_server, "GET", "/v1/files", headers={"Host": host})
        envelope(answer, 403, "host_not_allowed")
    for origin in ("https://evil.example", "null", "http://127.0.0.1", "http://localhost:1"):
        answer = call(
            open_server, "POST", "/v1/files", headers={"Origin": origin},
            files={"file": ("a", b"a")}, data={"purpose": "evals"},
        )  # fmt: skip
        envelope(answer, 403, "origin_not_allowed")
    local = {"Host": f"localhost:{port}"}
    assert call(open_server, "GET", "/v1/files", headers=local).status_code == 200


def test_a_server_says_where_it_is_and_what_is_missing(tmp_path: Path) -> None:
    server = start_server(tmp_path / "server", key="none yet")
    port = server.running.root.rpartition(":")[2]
    said = server.log.read_text()
    home = server.running.home
    assert f"Data: {home}" in said and f"tunewise server key create --home {home}" in said
    assert home.stat().st_mode & 0o777 == 0o700
    refused(
        "serve", "--port", port, "--home", tmp_path / "b", cwd=tmp_path, code=3, process=True,
        says=[f"127.0.0.1:{port}", "taken by another program", "--port 0"],
    )  # fmt: skip
    refused(
        "serve", "--port", 0, "--home", home, cwd=tmp_path, code=3, process=True,
        says=[f"process {server.process.pid}", "another --home"],
    )  # fmt: skip
    # Used keys are written down at the latest when the server stops.
    key = make_key(home, project="used", per_minute=100)
    for _ in range(3):
        assert call(server.running, "GET", "/v1/files", key=key).status_code == 200
    assert server.stop() == 0
    assert server.log.read_text().splitlines()[-1] == "Stopped."
    keys = listed(load_settings(None, {"home": home}))
    assert [(k["project"], k["requests"]) for k in keys] == [("used", 3)]
    assert keys[0]["last_used_at"] >= keys[0]["created_at"]


def test_settings_that_cannot_be_meant(tmp_path: Path) -> None:
    config = tmp_path / "s.yaml"
    for text, where, says in (
        ("home: here\nporrt: 1\n", "s.yaml:2: porrt", "unknown key"),
        ("home: here\nmax_file_bytes: many\n", "s.yaml:2: max_file_bytes", "a whole number"),
        ("models: [a]\n", "s.yaml:1: models", "a mapping"),
        ("models:\n  a: {model: b, dtype: int8}\n", "s.yaml:2: models.a.dtype", "'float16'"),
        ("models: {a: {dtype: auto}}\n", "models.a.model", "should be given"),
        ("models: {a: {model: b, dtyp: auto}}\n", "models.a.dtyp", "unknown key"),
        ("models:\n  a: b\n  c: {model: b, dtype: float16}\n", "s.yaml:1: models", "a and c are"),
        ("- a\n", "s.yaml", "a mapping"),
    ):
        config.write_text(text)
        with pytest.raises(UsageError) as wrong:
            load_settings(config)
        assert where in str(wrong.value) and says in str(wrong.value)
    config.write_text("home: here\nport: 1\n")
    loaded = load_settings(config, {"port": 2, "host": None})
    assert (loaded.home, loaded.port, loaded.host) == (tmp_path / "here", 2, "127.0.0.1")
    with pytest.raises(UsageError, match="URL of a database"):
        open_engine("nonsense")
    refused("serve", "--no-auth", "--host", "0.0.0.0", cwd=tmp_path, code=2, says=["without keys"])


def test_a_handler_that_takes_too_long_is_answered_for(tmp_path: Path) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise RuntimeError("an inside that nobody may see")
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(0.5)
            await send({"type": "http.response.body", "body": b"whole"})
            return
        await asyncio.to_thread(time.sleep, 0.6)

    settings = {"home": tmp_path / "s", "auth": False, "request_seconds": 0.2}
    state = open_state(load_settings(None, settings))

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(Gate(slow, state))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return [await http.post(path) for path in ("/slow", "/stream", "/broken")]

    answers = asyncio.run(ask())
    state.sessions.kw["bind"].dispose()
    assert envelope(answers[0], 503, "timeout")["type"] == "server_error"
    assert answers[1].text == "whole"
    error = envelope(answers[2], 500, "server_error")
    assert "nobody" not in json.dumps(error)


def test_many_clients_at_once_write_without_locking_each_other_out(open_server: Running) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with client(open_server) as api:
                for step in range(5):
                    file = api.files.create(
                        file=("a", b"%d %d" % (number, step % 2)), purpose="evals"
                    )
                    assert api.files.content(file.id).read() == b"%d %d" % (number, step % 2)
                    api.files.delete(file.id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number % 3,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list((open_server.home / "files").glob("??/*")) == []
