"""Requests made from OpenAI's own description: no 5xx, answers and errors in its shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from contract_support import load, tried
from server_support import Running

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
def document(shared: Path) -> Any:
    return load(shared)


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


def _small(case: Any, draw: Any) -> None:
    case.body = _possible(case.body, plain=draw(st.booleans()))


@pytest.mark.parametrize(("path", "method"), WRITING)
def test_what_is_written_keeps_the_contract(
    document: Any, server: Running, path: str, method: str
) -> None:
    seen = tried(document[path][method], server, CASES, _small)
    assert seen[200] >= 2, f"too few were answered to prove anything: {seen}"


@pytest.mark.parametrize(("path", "method"), OTHERS)
def test_what_is_read_keeps_the_contract(
    document: Any, server: Running, path: str, method: str
) -> None:
    assert sum(tried(document[path][method], server, 5, _small).values()) >= 3
