"""Azure's road against a stub with Azure's documented shapes: job, deployment, answers.

The classic URLs' shapes are those of Microsoft's authoring API 2024-06-01, Resource Manager's those
of Microsoft.CognitiveServices 2024-10-01.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hosted_stub import KEY, MANAGEMENT_TOKEN, Stub, Trouble, running_stub
from tunewise.data.chat import Example, Request
from tunewise.errors import StudyError, TrainingError
from tunewise.models.names import parse_model
from tunewise.models.opening import open_engine
from tunewise.models.retry import Patience
from tunewise.routes.azure import AzureRoute
from tunewise.study.prices import Prices
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob

JOBS = "POST /fine_tuning/jobs"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running_stub(azure=True) as running:
        for name, value in {
            "AZURE_OPENAI_ENDPOINT": running.url,
            "AZURE_OPENAI_API_KEY": KEY,
            "AZURE_OPENAI_API_VERSION": "2024-10-21",
            "AZURE_MANAGEMENT_ENDPOINT": running.url,
            "AZURE_MANAGEMENT_TOKEN": MANAGEMENT_TOKEN,
            "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
            "AZURE_RESOURCE_GROUP": "tuning",
            "AZURE_OPENAI_ACCOUNT": "resource",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AZURE_OPENAI_AD_TOKEN", raising=False)
        yield running


def new_route(prices: Prices | None = None) -> AzureRoute:
    patience = Patience(attempts=4, total_s=20, first_s=0.05)
    return AzureRoute(prices=prices, patience=patience, poll_seconds=0.0)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    rows = [
        Example(
            f"row {i}",
            ({"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": str(i + 1)}),
        )
        for i in range(12)
    ]
    return TrainingJob(
        model="azure:gpt-4o-mini-2024-07-18",
        examples=rows,
        dev=(),
        fine_tune=FineTune(route="azure", epochs=2, hosted={"deploy": True}),
        learning_rate=1.0,
        epochs=2,
        seed=7,
        output=tmp_path / "job",
    )


def test_job_deployment_answer_deletion(
    stub: Stub, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = new_route()
    handle = route.submit(job)
    assert stub.bodies == [
        {
            "model": "gpt-4o-mini-2024-07-18",
            "training_file": "file-0000",
            "seed": 7,
            "hyperparameters": {"n_epochs": 2},
            "trainingType": "Standard",
        }
    ]
    assert handle.status().state == "queued", "Azure says pending"
    stub.finish(handle.job_id)
    stub.not_ready = 2
    result = handle.result(timeout=20)
    name = handle.deployment
    assert result.remote == f"azure:{name}"
    assert stub.deployments[name] == {
        "sku": {"name": "Standard", "capacity": 1},
        "properties": {
            "model": {
                "format": "OpenAI",
                "name": result.config["fine_tuned_model"],
                "version": "1",
            },
            "provisioningState": "Succeeded",
        },
    }
    engine = open_engine(result.remote)
    request = Request(({"role": "user", "content": "hi"},), max_tokens=4)
    assert engine.answer([request])[0].text == "hello"
    engine.close()

    route.attach(handle.id).undeploy()
    assert not stub.deployments
    route.attach(handle.id).undeploy()


def test_nothing_is_deployed_unasked(stub: Stub, job: TrainingJob) -> None:
    silent = replace(job, fine_tune=FineTune(route="azure", epochs=2))
    (warning, kind) = new_route().check(silent)
    assert (warning.code, warning.severity) == ("not_deployed", "warning")
    assert "bills by the hour" in warning.fix and kind.code == "training_type"
    handle = new_route().submit(silent)
    stub.finish(handle.job_id)
    result = handle.result(timeout=5)
    assert result.remote is None and not stub.deployments
    assert result.config["fine_tuned_model"].startswith("ft:")
    assert handle.deploy("DeveloperTier") == f"azure:{handle.deployment}"
    assert stub.deployments[handle.deployment]["sku"]["name"] == "DeveloperTier"


def test_one_job_without_metadata(stub: Stub, job: TrainingJob, tmp_path: Path) -> None:
    stub.trouble[JOBS] = [Trouble(done=True)]
    handle = new_route().submit(job)
    elsewhere = replace(job, output=tmp_path / "elsewhere")
    assert new_route().submit(elsewhere).id == handle.id
    assert len(stub.jobs) == 1 and stub.count("POST /files") == 1
    longer = replace(
        job, fine_tune=FineTune(route="azure", epochs=3), output=tmp_path / "three epochs"
    )
    assert new_route().submit(longer).id != handle.id


def test_a_token_of_entra(stub: Stub, job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", KEY)
    assert new_route().submit(job).status().state == "queued"


def test_the_account_is_asked_for_before_anything_is_spent(
    stub: Stub, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_RESOURCE_GROUP")
    with pytest.raises(TrainingError, match="AZURE_RESOURCE_GROUP is not set"):
        new_route().submit(job)
    assert not stub.calls


def test_deployments_that_fail(
    stub: Stub, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = new_route().submit(job)
    stub.finish(handle.job_id)
    path = handle._deployments.account.path(handle.deployment)
    put, get = f"PUT {path}", f"GET {path}"
    quota = {"code": "InsufficientQuota", "message": "This operation require 1 new capacity"}
    stub.trouble[put] = [Trouble(status=400, error=quota)]
    with pytest.raises(TrainingError, match="InsufficientQuota"):
        handle.result(timeout=5)
    stub.trouble[put] = [Trouble(), Trouble(status=409, error={"code": "RequestConflict"})]
    stub.trouble[get] = [Trouble(done=True), Trouble(status=503, error={"message": "busy"})]
    assert handle.result(timeout=5).remote == f"azure:{handle.deployment}"

    handle.undeploy()
    monkeypatch.setenv("AZURE_MANAGEMENT_TOKEN", "expired-0123456789abcdef")
    with pytest.raises(TrainingError, match="401") as caught:
        handle.deploy()
    assert "az account get-access-token" in str(caught.value)
    assert "expired-0123456789abcdef" not in str(caught.value)
    monkeypatch.setenv("AZURE_MANAGEMENT_ENDPOINT", "https://management.azure.com")
    fresh = new_route().attach(handle.id)
    monkeypatch.setenv("AZURE_MANAGEMENT_ENDPOINT", "https://elsewhere.example")
    monkeypatch.delenv("AZURE_MANAGEMENT_TOKEN")
    with pytest.raises(StudyError, match="AZURE_MANAGEMENT_TOKEN is not set"):
        fresh.deploy()


def test_a_deployment_that_ends_badly(stub: Stub, job: TrainingJob) -> None:
    handle = new_route().submit(job)
    stub.finish(handle.job_id)
    path = handle._deployments.account.path(handle.deployment)
    stub.trouble[f"PUT {path}"] = [Trouble(done=True)]  # made, but the answer was lost
    original = stub.manage

    def failing(method: str, path: str, body: bytes) -> tuple[int, object]:
        status, value = original(method, path, body)
        if method == "GET":
            value["properties"]["provisioningState"] = "Failed"
        return status, value

    stub.manage = failing  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="ended as Failed"):
        handle.result(timeout=5)


def test_the_misleading_refusal_is_explained(stub: Stub, job: TrainingJob) -> None:
    said = {"message": "The specified base model does not support fine-tuning.", "code": None}
    stub.trouble[JOBS] = [Trouble(status=400, error=said)]
    with pytest.raises(TrainingError, match="training_type: GlobalStandard"):
        new_route().submit(job)
    assert not stub.files


def test_hosting_stands_in_the_forecast(stub: Stub, job: TrainingJob) -> None:
    assert "price of hosting unknown" in new_route().forecast(job).basis
    prices = Prices.model_validate(
        {
            "date": "2025-10-01",
            "source": "https://example.com/prices",
            "models": {"azure:ft:gpt-4o-mini-2024-07-18": {"usd_per_month": 1241}},
            "training": {"azure": {"per_1m_tokens": 2.0}},
        }
    )
    found = new_route(prices).forecast(job)
    assert found.usd == pytest.approx(found.tokens * 2e-6)
    assert "hosting 1.70 US dollars an hour" in found.basis


def test_import_by_address(stub: Stub) -> None:
    stub.trouble["POST /files/import"] = [
        Trouble(status=400, error={"code": "fileImportFailed", "message": "no access"})
    ]
    secret = "https://blob.example/rows.jsonl?sig=abcdefghijklmnop"
    with pytest.raises(TrainingError, match="no access") as caught:
        new_route().import_file("rows.jsonl", secret, parse_model("azure:gpt-4o-mini"))
    assert "abcdefghijklmnop" not in str(caught.value)


def test_the_v1_address(stub: Stub, job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"method": {"type": "supervised", "supervised": {"hyperparameters": {}}}}
    marked = {**body, "metadata": {"a": "b"}}
    classic = new_route().dressed(job, marked)  # which knows no metadata, and no method
    assert classic == {"hyperparameters": {}, "trainingType": "Standard"}
    monkeypatch.delenv("AZURE_OPENAI_API_VERSION")
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    route = new_route()
    assert route.connection(parse_model(job.model)).place.base_url == f"{stub.url}/openai/v1"
    assert route.dressed(job, marked) == {**marked, "trainingType": "Standard"}
    sent = route.dressed(job, {"method": {"type": "supervised", "supervised": {}}})
    assert sent == {
        "method": {"type": "supervised", "supervised": {}},
        "trainingType": "Standard",
    }
