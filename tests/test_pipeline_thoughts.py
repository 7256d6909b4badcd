"""Thoughts before answers, in studies: no metric sees them, the report folds them, tokens count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from models_support import save_model
from tunewise.data.thoughts import UNFINISHED
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, run_study
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

TEMPLATES = Path(__file__).parent / "chat_templates"
WORDS = {"warm": ("fire", "sun", "soup", "stove"), "cold": ("ice", "snow", "frost", "sleet")}


def rows(n: int, start: int = 0) -> list[dict[str, str]]:
    made = []
    for i in range(start, start + n):
        label = ("warm", "cold")[i % 2]
        made.append({"input": f"{WORDS[label][(i // 2) % 4]} {i}", "output": label})
    return made


def write(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A model whose template writes an empty thought before every answer, trained on labels."""
    folder = tmp_path_factory.mktemp("study")
    save_model(folder / "model")
    shutil.copy(TEMPLATES / "qwen3.jinja", folder / "model" / "chat_template.jinja")
    for name, n, start in (("train", 64, 0), ("dev", 16, 100), ("test", 30, 200)):
        write(folder / f"{name}.jsonl", rows(n, start))
    study = {
        "name": "thinks",
        "model": "./model",
        "data": {name: f"{name}.jsonl" for name in ("train", "dev", "test")},
        "metric": "accuracy",
        "candidates": ["zero_shot", "fine_tuned"],
        "fine_tune": {"epochs": 8, "learning_rate": 0.01, "adapter": "full"},
        "forgetting": {"suite": None},
        "effort": "quick",
        "output": {"max_tokens": 24},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    return run_study(load_study(folder / "study.yaml"), workspace, SilentReporter())


def items(outcome: Outcome, candidate: str) -> list[dict[str, Any]]:
    path = outcome.verdict_json.parent / "items" / f"{candidate}.test.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_tuned_model_that_thinks_nothing_and_is_right_scores_100(tuned: Outcome) -> None:
    scores = {c.name: c.score for c in tuned.verdict.candidates}
    assert scores["fine_tuned"] == 100
    answers = items(tuned, "fine_tuned")
    assert {item["answer"] for item in answers} == {"warm", "cold"}
    # Its empty thought is paid for all the same.
    assert all(item["completion_tokens"] > 2 for item in answers)


def recorded(folder: Path, base: list[dict[str, object]], **study: object) -> Outcome:
    """Even or odd, told by a prompted system in ``base`` and by a tuned one that knows less."""
    test = [{"id": str(i), "input": f"Is {i} even?", "output": EVEN[i % 2]} for i in range(200)]
    tuned = [{"id": str(i), "answer": EVEN[i % 2] if i % 4 else "no"} for i in range(200)]
    for name, lines in (("test", test), ("base", base), ("tuned", tuned)):
        write(folder / f"{name}.jsonl", lines)
    text = {
        "name": "even",
        "metric": "accuracy",
        "data": {"test": "test.jsonl"},
        "candidates": [
            {"name": "prompted", "kind": "recorded", "answers": "base.jsonl"},
            {
                "name": "tuned",
                "kind": "recorded",
                "answers": "tuned.jsonl",
                "fine_tuned": True,
            },
        ],
        **study,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(text))
    workspace = Workspace(folder / "workspace")
    return run_study(load_study(folder / "study.yaml"), workspace, SilentReporter())


EVEN = ("yes", "no")
"""By the remainder. The prompted system errs in every tenth row, the tuned one in every fourth."""


def said(i: int) -> str:
    return EVEN[i % 2] if i % 10 else EVEN[1 - i % 2]


@pytest.mark.parametrize("metric", ["accuracy", "contains", "exact_match", "rouge_l"])
def test_recorded_answers_are_scored_by_what_follows_the_thought(
    tmp_path: Path, metric: str
) -> None:
    base: list[dict[str, object]] = [
        {
            "id": str(i),
            "answer": f"<think>\n{i} must be halved; yes or no?\n</think>\n\n{said(i)}",
            "prompt_tokens": 10,
            "completion_tokens": 25,
        }
        for i in range(200)
    ]
    outcome = recorded(tmp_path, base, metric=metric)
    prompted = outcome.verdict.candidates[0]
    assert prompted.score == pytest.approx(90)
    assert outcome.verdict.verdict == "DO_NOT_FINE_TUNE"
    # The thought's tokens are part of what a request costs.
    assert prompted.tokens_per_request == 35
    assert items(outcome, "prompted")[1]["answer"] == "no"
    shown = next(a for e in outcome.verdict.examples for a in e.answers if a.thoughts)
    assert "must be halved" not in shown.text
    page = outcome.report.read_text()
    folded = page.partition("must be halved")[0].rpartition("<details")[2]
    assert "Thoughts" in folded
    assert "</details>" not in folded


def test_thoughts_of_a_field_of_their_own_are_shown_too(tmp_path: Path) -> None:
    base: list[dict[str, object]] = [
        {"id": str(i), "answer": said(i), "reasoning_content": f"{i} is halved."}
        for i in range(200)
    ]
    outcome = recorded(tmp_path, base)
    assert outcome.verdict.candidates[0].score == pytest.approx(90)
    assert items(outcome, "prompted")[3]["thoughts"] == "3 is halved."


def test_an_answer_inside_an_open_thought_is_none(tmp_path: Path) -> None:
    base: list[dict[str, object]] = [
        {"id": str(i), "answer": f"<think>\nThe answer is {EVEN[i % 2]}"} for i in range(200)
    ]
    outcome = recorded(tmp_path, base, metric="contains")
    prompted = outcome.verdict.candidates[0]
    assert prompted.score == 0
    # It did not fail: nothing here is broken, the answers are just none.
    assert prompted.failures == 0
    assert outcome.verdict.verdict != "INVALID"
    first = items(outcome, "prompted")[0]
    assert first["answer"] == ""
    assert first["details"]["reason"] == UNFINISHED
    assert any("inside a thought" in warning for warning in outcome.verdict.cautions)


def test_wanted_answers_with_thoughts_want_what_follows_them(tmp_path: Path) -> None:
    from tunewise.candidates.answers import shape_of
    from tunewise.data.read import read_examples

    lines = [
        {"input": f"Is {i} even?", "output": f"<think>{i} halved</think>{EVEN[i % 2]}"}
        for i in range(12)
    ]
    write(tmp_path / "rows.jsonl", lines)
    found = list(read_examples(tmp_path / "rows.jsonl"))
    assert shape_of(found).labels == ("no", "yes")
    assert {row.answer for row in found} == set(EVEN)


def test_items_of_an_earlier_release_are_compared_without_thoughts() -> None:
    from tunewise.pipeline.evidence import load_arm
    from tunewise.pipeline.store import Item
    from tunewise.study.schema import CandidateSpec

    class Stored:
        def items(self, *_: str) -> list[Item]:
            return [
                Item(
                    id=str(i), candidate="c", split="test", score=0, answer=f"<think>{i}</think>no"
                )
                for i in range(30)
            ]

    spec = CandidateSpec(name="c", kind="zero_shot")
    arm = load_arm(Stored(), spec, "test", [str(i) for i in range(30)])  # type: ignore[arg-type]
    assert arm is not None
    alike = arm.alike()
    assert alike is not None
    assert (alike.text, alike.share) == ("no", 1.0)
