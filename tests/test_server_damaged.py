"""Stored bytes that changed on a server's disk: told where they are read, and found by fsck."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("peft")

from cli_support import change_a_bit, tunewise
from server_support import Server, call, chats, client, envelope, finished, start_server
from tunewise.digests import of_file
from tunewise.errors import WorkspaceError
from tunewise.server.fsck import require_whole_database

MODEL = "tunewise/tiny"
SETTINGS: dict[str, Any] = {"models": {MODEL: MODEL}, "worker_threads": 1}


def blob(server: Server, content: bytes) -> Path:
    (found,) = (p for p in server.running.home.glob("files/??/*") if p.read_bytes() == content)
    return found


def fsck(server: Server, code: int) -> str:
    home = server.running.home
    return tunewise("server", "fsck", "--home", home, cwd=home, code=code).out


def failed(api: openai.OpenAI, job_id: str) -> Any:
    """The error of a job that fails."""
    end = time.monotonic() + 60
    while (job := api.fine_tuning.jobs.retrieve(job_id)).status != "failed":
        assert job.status != "succeeded" and time.monotonic() < end, job
        time.sleep(0.1)
    return job.error


def test_nothing_that_changed_on_disk_is_given_out_trained_on_or_answered_with(
    tmp_path: Path,
) -> None:
    server = start_server(tmp_path / "server", **SETTINGS)
    try:
        _walk(server)
        server.stop()
        _without_a_database(server)
    finally:
        server.kill()
    assert "Traceback" not in server.log.read_text()


def _walk(server: Server) -> None:
    running = server.running
    with client(running) as api:
        rows = chats(12)
        shown = api.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
        tuned = api.fine_tuning.jobs.create(
            model=MODEL,
            training_file=shown.id,
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 12}},
            },
        )
        done = finished(api, tuned.id)
        name = done.fine_tuned_model
        assert done.status == "succeeded" and name
        asked: dict[str, Any] = {
            "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0,
        }  # fmt: skip
        before = api.chat.completions.create(model=name, **asked).choices[0].message.content
        assert "nothing is damaged" in fsck(server, 0)

        # A content that looks changed is read again when it is given out.
        path = blob(server, rows)
        change_a_bit(path, unseen=False)
        answer = call(running, "GET", f"/v1/files/{shown.id}/content")
        assert "has changed" in envelope(answer, 500, "damaged_content")["message"]
        assert str(running.home) not in answer.text
        path.write_bytes(rows)
        assert call(running, "GET", f"/v1/files/{shown.id}/content").content == rows

        # Before training it is read whatever it looks like.
        change_a_bit(path)
        error = failed(api, api.fine_tuning.jobs.create(model=MODEL, training_file=shown.id).id)
        assert (error.code, error.param) == ("damaged_content", "training_file")
        assert "Upload it again" in error.message
        told = fsck(server, 1)
        assert shown.id in told and "rows.jsonl" in told and "upload it again" in told
        path.unlink()
        answer = call(running, "GET", f"/v1/files/{shown.id}/content")
        assert "not there any more" in envelope(answer, 500, "damaged_content")["message"]
        path.write_bytes(rows)

        # Another model's weights under this one's name.
        folder = running.home / "jobs" / tuned.id / "run" / "adapter"
        kept = folder.with_name("kept")
        shutil.copytree(folder, kept)
        change_a_bit(folder / "adapter_model.safetensors", unseen=False)
        with pytest.raises(openai.APIStatusError, match="has changed") as refused:
            api.chat.completions.create(model=name, **asked)
        assert refused.value.code == "model_not_loadable"
        told = fsck(server, 1)
        assert name in told and tuned.id in told and shown.id in told
        error = failed(api, api.fine_tuning.jobs.create(model=name, training_file=shown.id).id)
        assert error.code == "damaged_content"
        shutil.rmtree(folder)
        kept.rename(folder)
        after = api.chat.completions.create(model=name, **asked).choices[0].message.content
        assert after == before
        assert "nothing is damaged" in fsck(server, 0)


def _without_a_database(server: Server) -> None:
    """It does not start on a damaged one, and says what can be done."""
    database = server.running.home / "tunewise.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    with pytest.raises(AssertionError, match="the database is damaged"):
        start_server(server.running.home, key="none", **SETTINGS)
    assert "everything on the server" in fsck(server, 1)


@pytest.mark.parametrize("page", range(1, 9))
def test_a_damaged_page_is_noticed(tmp_path: Path, page: int) -> None:
    place = tmp_path / "base.db"
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        connection.execute("CREATE INDEX i ON t (b)")
        rows = ((n, f"{n % 97} {n} " + "x" * 30) for n in range(600))
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    require_whole_database(f"sqlite:///{place}")
    with place.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 64)
    with pytest.raises(WorkspaceError, match="damaged") as caught:
        require_whole_database(f"sqlite:///{place}")
    assert "restore" in str(caught.value) and of_file(place)
