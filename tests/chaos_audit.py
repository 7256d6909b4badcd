"""Whether a server kept its promises: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import text

from chaos_ledger import Ledger, PromisedJob
from server_support import Running, call
from tunewise.server.database import open_engine

_NEEDED = "SELECT blob FROM files WHERE deleted_at IS NULL UNION SELECT blob FROM upload_parts"
ONCE = (
    "Created fine-tuning job",
    "Validating training file",
    "Files validated",
    "Fine-tuning job started",
)


def audit(running: Running, ledger: Ledger) -> None:
    """Compare what a running server shows with what it acknowledged."""
    results = _audit_jobs(running, ledger)
    _audit_files(running, ledger, results)
    for upload, status in ledger.uploads.items():
        assert status in ("completed", "cancelled"), (upload, status)
    stored = _all(running, "/v1/chat/completions", limit=100)
    told = Counter(chat["id"] for chat in stored)
    assert not [chat for chat, times in told.items() if times > 1]
    texts = {chat["id"]: chat["choices"][0]["message"]["content"] or "" for chat in stored}
    assert ledger.chats.items() <= texts.items()


def _audit_files(running: Running, ledger: Ledger, results: set[str]) -> None:
    listed = Counter(file["id"] for file in _all(running, "/v1/files", limit=1000))
    # Every request was repeated until it was answered, so there is nothing that nobody knows of.
    assert listed == Counter([*ledger.files, *results])
    for file, digest in ledger.files.items():
        content = call(running, "GET", f"/v1/files/{file}/content").content
        assert hashlib.sha256(content).hexdigest() == digest, file
    for file in ledger.deleted:
        assert call(running, "GET", f"/v1/files/{file}").status_code == 404


def _audit_jobs(running: Running, ledger: Ledger) -> set[str]:
    """Check all jobs; the ids of their result files."""
    listed = Counter(job["id"] for job in _all(running, "/v1/fine_tuning/jobs", limit=100))
    assert listed == Counter(ledger.jobs.keys()), "each is there, and there once"
    results: set[str] = set()
    models: set[str] = set()
    weights: set[str] = set()
    for job_id, promised in ledger.jobs.items():
        job = call(running, "GET", f"/v1/fine_tuning/jobs/{job_id}").json()
        assert job["status"] == promised.over != "failed", job
        _audit_story(running, job, promised)
        if job["status"] == "succeeded":
            (result,) = job["result_files"]
            results.add(result)
            lines = call(running, "GET", f"/v1/files/{result}/content").text.splitlines()
            assert len(lines) == promised.steps + 1
            models.add(job["fine_tuned_model"])
            adapter = running.home / "jobs" / job_id / "run/adapter/adapter_model.safetensors"
            weights.add(hashlib.sha256(adapter.read_bytes()).hexdigest())
    assert len(weights) <= 1, "equal jobs end in equal weights, killed or not"
    tuned = [m["id"] for m in call(running, "GET", "/v1/models").json()["data"]]
    assert {m for m in tuned if m.startswith("ft:") and ":ckpt-" not in m} == models
    assert len(tuned) == len(set(tuned))
    return results


def _audit_story(running: Running, job: dict[str, Any], promised: PromisedJob) -> None:
    events = _all(running, f"/v1/fine_tuning/jobs/{job['id']}/events", limit=100)[::-1]
    told = {event["id"]: event["message"] for event in events}
    assert len(told) == len(events)
    assert promised.events.items() <= told.items(), "what was told once is told for ever"
    messages = list(told.values())
    steps = [event["data"]["step"] for event in events if event["type"] == "metrics"]
    assert steps == list(range(1, len(steps) + 1)), "steps are told in order and once"
    if job["status"] == "succeeded":
        assert len(steps) == promised.steps
        for words in (*ONCE, "New fine-tuned model created"):
            assert sum(words in message for message in messages) == 1, (words, messages)
        assert messages[-1] == "The job has successfully completed"
        assert messages.count(messages[-1]) == 1
    else:
        assert messages.count("Fine-tuning job cancelled") == 1
        assert job["fine_tuned_model"] is None


def audit_disk(home: Path, database: str | None = None) -> None:
    """Check the folder of a server that was stopped: the database is whole, each content is what
    its name says, and none is there that nothing needs.

    Args:
        database: its URL; None is the SQLite of this folder.
    """
    if database is None:
        with closing(sqlite3.connect(home / "tunewise.db")) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
            needed = {row[0] for row in opened.execute(_NEEDED)}
    else:
        engine = open_engine(database)
        with engine.connect() as connection:
            needed = set(connection.scalars(text(_NEEDED)))
        engine.dispose()
    found = {path.name: path for path in (home / "files").glob("??/*")}
    assert found.keys() == needed
    for digest, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert list((home / "files" / "incoming").iterdir()) == []


def _all(running: Running, path: str, *, limit: int) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = call(running, "GET", f"{path}?limit={limit}{after}").json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = f"&after={page['last_id']}"
