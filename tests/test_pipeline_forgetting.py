"""Suites that measure forgetting: how far they are asked, what is kept for the next study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.candidates_kit import Exact

from tunewise.data.chat import Completion, Progress, Request, canonical_hash
from tunewise.models.answer_cache import CachedEngine
from tunewise.pipeline.forgetting import forgetting_part, measure, suite_of
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.store import Store
from tunewise.report.words import rows_asked
from tunewise.study.schema import Study
from tunewise.synthetic.general_suite import items
from tunewise.verdict.forgetting import measure_forgetting
from tunewise.workspace import Workspace

RIGHT = {item["messages"][0]["content"]: item["answer"] for item in items()}


@dataclass
class Skilled:
    """Right in a share of the suite's items, which ones by hash."""

    revision: str
    right: float
    model: str = "skilled"
    context_length: int | None = None
    asked: list[str] = field(default_factory=list)

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Completion:
        question = str(request.messages[-1]["content"])
        self.asked.append(question)
        known = int(canonical_hash([question])[:6], 16) / 16**6 < self.right
        return Completion(text=RIGHT[question] if known else "no", request_key=request.key)

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        return 1

    def close(self) -> None:
        pass


def study(**more: Any) -> Study:
    return Study.model_validate(
        {"name": "s", "data": {"examples": "rows.jsonl"}, "metric": "exact_match", **more}
    )


def store(path: Path, name: str) -> Store:
    return Store(Workspace(path).study(name, "0" * 64))


@pytest.mark.parametrize(
    ("tuned", "asked", "status", "stopped"),
    [
        (0.2, 180, "failed", "a loss beyond the margin was shown"),
        (0.8, 360, "passed", "a loss beyond the margin was excluded"),
    ],
)
def test_the_suite_is_asked_until_it_is_decided(
    tmp_path: Path, tuned: float, asked: int, status: str, stopped: str
) -> None:
    base, after = Skilled("base", 0.8), Skilled("tuned", tuned)
    kept = store(tmp_path, "one")
    result = measure(study(), base, after, kept, Exact(), SilentReporter())
    assert len(base.asked) == len(after.asked) <= asked
    assert base.asked == after.asked != list(RIGHT)[: len(base.asked)]  # in an order of their own
    found = [kept.items(f"general.{side}", "forgetting") for side in ("base", "tuned")]
    suite = suite_of(*found, result["looks"]["general"])
    part = forgetting_part(study(), measure_forgetting({"general": suite}))
    assert (part.status, part.suites[0].stopped) == (status, stopped)
    assert (part.suites[0].n, part.suites[0].of) == (len(base.asked), 720)
    assert rows_asked(part.suites[0]) == f"{len(base.asked)} of 720 rows, until {stopped}"


def test_the_base_is_not_asked_again_by_the_next_study(tmp_path: Path) -> None:
    def run(name: str, tuned: Skilled, **more: Any) -> int:
        base = Skilled("base", 0.8)
        with_kept = CachedEngine(base, tmp_path / "answers", by_content=True)
        measure(
            study(name=name, **more), with_kept, tuned, store(tmp_path, name), Exact(),
            SilentReporter(),
        )  # fmt: skip
        with_kept.close()
        return len(base.asked)

    assert run("first", Skilled("tuned", 0.8)) > 0
    assert run("second", Skilled("tuned-2", 0.2), seed=7, metric="token_f1") == 0


def test_all_rows_that_must_pass_are_asked(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "messages": [{"role": "user", "content": q}, _said(a)]}
        for i, (q, a) in enumerate(list(RIGHT.items())[:150])
    ]
    must = tmp_path / "must.jsonl"
    must.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    base, tuned = Skilled("base", 1.0), Skilled("tuned", 0.3)
    asking = study(forgetting={"suite": None, "must_pass": str(must)})
    result = measure(asking, base, tuned, store(tmp_path, "must"), Exact(), SilentReporter())
    assert len(base.asked) == len(tuned.asked) == 150
    assert len(result["lost"]) > 80 and result["suites"] == []


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
