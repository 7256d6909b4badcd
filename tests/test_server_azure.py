"""Azure's whole road with the unmodified client: file, job, deployment, answers, deletion."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai import AsyncAzureOpenAI

from azure_support import (
    ACCOUNT,
    ARM_VERSION,
    VERSION,
    Swagger,
    azure_client,
    azure_error,
    deployment,
    manage,
    wait_for_deployment,
)
from server_support import Running, call, chats, client, envelope, make_key, running_server

MODEL = "gpt-4o-mini-2024-07-18"
HELLO: list[Any] = [{"role": "user", "content": "What is 3 plus one?"}]


class Done(NamedTuple):
    """A server on which a job has succeeded."""

    running: Running
    job_id: str
    model: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("azure")
    models = {MODEL: "tunewise/tiny", "tunewise/tiny": "tunewise/tiny", "broken": str(folder)}
    with running_server(folder, models=models, worker_threads=1) as running:
        with azure_client(running) as api:
            file = api.files.create(file=("rows.jsonl", chats(12)), purpose="fine-tune")
            job = api.fine_tuning.jobs.create(
                model=MODEL,
                training_file=file.id,
                suffix="recipes",
                seed=105,
                hyperparameters={"n_epochs": 2, "batch_size": 12},
                extra_body={"trainingType": "globalstandard"},
            )
            deadline = time.monotonic() + 90
            while job.status not in ("succeeded", "failed", "cancelled"):
                assert job.status in ("created", "pending", "running")
                assert time.monotonic() < deadline, job
                time.sleep(0.2)
                job = api.fine_tuning.jobs.retrieve(job.id)
            assert job.status == "succeeded", job.error
            assert job.fine_tuned_model is not None
        yield Done(running, job.id, job.fine_tuned_model)


@pytest.fixture
def authoring(shared: Path) -> Swagger:
    path = shared / "spec" / "azure_authoring_2024-06-01.json"
    if not path.is_file():
        pytest.skip("Microsoft's document is not here")
    return Swagger(path)


@pytest.fixture
def arm(shared: Path) -> Swagger:
    path = shared / "spec" / "azure_arm_cognitiveservices_2024-04-01-preview.json"
    if not path.is_file():
        pytest.skip("Microsoft's document is not here")
    return Swagger(path)


def classic(running: Running, method: str, path: str, **options: Any) -> Any:
    return call(running, method, f"/openai{path}", params={"api-version": VERSION}, **options)


def test_a_tuned_model_is_deployed_and_asked(done: Done) -> None:
    running = done.running
    assert re.fullmatch(rf"{re.escape(MODEL)}\.ft-[0-9a-f]{{32}}-recipes", done.model)
    answer = manage(running, "PUT", "/recipes", deployment(done.model))
    assert answer.status_code == 201, answer.text
    assert answer.json()["properties"]["provisioningState"] == "Accepted"
    operation = answer.headers["azure-asyncoperation"].removeprefix(running.root)
    shown = wait_for_deployment(running, "recipes")
    assert shown["properties"]["provisioningState"] == "Succeeded", shown
    assert shown["id"] == f"{ACCOUNT}/recipes" and shown["sku"]["name"] == "Standard"
    assert call(running, "GET", operation).json()["status"] == "Succeeded"

    with azure_client(running, azure_deployment="recipes") as api:
        chat = api.chat.completions.create(
            model="anything", messages=HELLO, temperature=0, max_tokens=6
        )
        text = chat.choices[0].message.content
        assert text and chat.usage and chat.usage.completion_tokens > 0
        pieces = api.chat.completions.create(
            model="anything", messages=HELLO, temperature=0, max_tokens=6, stream=True
        )
        assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == text
        assert api.completions.create(model="x", prompt="One, two,", max_tokens=3).choices
        assert len(api.embeddings.create(model="x", input="soup").data[0].embedding) > 8
        # Files and jobs go to the same addresses as without a deployment.
        assert api.fine_tuning.jobs.retrieve(done.job_id).fine_tuned_model == done.model
    with azure_client(running) as api:
        again = api.chat.completions.create(
            model="recipes", messages=HELLO, temperature=0, max_tokens=6
        )
        assert again.choices[0].message.content == text
        assert api.responses.create(
            model="recipes", input="3 plus one?", max_output_tokens=16
        ).output_text
    with client(running._replace(base_url=f"{running.root}/openai/v1")) as plain:
        v1 = plain.chat.completions.create(
            model="recipes", messages=HELLO, temperature=0, max_tokens=6
        )
        assert v1.choices[0].message.content == text
    other = make_key(running.home, project="other")
    with azure_client(running, key=other) as api, pytest.raises(Exception, match="does not exist"):
        api.chat.completions.create(model="recipes", messages=HELLO)

    # While it is deployed, the model stays, in both dialects.
    azure_error(classic(running, "DELETE", f"/models/{done.model}"), 409, "conflict")
    with client(running) as plain:
        ours = plain.fine_tuning.jobs.retrieve(done.job_id).fine_tuned_model
    refused = call(running, "DELETE", f"/v1/models/{ours}")
    assert "deployed as 'recipes'" in envelope(refused, 409, "model_deployed")["message"]

    gone = manage(running, "DELETE", "/recipes")
    assert gone.status_code == 202
    operation = gone.headers["azure-asyncoperation"].removeprefix(running.root)
    assert call(running, "GET", operation).json()["status"] == "Succeeded"
    assert manage(running, "DELETE", "/recipes").status_code == 204
    azure_error(manage(running, "GET", "/recipes"), 404, "ResourceNotFound")
    with azure_client(running) as api, pytest.raises(Exception, match="does not exist"):
        api.chat.completions.create(model="recipes", messages=HELLO)


def test_both_dialects_see_one_job(done: Done) -> None:
    with azure_client(done.running) as azure, client(done.running) as plain:
        theirs = azure.fine_tuning.jobs.retrieve(done.job_id)
        ours = plain.fine_tuning.jobs.retrieve(done.job_id)
        assert theirs.id == ours.id and theirs.training_file == ours.training_file
        assert theirs.trained_tokens == ours.trained_tokens and theirs.seed == ours.seed == 105
        assert ours.fine_tuned_model and ours.fine_tuned_model.startswith(f"ft:{MODEL}:")
        assert theirs.hyperparameters.n_epochs == 2
        # Either name is understood in either dialect.
        for name in (done.model, ours.fine_tuned_model):
            for api in (azure, plain):
                answer = api.chat.completions.create(model=name, messages=HELLO, max_tokens=2)
                assert answer.choices[0].finish_reason
            assert azure.models.retrieve(name).id == done.model
        events = [e.message for e in azure.fine_tuning.jobs.list_events(done.job_id)]
        assert f"New fine-tuned model created: {done.model}" in events
        assert not any("ft:" in message for message in events)
        assert "Training type GlobalStandard: this server trains on its own hardware." in events
        points = azure.fine_tuning.jobs.checkpoints.list(done.job_id).data
        assert [p.fine_tuned_model_checkpoint for p in points] == [
            f"{done.model}:ckpt-step-2",
            f"{done.model}:ckpt-step-1",
        ]
        assert all(p.id.startswith("ftchkpt-") for p in points)
        rest = azure.fine_tuning.jobs.checkpoints.list(done.job_id, after=points[0].id).data
        assert [p.id for p in rest] == [points[1].id]
        result = azure.files.content(theirs.result_files[0]).text
        assert "full_valid_mean_token_accuracy" in result.splitlines()[0]


def test_answers_have_the_published_shapes(done: Done, authoring: Swagger) -> None:
    running = done.running
    made = classic(
        running,
        "POST",
        "/files",
        files={"file": ("a.jsonl", chats())},
        data={"purpose": "fine-tune"},
    )
    assert made.status_code == 201
    authoring.check(made.json(), "File")
    place = made.headers["location"]
    assert place == f"{running.root}/openai/files/{made.json()['id']}?api-version={VERSION}"
    assert call(running, "GET", place.removeprefix(running.root)).json() == made.json()
    authoring.check(classic(running, "GET", "/files").json(), "FileList")

    job = {"model": MODEL, "training_file": made.json()["id"]}
    sent = {**job, "hyperparameters": {"n_epochs": -1, "prompt_loss_weight": 0.1}}
    created = classic(running, "POST", "/fine_tuning/jobs", json=sent)
    assert created.status_code == 201, created.text
    authoring.check(created.json(), "FineTuningJob")
    assert created.json()["hyperparameters"]["n_epochs"] == -1
    path = f"/fine_tuning/jobs/{created.json()['id']}"
    assert created.headers["location"] == f"{running.root}/openai{path}?api-version={VERSION}"
    cancelled = classic(running, "POST", f"{path}/cancel")
    authoring.check(cancelled.json(), "FineTuningJob")
    assert cancelled.json()["status"] == "cancelled"
    events = classic(running, "GET", f"{path}/events").json()
    authoring.check(events, "FineTuningJobEventList")
    warnings = [e["message"] for e in events["data"] if e["level"] == "warning"]
    assert len(warnings) == 2 and any("trainingType was not given" in text for text in warnings)
    assert any("prompt_loss_weight has no effect" in text for text in warnings)
    again = azure_error(classic(running, "POST", f"{path}/cancel"), 400, "unexpectedEntityState")
    authoring.check({"error": again}, "ErrorResponse")
    assert classic(running, "DELETE", path).status_code == 204
    missing = classic(running, "GET", path)
    authoring.check(missing.json(), "ErrorResponse")
    azure_error(missing, 404, "notFound")
    assert classic(running, "DELETE", f"/files/{made.json()['id']}").status_code == 204

    jobs = classic(running, "GET", "/fine_tuning/jobs").json()
    authoring.check(jobs, "FineTuningJobList")
    assert [one["id"] for one in jobs["data"]] == [done.job_id]
    points = classic(running, "GET", f"/fine_tuning/jobs/{done.job_id}/checkpoints").json()
    authoring.check(points, "FineTuningJobCheckpointList")
    assert len(points["data"]) == 2
    models = classic(running, "GET", "/models").json()
    authoring.check(models, "ModelList")
    by_id = {one["id"]: one for one in models["data"]}
    assert by_id[MODEL]["capabilities"]["fine_tune"]
    assert by_id[done.model]["fine_tune"] == done.job_id


def test_deployments_have_the_published_shapes(done: Done, arm: Swagger) -> None:
    running = done.running
    asked = {**deployment(MODEL, "GlobalStandard"), "tags": {"team": "soup"}, "odd": float("inf")}
    made = call(
        running, "PUT", f"{ACCOUNT}/shapes", params=ARM_VERSION, content=json.dumps(asked),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert made.status_code == 201 and made.json()["tags"] == {"team": "soup"}
    arm.check(made.json(), "Deployment")
    arm.check(wait_for_deployment(running, "shapes"), "Deployment")
    listed = manage(running, "GET", "")
    arm.check(listed.json(), "DeploymentListResult")
    assert [one["name"] for one in listed.json()["value"]] == ["shapes"]
    again = manage(running, "PUT", "/shapes", deployment(MODEL, "GlobalStandard"))
    assert again.status_code == 200
    assert again.json()["properties"]["provisioningState"] == "Succeeded"
    clash = manage(running, "PUT", "/shapes", deployment(done.model))
    assert "serves another model" in azure_error(clash, 409, "Conflict")["message"]
    elsewhere = ACCOUNT.replace("acme", "other") + "/shapes"
    taken = call(running, "PUT", elsewhere, params=ARM_VERSION, json=deployment(MODEL))
    azure_error(taken, 409, "Conflict")
    empty = call(running, "GET", elsewhere.removesuffix("/shapes"), params=ARM_VERSION)
    assert empty.json() == {"value": []}
    assert manage(running, "DELETE", "/shapes").status_code == 202


def test_checkpoints_are_deployed_by_name_and_id(done: Done) -> None:
    running = done.running
    with azure_client(running) as api:
        point = api.fine_tuning.jobs.checkpoints.list(done.job_id).data[-1]
        for name, model in (("one", point.id), ("two", point.fine_tuned_model_checkpoint)):
            assert manage(running, "PUT", f"/{name}", deployment(model)).status_code == 201
            shown = wait_for_deployment(running, name)
            assert shown["properties"]["provisioningState"] == "Succeeded", shown
            assert api.chat.completions.create(model=name, messages=HELLO, max_tokens=2).choices
            manage(running, "DELETE", f"/{name}")


def test_a_model_that_does_not_load_fails_with_the_reason(done: Done) -> None:
    running = done.running
    answer = manage(running, "PUT", "/bad", deployment("broken"))
    assert answer.status_code == 201
    shown = wait_for_deployment(running, "bad")
    assert shown["properties"]["provisioningState"] == "Failed"
    assert shown["properties"]["error"]["message"]
    operation = answer.headers["azure-asyncoperation"].removeprefix(running.root)
    assert call(running, "GET", operation).json()["error"] == shown["properties"]["error"]
    with azure_client(running) as api, pytest.raises(Exception, match="has failed"):
        api.chat.completions.create(model="bad", messages=HELLO)
    assert manage(running, "DELETE", "/bad").status_code == 202


def test_checkpoints_are_copied_to_projects(done: Done) -> None:
    running = done.running
    other = make_key(running.home, project="Copies")
    with azure_client(running) as api:
        point = api.fine_tuning.jobs.checkpoints.list(done.job_id).data[0]
    path = f"/openai/v1/fine_tuning/jobs/{done.job_id}/checkpoints/{point.id}/copy"
    preview = {"aoai-copy-ft-checkpoints": "preview"}
    resource = ACCOUNT.removesuffix("/acme/deployments") + "/copies"
    body = {"destinationResourceId": resource, "region": "westeurope"}
    with azure_client(running, key=other) as api, pytest.raises(Exception, match="does not exist"):
        api.chat.completions.create(model=point.fine_tuned_model_checkpoint, messages=HELLO)
    envelope(call(running, "POST", path, json=body), 400)
    nowhere = {**body, "destinationResourceId": resource + "s"}
    refused = call(running, "POST", path, json=nowhere, headers=preview)
    envelope(refused, 404, "project_not_found")
    for _ in range(2):
        copied = call(running, "POST", path, json=body, headers=preview)
        assert copied.status_code == 200, copied.text
    assert copied.json() == {
        "checkpointedModelName": point.fine_tuned_model_checkpoint,
        "fineTuningJobId": done.job_id,
        "copiedAccountDetails": [{**body, "status": "Completed"}],
    }
    assert call(running, "GET", path, headers=preview).json() == copied.json()
    with azure_client(running, key=other) as api:
        name = point.fine_tuned_model_checkpoint
        assert api.chat.completions.create(model=name, messages=HELLO, max_tokens=2).choices


def test_the_other_clients(done: Done) -> None:
    running = done.running
    v1 = f"{running.root}/openai/v1"
    for base_url in (v1, f"{running.root}/api/projects/acme/openai/v1"):
        with client(running._replace(base_url=base_url)) as plain:
            [job] = [job for job in plain.fine_tuning.jobs.list() if job.id == done.job_id]
            assert job.fine_tuned_model == done.model == plain.models.retrieve(done.model).id
            assert done.model in {model.id for model in plain.models.list()}
            points = plain.fine_tuning.jobs.checkpoints.list(job.id).data
            assert all(p.fine_tuned_model_checkpoint.startswith(done.model) for p in points)
            events = [e.message for e in plain.fine_tuning.jobs.list_events(job.id, limit=100)]
            assert any(done.model in text for text in events)
            assert not any("ft:" in text for text in events)
            file = plain.files.create(file=("a.jsonl", chats()), purpose="fine-tune")
            assert plain.files.retrieve(file.id).status == "processed"
            job = plain.fine_tuning.jobs.create(
                model=MODEL, training_file=file.id, extra_body={"trainingType": "Developer"}
            )
            plain.fine_tuning.jobs.cancel(job.id)
            told = [event.message for event in plain.fine_tuning.jobs.list_events(job.id)]
            assert not any("mean nothing here" in text for text in told)
            assert plain.delete(f"/fine_tuning/jobs/{job.id}", cast_to=object) is not job
            assert plain.files.delete(file.id).deleted
    dated = running._replace(base_url=v1)
    with (
        client(dated, default_query={"api-version": VERSION}) as wrong,
        pytest.raises(Exception, match="api-version query parameter is not allowed"),
    ):
        wrong.models.list()

    async def ask() -> str | None:
        async with AsyncAzureOpenAI(
            azure_endpoint=running.root,
            azure_ad_token=running.key,
            api_version="2025-04-01-preview",
            azure_deployment="tunewise/tiny",
            max_retries=0,
        ) as api:
            assert [job.id async for job in await api.fine_tuning.jobs.list()] == [done.job_id]
            chat = await api.chat.completions.create(model="x", messages=HELLO, max_tokens=3)
            return chat.choices[0].finish_reason

    assert asyncio.run(ask()) in ("stop", "length")


def test_wrong_requests_get_azures_errors(done: Done) -> None:
    running = done.running
    missing = azure_error(call(running, "GET", "/openai/files"), 404, "notFound")
    assert "api-version is missing" in missing["message"]
    unknown = {"api-version": "2031-01-01"}
    answer = call(running, "GET", "/openai/fine_tuning/jobs", params=unknown)
    assert "2024-10-21" in azure_error(answer, 400, "invalidPayload")["message"]
    wrong = call(running, "GET", "/openai/v1/files", params={"api-version": VERSION})
    envelope(wrong, 400, "BadRequest")
    assert call(running, "GET", "/openai/v1/files", params={"api-version": "v1"}).is_success
    for path in ("/files", "/files/file-x", "/models", "/nothing"):
        azure_error(classic(running, "GET", path, key=""), 401, "unauthorized")
    azure_error(call(running, "GET", f"{ACCOUNT}/x", key=""), 401, "AuthenticationFailed")
    no_version = call(running, "GET", f"{ACCOUNT}/x")
    azure_error(no_version, 400, "MissingApiVersionParameter")
    bad = call(running, "GET", f"{ACCOUNT}/x", params={"api-version": "soon"})
    azure_error(bad, 400, "InvalidApiVersionParameter")
    azure_error(classic(running, "GET", "/nothing"), 404, "notFound")
    rows = {"file": ("a.jsonl", b'{"messages": 1}\n')}
    upload = classic(running, "POST", "/files", files=rows, data={"purpose": "fine-tune"})
    azure_error(upload, 400, "jsonlValidationFailed")
    job = {"model": MODEL, "training_file": "file-x", "trainingType": "Fast"}
    refused = azure_error(
        classic(running, "POST", "/fine_tuning/jobs", json=job), 400, "invalidPayload"
    )
    assert refused["target"] == "trainingType" and refused["innererror"]
    for body, code in (
        (deployment("gpt-9"), "DeploymentModelNotSupported"),
        (deployment(MODEL, "Gold"), "InvalidRequestContent"),
        ({"sku": {"name": "standard"}}, "InvalidRequestContent"),
    ):
        azure_error(manage(running, "PUT", "/x", body), 400, code)
    azure_error(manage(running, "PUT", "/-x", deployment(MODEL)), 400, "InvalidResourceName")
    no_model = classic(
        running, "POST", "/deployments/gpt-9/chat/completions", json={"messages": HELLO}
    )
    envelope(no_model, 404, "DeploymentNotFound")
    body = {"messages": HELLO, "max_tokens": 2}
    without = classic(running, "POST", f"/deployments/{MODEL}/chat/completions", json=body)
    assert without.status_code == 200, without.text
    broken = classic(running, "POST", f"/deployments/{MODEL}/completions", content=b"{")
    envelope(broken, 400)
    oversized = classic(
        running, "POST", "/fine_tuning/jobs", content=b" " * (33 * 1024**2),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    azure_error(oversized, 413, "invalidPayload")
