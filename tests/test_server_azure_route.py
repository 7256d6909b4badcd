"""Tunewise's road to Azure, sent to Tunewise's own server: both keep to the documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_support import ACCOUNT, VERSION, manage
from server_support import Running
from tunewise.data.chat import Example, Request
from tunewise.models.opening import open_engine
from tunewise.routes.azure import AzureRoute
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob

MODEL = "gpt-4o-mini-2024-07-18"


def test_job_deployment_answer_deletion(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Example(
            f"row {i}",
            ({"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": str(i + 1)}),
        )
        for i in range(12)
    ]
    job = TrainingJob(
        model=f"azure:{MODEL}",
        examples=rows,
        dev=(),
        fine_tune=FineTune(route="azure", epochs=1, batch_size=12, hosted={"deploy": True}),
        learning_rate=1.0,
        epochs=1,
        seed=7,
        output=tmp_path / "job",
    )
    parts = ACCOUNT.split("/")
    for name, value in {
        "AZURE_OPENAI_ENDPOINT": server.root,
        "AZURE_OPENAI_API_KEY": server.key,
        "AZURE_OPENAI_API_VERSION": VERSION,
        "AZURE_MANAGEMENT_ENDPOINT": server.root,
        "AZURE_MANAGEMENT_TOKEN": server.key,
        "AZURE_SUBSCRIPTION_ID": parts[2],
        "AZURE_RESOURCE_GROUP": parts[4],
        "AZURE_OPENAI_ACCOUNT": parts[8],
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AZURE_OPENAI_AD_TOKEN", raising=False)
    route = AzureRoute(poll_seconds=0.2)
    handle = route.submit(job)
    result = handle.result(timeout=90)
    assert result.remote == f"azure:{handle.deployment}"
    assert result.config["fine_tuned_model"].startswith(f"{MODEL}.ft-")
    engine = open_engine(result.remote)
    answer = engine.answer([Request(({"role": "user", "content": "3?"},), max_tokens=4)])
    assert answer[0].error is None and answer[0].completion_tokens
    engine.close()
    route.attach(handle.id).undeploy()
    assert manage(server, "GET", "").json() == {"value": []}
    route.attach(handle.id).undeploy()
