"""A server that is killed, stopped and started again loses nothing that it answered for."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError

from server_support import Running, call, chats, client, start_server


def test_expired_files_are_gone_at_once_and_swept_later(tmp_path: Path) -> None:
    """Time is moved in the database: an hour is the shortest life of a file."""
    server = start_server(tmp_path / "server")
    with client(server.running) as api:
        file = api.files.create(
            file=("a", b"short-lived"), purpose="user_data",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )  # fmt: skip
        upload = api.uploads.create(filename="a", purpose="evals", bytes=1, mime_type="a/b")
        api.uploads.parts.create(upload.id, data=b"p")
        with sqlite3.connect(server.running.home / "tunewise.db") as database:
            database.execute("UPDATE files SET expires_at = 1000")
            database.execute("UPDATE uploads SET expires_at = 1000")
        database.close()
        with pytest.raises(NotFoundError):
            api.files.content(file.id)
        assert list(api.files.list()) == []
        with pytest.raises(BadRequestError) as refused:
            api.uploads.complete(upload.id, part_ids=["x"])
        assert refused.value.code == "upload_expired"
    assert _contents(server.running) == 2
    assert server.stop() == 0
    server = start_server(tmp_path / "server", key=server.running.key)
    for _ in range(100):
        if _contents(server.running) == 0:
            break
        call(server.running, "GET", "/healthz")
    assert _contents(server.running) == 0
    assert server.stop() == 0


def test_what_was_answered_outlives_a_killed_server(tmp_path: Path) -> None:
    server = start_server(tmp_path / "server")
    headers = {"Idempotency-Key": "k"}
    with client(server.running) as api:
        made = api.files.create(
            file=("a.jsonl", chats()), purpose="fine-tune", extra_headers=headers
        )
        upload = api.uploads.create(filename="a", purpose="evals", bytes=6, mime_type="a/b")
        first = api.uploads.parts.create(upload.id, data=b"abc")
        server.kill()
    # What a server leaves that was killed while it received, and between a rename and a commit.
    (server.running.home / "files" / "incoming" / "half").write_bytes(b"half")
    orphan = server.running.home / "files" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"nobody's")
    server = start_server(tmp_path / "server", key=server.running.key)
    with client(server.running) as api:
        assert api.files.content(made.id).read() == chats()
        again = api.files.create(
            file=("a.jsonl", chats()), purpose="fine-tune", extra_headers=headers
        )
        assert again == made and len(list(api.files.list())) == 1
        second = api.uploads.parts.create(upload.id, data=b"def")
        done = api.uploads.complete(upload.id, part_ids=[first.id, second.id])
        assert done.file is not None and api.files.content(done.file.id).read() == b"abcdef"
    assert list((server.running.home / "files" / "incoming").iterdir()) == []
    assert server.stop() == 0
    assert not orphan.exists()


def _contents(running: Running) -> int:
    return len(list((running.home / "files").glob("??/*")))
