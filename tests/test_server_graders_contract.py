"""Graders made from OpenAI's own description: no 5xx, answers and errors in its shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from contract_support import load, tried
from server_support import Running

OPERATIONS = ("/fine_tuning/alpha/graders/run", "/fine_tuning/alpha/graders/validate")
CASES = 30


def _plain(body: Any) -> Any:
    """The body with no fields but the document's, so that some are answered."""
    if not isinstance(body, dict) or not isinstance(body.get("grader"), dict):
        return body
    kept = {k: v for k, v in body.items() if k in ("grader", "item", "model_sample")}
    return {**kept, "grader": {**kept["grader"], "name": "n"}}


def _possible(case: Any, draw: Any) -> None:
    if draw(st.booleans()):
        case.body = _plain(case.body)


def test_generated_graders_keep_the_contract(shared: Path, server: Running) -> None:
    document = load(shared)
    for operation in OPERATIONS:
        seen = tried(document[operation]["POST"], server, CASES, _possible)
        assert seen[200] >= 2, f"too few were answered to prove anything: {seen}"
