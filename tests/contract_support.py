"""Requests made from OpenAI's own description, and what every answer to them must be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_support import Running

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
)

Change = Callable[[Any, Callable[[Any], Any]], None]
"""Changes a case; the second argument draws from a strategy."""


def description(shared: Path) -> Path:
    """OpenAI's description of the API; the test is skipped where it is absent."""
    path = shared / "spec" / "openai-fine-tuning.openapi.json"
    if not path.is_file():
        pytest.skip("OpenAI's description is not here")
    return path


def load(shared: Path) -> Any:
    """OpenAI's description, ready to make requests from."""
    return schemathesis.openapi.from_dict(corrected(shared))


def corrected(shared: Path) -> dict[str, Any]:
    """OpenAI's description, as its own API answers.

    Two of its shapes are too narrow for its own operations: an embedding asked for as base64 is no
    string there, and a file's content is a JSON string, while its own clients read the bare bytes.
    """
    raw = json.loads(description(shared).read_text("utf-8"))
    schemas = raw["components"]["schemas"]
    embedding = schemas["Embedding"]["properties"]
    embedding["embedding"] = {"anyOf": [embedding["embedding"], {"type": "string"}]}
    downloaded = raw["paths"]["/files/{file_id}/content"]["get"]["responses"]["200"]["content"]
    for kind in ("application/jsonl", "text/csv", "application/octet-stream"):
        downloaded[kind] = {}
    return dict(raw)


def tried(operation: Any, running: Running, cases: int, change: Change) -> Counter[int]:
    """Send ``cases`` generated requests, each changed by ``change``; the answers' statuses.

    No answer may be a 5xx; one of 2xx must be what the description says (it declares no others),
    one of 4xx the envelope of errors.
    """
    seen: Counter[int] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), data=st.data())
    def test(case: Any, data: st.DataObject) -> None:
        change(case, data.draw)
        seen[_checked(case, running)] += 1

    test()
    return seen


def _checked(case: Any, running: Running) -> int:
    answer = case.call(
        base_url=running.base_url,
        headers={"Authorization": f"Bearer {running.key}"},
        timeout=300,
    )
    case.validate_response(answer, checks=[not_a_server_error])
    if answer.status_code < 400:
        case.validate_response(answer, checks=[content_type_conformance])
    kind = answer.headers["content-type"][0]
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["message"] and error["type"]
    elif "text/event-stream" in kind:
        events = answer.content.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        for event in events[:-2]:
            assert "error" not in json.loads(event.removeprefix("data: "))
    elif "application/json" in kind:
        case.validate_response(answer, checks=[response_schema_conformance])
    return int(answer.status_code)
