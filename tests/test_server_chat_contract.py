"""Requests made from OpenAI's own description: no 5xx, answers and errors in its shapes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server_support import Running, running_server

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import response_schema_conformance  # noqa: E402

MODEL = "tunewise/tiny"
CASES = 12
"""Of each operation; a few dozen in all."""

WRITING = (("/chat/completions", "POST"), ("/completions", "POST"), ("/embeddings", "POST"))
OTHERS = (
    ("/chat/completions", "GET"),
    ("/chat/completions/{completion_id}", "GET"),
    ("/chat/completions/{completion_id}", "POST"),
    ("/chat/completions/{completion_id}", "DELETE"),
    ("/chat/completions/{completion_id}/messages", "GET"),
)
TAKEN = frozenset(
    {
        "dimensions", "echo", "encoding_format", "frequency_penalty", "input", "logit_bias",
        "logprobs", "max_completion_tokens", "max_tokens", "messages", "metadata", "model", "n",
        "presence_penalty", "prompt", "seed", "stop", "store", "stream", "temperature", "top_p",
        "user",
    }
)  # fmt: skip
"""All that is left in every other request, so that some are answered."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("contract")) as running:
        yield running


@pytest.fixture(scope="module")
def document(shared: Path) -> Any:
    path = shared / "spec" / "openai-fine-tuning.openapi.json"
    if not path.is_file():
        pytest.skip("OpenAI's description is not here")
    return schemathesis.openapi.from_path(path)


def _possible(body: Any, *, plain: bool) -> Any:
    """A generated body, kept small; a ``plain`` one has only what is taken."""
    if not isinstance(body, dict):
        return body
    body = {**body, "model": MODEL}
    for key, most in (("max_tokens", 4), ("max_completion_tokens", 4), ("n", 2), ("best_of", 2)):
        if isinstance(body.get(key), int):
            body[key] = min(body[key], most)
    if "max_completion_tokens" in body:
        body.pop("max_tokens", None)
    elif "messages" in body and "max_tokens" not in body:
        body["max_tokens"] = 4
    if plain:
        body = {key: value for key, value in body.items() if key in TAKEN}
        if "messages" in body:
            body["messages"] = [{"role": "user", "content": json.dumps(body["messages"])[:200]}]
        for key in ("input", "prompt"):
            if key in body:
                body[key] = _known(body[key])
        if isinstance(body.get("dimensions"), int):
            body["dimensions"] = min(body["dimensions"], 8)
        if body.get("metadata"):
            body["store"] = True
    return body


def _known(value: Any) -> Any:
    """Token ids that the model has, and text that is not empty."""
    if isinstance(value, list):
        return [_known(item) for item in value]
    return int(abs(value)) % 2048 if isinstance(value, int | float) else value or "a"


def _check(case: Any, running: Running) -> int:
    answer = case.call(
        base_url=running.base_url,
        headers={"Authorization": f"Bearer {running.key}"},
        timeout=300,
    )
    case.validate_response(answer, checks=[not_a_server_error])
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["message"]
    elif "text/event-stream" in answer.headers["content-type"][0]:
        events = answer.content.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        for event in events[:-2]:
            assert "error" not in json.loads(event.removeprefix("data: "))
    else:
        case.validate_response(answer, checks=[response_schema_conformance])
    return int(answer.status_code)


def _run(operation: Any, running: Running, cases: int) -> Counter[int]:
    seen: Counter[int] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), plain=st.booleans())
    def test(case: Any, plain: bool) -> None:
        case.body = _possible(case.body, plain=plain)
        seen[_check(case, running)] += 1

    test()
    return seen


@pytest.mark.parametrize(("path", "method"), WRITING)
def test_what_is_written_keeps_the_contract(
    document: Any, server: Running, path: str, method: str
) -> None:
    seen = _run(document[path][method], server, CASES)
    assert seen[200] >= 2, f"too few were answered to prove anything: {seen}"


@pytest.mark.parametrize(("path", "method"), OTHERS)
def test_what_is_read_keeps_the_contract(
    document: Any, server: Running, path: str, method: str
) -> None:
    assert sum(_run(document[path][method], server, 5).values()) >= 3
