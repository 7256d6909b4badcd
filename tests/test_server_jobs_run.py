"""Supervised jobs from upload to model, with the official client against a real server."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from server_support import Running, call, chats, client, envelope, make_key, running_server
from tunewise.server.keys import listed
from tunewise.server.settings import load_settings

MODEL = "gpt-4o-mini-2024-07-18"
OVER = ("succeeded", "failed", "cancelled")
WORDS = {"n_epochs": 2, "batch_size": -1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("jobs")
    with running_server(home, models={MODEL: "tunewise/tiny"}, worker_threads=1) as running:
        yield running


def upload(api: OpenAI, data: bytes, name: str = "rows.jsonl") -> str:
    return api.files.create(file=(name, data), purpose="fine-tune").id


def wait(api: OpenAI, job_id: str, *statuses: str, seconds: float = 120) -> Any:
    """The job, once it has one of these statuses (or is over)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = api.fine_tuning.jobs.retrieve(job_id)
        if job.status in (statuses or OVER) or job.status in OVER:
            return job
        time.sleep(0.1)
    raise AssertionError((job, story(api, job_id)))


def story(api: OpenAI, job_id: str) -> list[str]:
    """All messages of a job, oldest first."""
    return [e.message for e in api.fine_tuning.jobs.list_events(job_id, limit=100)][::-1]


def test_supervised_job_end_to_end(server: Running) -> None:
    with client(server) as api:
        training, validation = upload(api, chats(12)), upload(api, chats(10))
        job = api.fine_tuning.jobs.create(
            model=MODEL,
            training_file=training,
            validation_file=validation,
            suffix="sums",
            seed=7,
            metadata={"team": "recipes"},
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 6}},
            },
            integrations=[{"type": "wandb", "wandb": {"project": "sums"}}],
        )
        assert job.status == "validating_files"
        assert job.id.startswith("ftjob-") and job.organization_id == "tunewise"
        assert job.hyperparameters.learning_rate_multiplier == "auto"
        with pytest.raises(openai.APIStatusError, match=job.id):
            api.files.delete(training)
        job = wait(api, job.id)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model.startswith(f"ft:{MODEL}:tunewise:sums:")
        assert job.hyperparameters.n_epochs == 4 and job.hyperparameters.batch_size == 6
        assert job.hyperparameters.learning_rate_multiplier == 1
        assert job.trained_tokens > 0 and job.estimated_finish is None and job.error is None
        assert job.finished_at >= job.created_at

        messages = story(api, job.id)
        assert messages[:2] == [
            f"Created fine-tuning job: {job.id}",
            f"Validating training file: {training} and validation file: {validation}",
        ]
        assert any("wandb" in m for m in messages)
        at = [
            messages.index(m)
            for m in ("Files validated, moving job to queued state", "Fine-tuning job started")
        ]
        assert at == sorted(at)
        steps = [m for m in messages if m.startswith("Step ")]
        assert [m.split(":")[0] for m in steps] == [f"Step {n}/8" for n in range(1, 9)]
        assert "full validation loss=" in steps[1] and "validation" not in steps[0]
        assert messages[-2:] == [
            f"New fine-tuned model created: {job.fine_tuned_model}",
            "The job has successfully completed",
        ]
        metrics = [
            e for e in api.fine_tuning.jobs.list_events(job.id, limit=100) if e.type == "metrics"
        ]
        newest = dict(metrics[0].data)
        assert newest["step"] == newest["total_steps"] == 8
        assert 0 <= newest["train_mean_token_accuracy"] <= 1
        assert newest["full_valid_loss"] > 0

        checkpoints = api.fine_tuning.jobs.checkpoints.list(job.id).data
        assert [c.step_number for c in checkpoints] == [8, 6, 4]
        prefix = re.escape(f"ft:{MODEL}:tunewise:sums:")
        for checkpoint in checkpoints:
            step = checkpoint.step_number
            name = checkpoint.fine_tuned_model_checkpoint
            assert re.fullmatch(rf"{prefix}[A-Za-z0-9]{{8}}:ckpt-step-{step}", name)
            assert f"Checkpoint created at step {step} with Snapshot ID: {name}" in messages
        assert checkpoints[0].metrics.full_valid_loss == newest["full_valid_loss"]
        first = api.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
        assert first.has_more
        second = api.fine_tuning.jobs.checkpoints.list(job.id, after=first.data[0].id)
        assert [c.step_number for c in second.data] == [6, 4]

        names = {m.id for m in api.models.list()}
        assert {job.fine_tuned_model, MODEL} <= names
        assert api.models.retrieve(checkpoints[1].fine_tuned_model_checkpoint)
        folder = server.home / "jobs" / job.id / "run"
        assert (folder / "adapter" / "adapter_model.safetensors").is_file()
        assert not (folder / "job").exists(), "the copy of the rows is gone"
        assert sorted(p.name for p in (folder / "epochs").iterdir()) == ["4", "6", "8"]

        (result,) = job.result_files
        rows = list(csv.DictReader(io.StringIO(api.files.content(result).text)))
        assert [r["step"] for r in rows] == [str(n) for n in range(1, 9)]
        assert rows[-1]["train_accuracy"] == rows[-1]["train_mean_token_accuracy"] != ""
        assert float(rows[-1]["full_valid_loss"]) == newest["full_valid_loss"]
        assert rows[-1]["validation_mean_token_accuracy"] != ""
        assert rows[0]["valid_loss"] == ""
        assert api.files.retrieve(result).purpose == "fine-tune-results"
        encoded = api.files.content(result, extra_headers={"Accept": "application/base64"})
        assert base64.b64decode(encoded.text) == api.files.content(result).read()
        api.files.delete(training)


def test_lists_filters_and_other_projects(server: Running) -> None:
    with client(server) as api:
        training = upload(api, chats(3))
        made = [
            api.fine_tuning.jobs.create(
                model=MODEL, training_file=training, metadata={"n": str(n), "batch": "list"}
            ).id
            for n in range(3)
        ]
        plain = api.fine_tuning.jobs.create(model=MODEL, training_file=training).id
        found = api.fine_tuning.jobs.list(metadata={"batch": "list"})
        assert [job.id for job in found.data] == made[::-1]
        assert [j.id for j in api.fine_tuning.jobs.list(metadata={"n": "1", "batch": "list"})] == [
            made[1]
        ]
        assert api.fine_tuning.jobs.list(metadata={"n": "9"}).data == []
        without = call(server, "GET", "/v1/fine_tuning/jobs?metadata=null").json()["data"]
        assert plain in {j["id"] for j in without} and made[0] not in {j["id"] for j in without}
        page = api.fine_tuning.jobs.list(limit=2)
        assert page.has_more and [j.id for j in page.data] == [plain, made[2]]
        assert [j.id for j in page.get_next_page().data] == [made[1], made[0]]

        job = wait(api, made[0])
        assert job.status == "failed" and job.fine_tuned_model is None
        assert job.error.code == "invalid_n_examples" and job.error.param == "training_file"
        assert job.error.message == (
            "Training file has 3 example(s), but must have at least 10 examples"
        )
        events = api.fine_tuning.jobs.list_events(job.id, limit=1)
        assert events.data[0].level == "error" and events.has_more
        older = api.fine_tuning.jobs.list_events(job.id, after=events.data[0].id)
        assert older.data[-1].message == f"Created fine-tuning job: {job.id}"

    stranger = make_key(server.home, project="stranger")
    with client(server, key=stranger) as other:
        assert other.fine_tuning.jobs.list().data == []
        for ask in (
            other.fine_tuning.jobs.retrieve,
            other.fine_tuning.jobs.cancel,
            other.fine_tuning.jobs.pause,
            other.fine_tuning.jobs.resume,
            other.fine_tuning.jobs.list_events,
            other.fine_tuning.jobs.checkpoints.list,
        ):
            with pytest.raises(openai.NotFoundError):
                ask(made[0])
        with pytest.raises(openai.BadRequestError, match="training_file"):
            other.fine_tuning.jobs.create(model=MODEL, training_file=training)


def test_bad_requests(server: Running) -> None:
    with client(server) as api:
        training = upload(api, chats(12))

    def create(**body: Any) -> Any:
        body = {"model": MODEL, "training_file": training, **body}
        return call(server, "POST", "/v1/fine_tuning/jobs", json=body)

    error = envelope(create(model="gpt-9"), 404, "model_not_found")
    assert MODEL in error["message"]
    assert envelope(create(training_file="file-none"), 400)["param"] == "training_file"
    assert envelope(create(validation_file="file-none"), 400)["param"] == "validation_file"
    error = envelope(create(hyperparameters={"n_epochs": 51}), 400, "invalid_hyperparameter")
    assert error["param"] == "hyperparameters.n_epochs" and "from 1 up to 50" in error["message"]
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "many"}}}
    error = envelope(create(method=method), 400)
    assert error["param"] == "method.supervised.hyperparameters.n_epochs"
    envelope(create(method={"type": "telepathy"}), 400)
    envelope(create(suffix="../../etc"), 400)
    envelope(create(suffix="x" * 65), 400)
    envelope(create(seed=-1), 400)
    envelope(create(metadata={str(n): "" for n in range(17)}), 400)
    envelope(create(integrations=[{"type": "carrier-pigeon", "wandb": {"project": "x"}}]), 400)
    envelope(call(server, "POST", "/v1/fine_tuning/jobs", content=b"[1"), 400)
    envelope(call(server, "GET", "/v1/fine_tuning/jobs?after=ftjob-none"), 400)
    envelope(call(server, "GET", "/v1/fine_tuning/jobs?limit=-1"), 400)


def test_equal_idempotency_keys_make_one_job(server: Running) -> None:
    with client(server) as api:
        training = upload(api, chats(3))
        headers = {"Idempotency-Key": "once"}
        one, two = (
            api.fine_tuning.jobs.create(
                model=MODEL, training_file=training, metadata={"once": "1"}, extra_headers=headers
            )
            for _ in range(2)
        )
        assert one.id == two.id
        assert len(api.fine_tuning.jobs.list(metadata={"once": "1"}).data) == 1


def test_old_words_and_unknown_fields(server: Running) -> None:
    """The deprecated field, Azure's -1 for auto, and a field that means nothing here."""
    with client(server) as api:
        job = api.fine_tuning.jobs.create(
            model=MODEL,
            training_file=upload(api, chats(10)),
            extra_body={"trainingType": "Standard", "hyperparameters": {"n_epoch": 9, **WORDS}},
        )
        assert job.hyperparameters.n_epochs == 2 and job.hyperparameters.batch_size == "auto"
        assert any("trainingType" in m for m in story(api, job.id))
        assert any("'n_epoch' has no effect" in m for m in story(api, job.id))
        cancelled = api.fine_tuning.jobs.cancel(job.id)
        assert cancelled.status == "cancelled" and cancelled.finished_at is not None
        answer = call(server, "POST", f"/v1/fine_tuning/jobs/{job.id}/cancel")
        assert "already completed" in envelope(answer, 400)["message"]


def test_checkpoint_permissions(server: Running) -> None:
    with client(server) as api:
        job = next(j for j in api.fine_tuning.jobs.list() if j.status == "succeeded")
        name = api.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
        friend = make_key(server.home, project="friend")
        with client(server, key=friend) as other:
            with pytest.raises(openai.NotFoundError):
                other.models.retrieve(name)
            with pytest.raises(openai.PermissionDeniedError):
                other.fine_tuning.checkpoints.permissions.list(name)
        projects = {p.name: p for p in api.admin.organization.projects.list(limit=1)}
        project = projects["friend"].id
        assert api.admin.organization.projects.retrieve("friend").id == project
        keys = listed(load_settings(None, {"home": server.home}))
        assert project in {key["project_id"] for key in keys if key["project"] == "friend"}
        with client(server, key=friend) as other, pytest.raises(openai.PermissionDeniedError):
            other.admin.organization.projects.list()
        envelope(call(server, "GET", "/v1/organization/projects/none"), 404, "project_not_found")
        envelope(call(server, "GET", "/v1/organization/projects?after=none"), 400)
        made = api.fine_tuning.checkpoints.permissions.create(name, project_ids=[project])
        (permission,) = made.data
        assert permission.id.startswith("cp_") and permission.project_id == project
        again = api.fine_tuning.checkpoints.permissions.create(name, project_ids=["friend"])
        assert [p.id for p in again.data] == [permission.id]
        with client(server, key=friend) as other:
            assert other.models.retrieve(name).id == name
            with pytest.raises(openai.PermissionDeniedError):
                other.models.delete(name)
        for called in (project, "friend"):
            found = api.fine_tuning.checkpoints.permissions.list(name, project_id=called)
            assert [p.id for p in found.data] == [permission.id]
        gone = api.fine_tuning.checkpoints.permissions.delete(
            permission.id, fine_tuned_model_checkpoint=name
        )
        assert gone.deleted
        with client(server, key=friend) as other, pytest.raises(openai.NotFoundError):
            other.models.retrieve(name)
        with pytest.raises(openai.NotFoundError):
            api.fine_tuning.checkpoints.permissions.create(name, project_ids=["proj_none"])


def test_file_of_another_method(server: Running) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "preferred_output": [{"role": "assistant", "content": "Hello"}],
        "non_preferred_output": [{"role": "assistant", "content": "What?"}],
    }
    with client(server) as api:
        data = (json.dumps(pair) + "\n").encode() * 10
        job = api.fine_tuning.jobs.create(model=MODEL, training_file=upload(api, data))
        job = wait(api, job.id)
        assert job.status == "failed" and job.error.code == "invalid_training_file"
        assert "'supervised'" in job.error.message and "preferred_output" in job.error.message
