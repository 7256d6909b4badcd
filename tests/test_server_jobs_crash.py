"""Killed workers, killed servers, pauses: all end in the weights of a job left alone."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from models_support import save_model
from server_support import Server, chats, client, start_server

MODEL = "gpt-4o-mini-2024-07-18"
EPOCHS, ROWS = 3, 60
STEPS = EPOCHS * ROWS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server; a test that kills it starts it again under the same name."""
    home = tmp_path_factory.mktemp("jobs") / "server"
    model = save_model(home.parent / "model")
    started = start_server(home, models={MODEL: str(model)}, workers=2, worker_threads=1)
    try:
        yield started
    finally:
        started.stop()


def create(api: OpenAI) -> str:
    file = api.files.create(file=("rows.jsonl", chats(ROWS)), purpose="fine-tune").id
    values = {"n_epochs": EPOCHS, "batch_size": 1}
    return api.fine_tuning.jobs.create(
        model=MODEL, training_file=file, seed=3, hyperparameters=values
    ).id


def wait(api: OpenAI, job: str, status: str, seconds: float = 200) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = api.fine_tuning.jobs.retrieve(job)
        if found.status == status:
            return True
        assert found.status not in ("failed", "cancelled", "succeeded"), found
        time.sleep(0.1)
    raise AssertionError(found)


def wait_for_step(api: OpenAI, job: str, step: int) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if (told_steps(api, job) or [0])[-1] >= step:
            return
        time.sleep(0.05)
    raise AssertionError(api.fine_tuning.jobs.list_events(job).data[0])


def losses(api: OpenAI, job: str) -> list[float]:
    events = api.fine_tuning.jobs.list_events(job, limit=1000).data[::-1]
    return [e.data["train_loss"] for e in events if e.type == "metrics"]


def told_steps(api: OpenAI, job: str) -> list[int]:
    """The steps that events tell of, oldest first."""
    events = api.fine_tuning.jobs.list_events(job, limit=1000).data[::-1]
    return [e.data["step"] for e in events if e.type == "metrics"]


def folder(server: Server, job: str) -> Path:
    return server.running.home / "jobs" / job


def worker(server: Server, job: str) -> int:
    return int((folder(server, job) / "worker.lock").read_text())


def next_worker(server: Server, job: str, before: int) -> int:
    """The worker that came after the one with this number, once it trains."""
    deadline = time.monotonic() + 200
    events = folder(server, job) / "run" / "events.jsonl"
    while time.monotonic() < deadline:
        if '"resume"' in events.read_text() and (pid := worker(server, job)) != before:
            return pid
        time.sleep(0.02)
    raise AssertionError(events.read_text()[-500:])


def weights(server: Server, job: str) -> str:
    path = folder(server, job) / "run" / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not lives(pid)


@pytest.mark.timeout(900)  # six starts of a worker, on a machine that may be busy
def test_a_disturbed_job_ends_as_one_left_alone(server: Server) -> None:
    with client(server.running) as api:
        alone, job = create(api), create(api)
        wait_for_step(api, job, ROWS + 2)  # an epoch's checkpoint and two steps
        first = worker(server, job)
        os.kill(first, signal.SIGKILL)
        second = next_worker(server, job, first)
        os.kill(second, signal.SIGSTOP)  # else it might be done before the server is back
    server.kill()
    assert lives(second), "the worker outlives the server"
    restart(server)
    with client(server.running) as api:
        assert api.fine_tuning.jobs.retrieve(job).status == "running"
        assert api.fine_tuning.jobs.pause(job).paused
        time.sleep(0.6)
        assert worker(server, job) == second and lives(second), "the next server watches it"
        os.kill(second, signal.SIGCONT)
        assert gone(second, 20)
        time.sleep(0.6)
        before = told_steps(api, job)
        time.sleep(0.6)
        assert told_steps(api, job) == before and len(before) < STEPS
        assert api.fine_tuning.jobs.retrieve(job).paused
        api.fine_tuning.jobs.resume(job)
        wait_for_step(api, job, before[-1] + 3)
    server.kill()
    os.kill(worker(server, job), signal.SIGKILL)
    restart(server)
    with client(server.running) as api:
        wait(api, job, "succeeded")
        wait(api, alone, "succeeded")
        steps = list(range(1, STEPS + 1))
        assert told_steps(api, job) == told_steps(api, alone) == steps, "nothing lost or doubled"
        assert losses(api, job) == losses(api, alone)
        messages = [e.message for e in api.fine_tuning.jobs.list_events(job, limit=1000)]
        assert sum("goes on from step" in m for m in messages) == 3
        assert sum(m == "The job has successfully completed" for m in messages) == 1
        assert len(api.fine_tuning.jobs.retrieve(job).result_files) == 1
        assert len(api.fine_tuning.jobs.checkpoints.list(job).data) == EPOCHS
    assert weights(server, job) == weights(server, alone)


def test_cancel_ends_also_a_worker_that_does_not_answer(server: Server) -> None:
    with client(server.running) as api:
        polite = create(api)
        wait_for_step(api, polite, 3)
        assert api.fine_tuning.jobs.cancel(polite).status == "cancelled"
        assert gone(worker(server, polite), 20)
        assert api.fine_tuning.jobs.retrieve(polite).fine_tuned_model is None
        assert not (folder(server, polite) / "run" / "adapter").exists()

        stuck = create(api)
        wait_for_step(api, stuck, 3)
        pid = worker(server, stuck)
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        api.fine_tuning.jobs.cancel(stuck)
        assert gone(pid, 20)
        assert time.monotonic() - begun > 9, "it had its time"


def restart(server: Server) -> None:
    running = server.running
    models = {MODEL: str(running.home.parent / "model")}
    again = start_server(running.home, key=running.key, models=models, workers=2, worker_threads=1)
    server.process, server.running = again.process, again.running
