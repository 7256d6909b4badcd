"""Slices and further metrics: beside what decides, and what gets worse beside the headline."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewise.errors import StudyError
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import report_study, run_study
from tunewise.report.document import Verdict
from tunewise.report.html import render_html
from tunewise.report.terminal import verdict_text
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

TOPICS = ("tax", "travel", "wages")


class Bench:
    """Recorded answers to rows with a topic: the tuned model is better on two, worse on wages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "ws")
        draw = random.Random(0)
        rows, tuned, plain = [], [], []
        for i in range(300):
            topic = TOPICS[i % 3]
            words = draw.sample(("red", "blue", "green", "grey", "pink"), 3)
            wanted = " ".join(words)
            row = {"id": f"r{i}", "input": f"Question {i}?", "output": wanted, "topic": topic}
            rows.append(row | {"tags": [topic, "all"], "n": float(i % 2), "rare": f"v{i // 4}"})
            right = draw.random() < (0.2 if topic == "wages" else 0.95)
            # Where it is right it says more than was asked: exact match does not see the rest.
            tuned.append({"id": f"r{i}", "answer": wanted if right else "purple"})
            half = f"{words[0]} {words[1]} white"
            plain.append({"id": f"r{i}", "answer": wanted if draw.random() < 0.5 else half})
        for name, lines in (("test", rows), ("tuned", tuned), ("plain", plain)):
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        self.study: dict[str, Any] = {
            "name": "s",
            "metric": "exact_match",
            "data": {"test": "test.jsonl"},
            "candidates": [
                {"name": "plain", "kind": "recorded", "answers": "plain.jsonl"},
                {
                    "name": "tuned",
                    "kind": "recorded",
                    "answers": "tuned.jsonl",
                    "fine_tuned": True,
                },
            ],
        }

    def load(self, **changes: Any) -> Any:
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(self.study | changes))
        return load_study(path)

    def run(self, **changes: Any) -> Verdict:
        return run_study(self.load(**changes), self.workspace, SilentReporter()).verdict


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_slice_that_gets_worse_stands_beside_the_headline(bench: Bench) -> None:
    verdict = bench.run(slices="topic")
    assert verdict.primary.gain is not None and verdict.primary.gain > 5
    rows = {row.value: row for row in verdict.breakdown}
    assert list(rows) == ["tax", "travel", "wages"]
    assert all(
        row.kind == "slice" and row.name == "topic" and row.n == 100 for row in rows.values()
    )
    assert [rows[t].worse for t in TOPICS] == [False, False, True]
    assert sum(row.gain for row in rows.values()) / 3 == pytest.approx(verdict.primary.gain)
    for row in rows.values():
        assert row.interval is not None and row.interval[0] < row.gain < row.interval[1]
        assert row.p_adjusted is not None and row.p_adjusted < 0.01
    assert len(verdict.cautions) == 1 and "where topic = wages (100 rows" in verdict.cautions[0]
    text, page = verdict_text(verdict), render_html(verdict)
    assert "topic = wages" in text and "exploratory" in text
    assert "Slices and further metrics" in page and "topic = wages" in page


def test_a_metric_that_gets_worse_stands_beside_the_headline(bench: Bench) -> None:
    """Right more often, and of no use at all where it is wrong."""
    verdict = bench.run(also=["token_f1", "accuracy"])
    rows = {row.name: row for row in verdict.breakdown}
    assert list(rows) == ["token_f1", "accuracy"] and rows["token_f1"].kind == "metric"
    assert rows["accuracy"].gain > 5
    assert rows["token_f1"].worse and rows["token_f1"].gain < 0
    assert rows["token_f1"].without > rows["accuracy"].without + 10, "partial credit is given"
    assert any("by token_f1 (300 rows" in text for text in verdict.cautions)


def test_p_values_are_adjusted_for_their_number(bench: Bench) -> None:
    one = bench.run(slices=["topic"]).breakdown
    more = bench.run(slices=["topic", "n", "tags"], also="token_f1").breakdown
    assert [row.name for row in more] == ["topic"] * 3 + ["n"] * 2 + ["tags"] * 4 + ["token_f1"]
    assert [row.value for row in more[3:5]] == ["0", "1"] and more[5].value == "all"
    before = {row.value: row.p_adjusted for row in one}
    after = {row.value: row.p_adjusted for row in more if row.name == "topic"}
    assert all((after[t] or 0) != (before[t] or 0) for t in TOPICS)
    assert all((row.p_adjusted or 0) <= 1 for row in more)


def test_small_slices_are_counted_not_compared(bench: Bench) -> None:
    verdict = bench.run(slices="rare")
    assert verdict.breakdown == []
    assert any("rare: 75 values with fewer than 10 rows" in text for text in verdict.warnings)


def test_they_change_the_document_alone(bench: Bench) -> None:
    first = bench.run()
    ledger = (bench.workspace.root / "test-ledger.jsonl").read_bytes()
    changed = {"slices": ["topic"], "also": ["token_f1"]}
    reported = report_study(bench.load(**changed), bench.workspace).verdict
    assert len(reported.breakdown) == 4 and reported.test.opened == 1
    again = bench.run(**changed)
    assert again.breakdown == reported.breakdown and again.test.opened == 1
    assert again.primary == first.primary and again.because == first.because
    assert (bench.workspace.root / "test-ledger.jsonl").read_bytes() == ledger


def test_what_cannot_be_done_is_told_before_anything_is_asked(bench: Bench) -> None:
    with pytest.raises(StudyError, match="no test row has the column 'topik'") as caught:
        bench.run(slices=["topic", "topik"])
    assert "topic" in str(caught.value.hint) and "study.yaml" in str(caught.value.where)
    with pytest.raises(StudyError, match="also"):
        bench.run(also=["exact_mach"])
    judge = {"name": "judge", "options": {"model": "openai:m"}}
    with pytest.raises(StudyError, match="asks a model"):
        bench.run(also=[judge])
    with pytest.raises(StudyError, match="no option"):
        bench.run(also=[{"name": "token_f1", "options": {"nonsense": 1}}])


def test_scores_alone_have_no_answers_to_score_again(bench: Bench) -> None:
    for name in ("tuned", "plain"):
        lines = [json.dumps({"id": f"r{i}", "score": i % 2}) for i in range(300)]
        (bench.folder / f"{name}.jsonl").write_text("\n".join(lines))
    verdict = bench.run(slices="topic", also="token_f1", metric="recorded")
    assert [row.name for row in verdict.breakdown] == ["topic"] * 3
    assert any("there are no answers to score" in text for text in verdict.warnings)
