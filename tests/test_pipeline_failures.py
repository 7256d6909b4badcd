"""Why requests failed stands in the document, on the page and in the terminal, with what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import tunewise as tw
from cli_support import jsonl, tunewise
from tunewise.pipeline.causes import causes, grouped


@dataclass
class _Answer:
    error: str | None = None
    advice: str | None = None


def test_causes_that_differ_in_numbers_are_one_and_the_largest_is_told() -> None:
    answers = [
        _Answer(),
        _Answer("prompt: the prompt has 2,060 tokens, and the context is 2,048", "Shorten it."),
        _Answer("the server said no"),
        _Answer("prompt: the prompt has 12,300 tokens, and the context is 2,048", "Shorten it."),
        _Answer("prompt: the prompt has 9,999 tokens, and the context is 2,048", "Shorten it."),
    ]
    assert grouped(answers) == [[3, 4, 1], [2]]
    found = causes("tuned", "test", list("abcde"), answers, {"b": "rows.jsonl:2"})
    assert [(c.count, c.of, c.advice) for c in found] == [(3, 5, "Shorten it."), (1, 5, None)]
    assert "12,300 tokens" in found[0].cause
    assert found[0].rows == ["rows.jsonl:2", "d", "e"]


@pytest.fixture
def half_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose tuned candidate has no answer to the last 30 of 80 rows."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "input": f"question {i}", "output": str(i % 3)} for i in range(80)]
    jsonl(tmp_path / "test.jsonl", rows)
    jsonl(tmp_path / "a.jsonl", [{"id": r["id"], "answer": r["output"]} for r in rows[:50]])
    jsonl(tmp_path / "b.jsonl", [{"id": r["id"], "answer": "1"} for r in rows])
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: half\nmetric: accuracy\ndata: {test: test.jsonl}\ncandidates:\n"
        "  - {name: tuned, kind: recorded, answers: a.jsonl, fine_tuned: true}\n"
        "  - {name: prompted, kind: recorded, answers: b.jsonl}\n"
    )
    return path


def test_failures_are_told_wherever_the_verdict_is(half_recorded: Path) -> None:
    run = tunewise("run", half_recorded, "-q", cwd=half_recorded.parent)
    document = tunewise("report", half_recorded, "--json", cwd=half_recorded.parent).json
    (cause,) = document["failures"]
    assert (cause["candidate"], cause["count"], cause["of"]) == ("tuned", 30, 80)
    assert cause["rows"][0].endswith("test.jsonl:51")
    assert cause["advice"] in document["next_steps"]
    told = " ".join(run.out.split())
    page = next(half_recorded.parent.rglob("report.html")).read_text("utf-8")
    for text in (told, page):
        assert "tuned on test: 30 of 80 requests failed" in text
        assert "no answer was recorded for this row" in text
    assert "Failed requests" in told
    # Verdicts that were written before causes were kept are read still.
    old = {k: v for k, v in document.items() if k != "failures"}
    (half_recorded.parent / "old.json").write_text(json.dumps(old))
    assert tw.load_verdict(half_recorded.parent / "old.json").failures == []
