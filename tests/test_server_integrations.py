"""A job's figures in experiment trackers, with the server's own access to them."""

from __future__ import annotations

import importlib.util
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from server_support import call, chats, client, envelope, running_server
from tunewise.server.jobs.integrations import notices, trackers, unavailable

MODEL = "tunewise/tiny"
KEY = "0123456789abcdef" * 2 + "deadbeef"


def test_a_job_reports_to_its_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with running_server(tmp_path, worker_threads=1) as server, client(server) as api:
        file = api.files.create(file=("rows.jsonl", chats(10)), purpose="fine-tune").id
        asked = {
            "model": MODEL,
            "training_file": file,
            "hyperparameters": {"n_epochs": 2, "batch_size": 5},
            "integrations": [
                {"type": "wandb", "wandb": {"project": "sums", "tags": ["a", "b"]}},
                {"type": "mlflow", "mlflow": {"project": "sums"}},
                {"type": "wandb", "wandb": {"project": "another"}},
            ],
        }
        job = call(server, "POST", "/v1/fine_tuning/jobs", json=asked).json()
        assert [i["type"] for i in job["integrations"]] == ["wandb", "mlflow", "wandb"]
        assert job["integrations"][0]["wandb"]["project"] == "sums"
        deadline = time.monotonic() + 200
        while (found := api.fine_tuning.jobs.retrieve(job["id"])).status != "succeeded":
            assert found.status != "failed" and time.monotonic() < deadline, found
            time.sleep(0.2)
        events = api.fine_tuning.jobs.list_events(job["id"], limit=100).data
        told = [(event.level, event.message) for event in events]
        assert ("info", "The job's figures are reported to mlflow") in told
        assert ("warn", "Of several integrations of type wandb, the first one counts") in told
        assert not [text for level, text in told if "not told" in text]
        run = server.home / "jobs" / job["id"] / "run"
        assert list(run.glob("wandb/offline-run-*/*.wandb"))
        odd = {**asked, "integrations": [{"type": "mlflow", "wandb": {"project": "x"}}]}
        error = envelope(call(server, "POST", "/v1/fine_tuning/jobs", json=odd), 400)
        assert "'mlflow'" in error["message"]
        for path in server.home.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as base:
        assert base.execute("SELECT 1 FROM experiments WHERE name = 'sums'").fetchall()
        steps = base.execute("SELECT step FROM metrics WHERE key = 'train/loss' ORDER BY step")
        assert [row[0] for row in steps] == [1, 2, 3, 4]


def test_what_this_server_cannot_report_to_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    asked = [{"type": "wandb", "wandb": {"project": "x"}}]
    ((level, text),) = notices(asked)
    assert level == "warn" and ("WANDB_API_KEY" in text or "pip install wandb" in text)
    assert trackers(asked) == {}
    if importlib.util.find_spec("trackio") is None:
        assert "pip install trackio" in str(unavailable("trackio"))
