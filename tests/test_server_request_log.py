"""The log of requests: what stands in it, and what never does."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from server_support import call, client, make_key, running_server
from tunewise.errors import UsageError
from tunewise.server.request_log import RequestLog

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


def test_a_line_a_request_without_bodies_queries_or_secrets(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "requests.jsonl"
    with running_server(tmp_path, request_log=str(log)) as running:
        from tunewise.server.keys import create
        from tunewise.server.settings import load_settings

        key = create(load_settings(None, {"home": running.home}), "shop", "till 7", False, None)
        with client(running, key=key) as api:
            api.files.create(file=("a.txt", b"the body"), purpose="user_data")
        call(running, "GET", f"/v1/files?purpose={SECRET}", key=key)
        call(running, "GET", f"/v1/files/{SECRET}", key=key)
        call(running, "GET", "/v1/files", key=key[:-1] + "!")
        call(running, "GET", "/no\u2028where", key=make_key(running.home))
    text = log.read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in lines if line["path"] != "/healthz"]
    assert [(e["method"], e["status"], e["key_name"]) for e in lines] == [
        ("POST", 200, "till 7"),
        ("GET", 200, "till 7"),
        ("GET", 404, "till 7"),
        ("GET", 401, None),
        ("GET", 404, ""),
    ]
    assert lines[0]["path"] == "/v1/files" and lines[0]["id"].startswith("req_")
    assert 0 < lines[0]["first_seconds"] <= lines[0]["seconds"] < 60
    for hidden in ("the body", SECRET, key, "?"):
        assert hidden not in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_it_is_rotated_and_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewise.server.request_log.FILE_BYTES", 2000)
    log = RequestLog(str(tmp_path / "r.jsonl"))
    for _ in range(10_050):  # nobody writes yet
        log.add("req_1", None, "GET", "/" + "x" * 5000, 200, 1.0, None)
    assert log.lost == 50
    log.start()
    log.stop()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "r.jsonl", "r.jsonl.1", "r.jsonl.2", "r.jsonl.3", "r.jsonl.4",
    ]  # fmt: skip
    assert all(p.stat().st_size <= 2000 for p in tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        RequestLog(str(tmp_path / "file" / "r.jsonl"))
