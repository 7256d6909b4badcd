"""Trainings forked from a process that has imported the libraries: still processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("peft")

from training_support import save_small_model, word_examples
from tunewise.errors import TrainingError
from tunewise.routes.base import open_route
from tunewise.routes.local import LocalHandle, LocalRoute
from tunewise.study.schema import FineTune
from tunewise.training import fork_server
from tunewise.training.job import TrainingJob

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd_open")


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    examples = word_examples(40)
    return TrainingJob(
        model=str(save_small_model(tmp_path / "model")),
        examples=examples[:32],
        dev=examples[32:],
        fine_tune=FineTune(batch_size=4, lora={"rank": 4, "dropout": 0.1}),
        learning_rate=5e-3,
        epochs=4,
        seed=1,
        output=tmp_path / "run",
        threads=1,
        checkpoint_seconds=0.0,
    )


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[1])


def wait_for_step(handle: LocalHandle, step: int) -> int:
    """The pid of a job that has done so many steps."""
    end = time.monotonic() + 120
    while (handle.status().step or 0) < step:
        assert time.monotonic() < end and not handle.status().over
        time.sleep(0.01)
    return int(json.loads((handle.folder / "status.json").read_bytes())["pid"])


def weights(job: TrainingJob) -> bytes:
    return (job.output / "adapter" / "adapter_model.safetensors").read_bytes()


def test_forked_trainings_are_killed_resumed_and_repeated_one_by_one(job: TrainingJob) -> None:
    route = LocalRoute()
    jobs = [replace(job, output=job.output.with_name(name)) for name in ("one", "two", "three")]
    killed, calm, fresh = jobs
    handles = [route.submit(killed), route.submit(calm)]
    pids = [wait_for_step(handle, 2) for handle in handles]
    (server,) = {parent_of(pid) for pid in pids}
    assert parent_of(server) == os.getpid()
    assert [os.getsid(pid) for pid in pids] == pids, "each in a session of its own"

    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(TrainingError, match="interrupted"):
        handles[0].result(timeout=60)
    handles[0].resume()
    results = [handle.result(timeout=120) for handle in handles]
    assert any(e["event"] == "resume" for e in handles[0].events())
    assert results[0].train_loss == results[1].train_loss

    os.kill(server, signal.SIGKILL)
    assert route.submit(fresh).result(timeout=120).train_loss == results[0].train_loss
    assert weights(killed) == weights(calm) == weights(fresh)


_CALLER = """
import os, signal, sys
from pathlib import Path
from tunewise.routes.local import LocalRoute
from tunewise.training.job_files import read_job

handle = LocalRoute().submit(read_job(Path(sys.argv[1])))
while not handle.status().step:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_training_outlives_its_caller_and_the_server(job: TrainingJob, tmp_path: Path) -> None:
    from tunewise.training.job_files import write_job

    write_job(job, tmp_path / "job")
    caller = [sys.executable, "-c", _CALLER, str(tmp_path / "job")]
    assert subprocess.run(caller, timeout=120).returncode == -signal.SIGKILL
    handle = open_route("local").attach(str(job.output))
    assert handle.status().state == "running"
    assert handle.result(timeout=120).steps == 32
    assert (job.output / "worker.log").read_text() == ""


@pytest.mark.parametrize("asked", [False, True])
def test_a_parent_that_asked_cuda_forks_no_trainings(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    # What torch says in a fork of a process that has used CUDA; there is no GPU here to use.
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: asked)
    assert fork_server._fork_can_use_a_gpu() is not asked
