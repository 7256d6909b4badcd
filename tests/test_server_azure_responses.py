"""Responses in Azure's dialects, by the clients that people use there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import OpenAI

from azure_support import azure_client, deployment, manage, wait_for_deployment
from server_support import Running, call, client, envelope, running_server

MODEL = "gpt-4o-mini-2024-07-18"
DEPLOYED = "my-deployment"
TALK: list[Any] = [
    {"role": "user", "content": "Who lives in Draimere?"},
    {"role": "assistant", "content": "Kelor. " * 40},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("azure") / "home"
    with running_server(home, models={MODEL: "tunewise/tiny"}, workers=0) as running:
        assert manage(running, "PUT", f"/{DEPLOYED}", deployment(MODEL)).status_code == 201
        assert wait_for_deployment(running, DEPLOYED)["properties"]["provisioningState"] == (
            "Succeeded"
        )
        yield running


@contextmanager
def opened(server: Running, dialect: str) -> Iterator[OpenAI]:
    """The client that speaks a dialect."""
    if dialect.startswith("classic"):
        options = {"azure_deployment": DEPLOYED} if dialect == "classic, deployment" else {}
        with azure_client(server, version="2025-04-01-preview", **options) as azure:
            yield azure
    else:
        with client(server._replace(base_url=server.root + dialect)) as plain:
            yield plain


DIALECTS = ("classic", "classic, deployment", "/openai/v1", "/api/projects/acme/openai/v1")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_responses_do_all_that_they_do_at_openai(server: Running, dialect: str) -> None:
    with opened(server, dialect) as api:
        asked: dict[str, Any] = {
            "model": DEPLOYED, "input": "Who lives there?", "max_output_tokens": 4,
            "temperature": 0,
        }  # fmt: skip
        first = [event.model_dump() for event in api.responses.create(**asked, stream=True)]
        made = first[-1]["response"]
        again = api.responses.retrieve(made["id"], stream=True)
        assert [event.model_dump() for event in again] == first
        rest = api.responses.retrieve(made["id"], stream=True, starting_after=2)
        assert [event.model_dump() for event in rest] == first[3:]
        assert made["model"] == DEPLOYED
        counted = api.responses.input_tokens.count(model=DEPLOYED, input="Who lives there?")
        assert counted.input_tokens == made["usage"]["input_tokens"]
        window = api.responses.compact(model=DEPLOYED, input=TALK)
        assert [item.type for item in window.output] == ["message", "compaction"]
        items: Any = [item.to_dict(warnings=False) for item in window.output]
        asked["input"] = [*items, {"role": "user", "content": "Who?"}]
        assert api.responses.create(**asked, previous_response_id=made["id"]).output
        api.responses.delete(made["id"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_has_no_effect_is_told_there_too(server: Running, dialect: str) -> None:
    with opened(server, dialect) as api:
        answer = api.responses.with_raw_response.create(
            model=DEPLOYED,
            input="a",
            max_output_tokens=2,
            reasoning={"effort": "low"},
            text={"verbosity": "low"},
            truncation="auto",
            include=["reasoning.encrypted_content"],
        )
        told = answer.headers["x-tunewise-warning"]
        for part in ("text.verbosity", "truncation", "reasoning.encrypted_content", "effort"):
            assert part in told
        chat = api.chat.completions.with_raw_response.create(
            model=DEPLOYED,
            messages=[{"role": "user", "content": "a"}],
            max_completion_tokens=2,
            reasoning_effort="low",
        )
        assert "effort" in chat.headers["x-tunewise-warning"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_name_that_is_not_there(server: Running, dialect: str) -> None:
    classic = dialect.startswith("classic")
    with opened(server, dialect) as api:
        for ask in (api.responses.create, api.responses.input_tokens.count, api.responses.compact):
            with pytest.raises(openai.NotFoundError) as wrong:
                ask(model="gpt-9", input="a")
            assert wrong.value.code == ("DeploymentNotFound" if classic else "model_not_found")
        with pytest.raises(openai.NotFoundError, match="not found"):
            api.responses.retrieve("resp_x")


def test_the_version_is_asked_for_where_azure_asks(server: Running) -> None:
    for path in ("/input_tokens", "/compact", ""):
        without = call(server, "POST", f"/openai/responses{path}", json={"model": MODEL})
        envelope(without, 404)
