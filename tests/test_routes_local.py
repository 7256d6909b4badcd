"""Training in a process of its own: submit, pause, attach, resume, result."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

pytest.importorskip("peft")

from training_support import save_small_model, word_examples
from tunewise.data.chat import Example
from tunewise.errors import TrainingError
from tunewise.routes.base import ROUTES, open_route
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(model, tmp_path):
    examples = word_examples(40)
    return TrainingJob(
        model=str(model),
        examples=examples[:32],
        dev=examples[32:],
        fine_tune=FineTune(batch_size=4, lora={"rank": 4}),
        learning_rate=5e-3,
        epochs=6,
        seed=1,
        output=tmp_path / "run",
        threads=1,
    )


def wait_for(condition, seconds=200.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def test_pause_attach_resume_and_submit_again(job):
    route = open_route("local")
    handle = route.submit(job)
    assert handle.status().state in ("queued", "running")
    wait_for(lambda: (handle.status().step or 0) >= 3)
    assert route.submit(job).status().state == "running", "the same job twice is one job"
    with pytest.raises(TrainingError, match="another job runs in this folder"):
        route.submit(replace(job, seed=2))
    handle.pause()
    status = handle.status()
    assert status.state == "paused" and status.over and 3 <= status.step < status.total_steps

    attached = route.attach(handle.id)
    attached.resume()
    events = []
    result = attached.result(timeout=200, on_event=events.append)
    assert result.steps == status.total_steps or result.best_step < result.steps
    assert attached.status().state == "succeeded"
    assert [e["event"] for e in attached.events()][-1] == "end"
    assert attached.events(since=2) == attached.events()[2:]
    assert [e["step"] for e in events if e["event"] == "resume"] == [status.step]

    begin = time.monotonic()
    assert route.submit(job).result().as_dict() == result.as_dict()
    assert time.monotonic() - begin < 2, "a finished job is not run again"


def test_a_job_that_fails_says_why(job):
    rows = [Example("bare", ({"role": "user", "content": "no answer"},))]
    handle = open_route("local").submit(replace(job, examples=rows))
    with pytest.raises(TrainingError, match=r"no token of the row .*row 'bare'"):
        handle.result(timeout=200)
    status = handle.status()
    assert status.state == "failed" and "no token" in status.error


def test_check_and_forecast_before_anything_is_spent(job):
    route = open_route("local")
    lone = Example("bare", ({"role": "user", "content": "no answer"},))
    found = route.check(replace(job, examples=[*job.examples, lone]))
    assert [(f.code, f.severity, f.rows) for f in found] == [
        ("no_trained_token", "error", ("bare",))
    ]
    forecast = route.forecast(replace(job, epochs=2))
    assert forecast.steps == 16 and forecast.usd == 0
    assert forecast.seconds > 0 and forecast.peak_memory_bytes > 50e6
    assert not job.output.exists()


def test_cancel_ends_it_for_good(job):
    handle = open_route("local").submit(replace(job, epochs=500))
    wait_for(lambda: (handle.status().step or 0) >= 1)
    handle.cancel()
    assert handle.status().state == "cancelled"
    assert not (job.output / "checkpoints").exists()
    with pytest.raises(TrainingError, match="cancelled"):
        handle.result(timeout=5)


def test_unknown_routes_and_jobs(tmp_path):
    assert "local" in ROUTES.names()
    with pytest.raises(TrainingError, match="no route called 'mars'"):
        open_route("mars")
    with pytest.raises(TrainingError, match="no training job"):
        open_route("local").attach(str(tmp_path))
