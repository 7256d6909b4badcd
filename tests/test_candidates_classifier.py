"""The classifier: refusals, choices on dev, and real data."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from candidates_kit import Exact, jsonl, row
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.classifier import Classifier, offered
from tunewise.data.chat import Example


def _mail(n: int, seed: int) -> list[Example]:
    rng = random.Random(seed)
    words = {
        "refund": "money back please return paid",
        "login": "password account sign reset locked",
        "other": "hello weather thanks office music",
    }
    rows = []
    for i in range(n):
        label = rng.choice(sorted(words))
        noise = rng.choices(" ".join(words.values()).split(), k=2)
        text = " ".join([*rng.choices(words[label].split(), k=4), *noise])
        rows.append(row(f"{seed}-{i}", text, label))
    return rows


def test_learns_chooses_and_answers() -> None:
    train, dev = _mail(300, 1), _mail(90, 2)
    progress: list[tuple[int, int]] = []
    fitted = Classifier("c", Exact()).fit(train, dev, lambda *at: progress.append(at))
    chosen = fitted.chosen()
    assert chosen["dev_score"] > 0.9
    assert chosen["c"] in {t["c"] for t in chosen["tried"]} and len(chosen["tried"]) == 3
    assert chosen["dev_score"] == max(t["dev_score"] for t in chosen["tried"])
    assert progress == [(1, 3), (2, 3), (3, 3)]
    answers = fitted.answer(dev)
    assert [a.text for a in answers] == [a.text for a in fitted.dev_completions or []]
    assert all(a.latency_s is not None and a.latency_s > 0 for a in answers)
    assert all(a.prompt_tokens is None and a.completion_tokens is None for a in answers)
    assert fitted.request(dev[0]) is None
    json.dumps(chosen)
    again = Classifier("c", Exact()).fit(train, dev)
    assert again.chosen() == chosen


def test_row_that_shares_no_word_and_empty_row_get_a_label() -> None:
    fitted = Classifier("c", Exact()).fit(_mail(60, 1), [])
    assert fitted.chosen()["dev_score"] is None and fitted.dev_completions is None
    assert len(fitted.answer([row("x", "zzz", None), row("y", "", None)])) == 2
    assert fitted.answer([]) == []


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ([row(f"r{i}", "q", f"answer {i}") for i in range(30)], "30 values"),
        ([row(f"r{i}", "q", "one") for i in range(30)], "same answer"),
        ([row(f"r{i}", "q", None) for i in range(30)], "no training row has an answer"),
        ([row(f"r{i}", " ", "ab"[i % 2]) for i in range(30)], "no training row has text"),
        ([row(f"r{i}", "q", "ab"[i % 2] * 200) for i in range(30)], "longer than a label"),
    ],
)
def test_refuses_with_the_reason(train: list[Example], reason: str) -> None:
    found = offered(train)
    assert isinstance(found, str) and reason in found
    with pytest.raises(NotOfferedError, match=reason) as error:
        Classifier("my_classifier", Exact()).fit(train, train)
    assert "my_classifier" in str(error.value)


def test_rows_without_answer_are_counted() -> None:
    train = [*_mail(60, 1), row("e1", "money", ""), row("e2", " ", "refund")]
    notes = Classifier("c", Exact()).fit(train, _mail(9, 2)).chosen()["notes"]
    assert notes == ["2 training rows without text or answer were not used"]


def _banking(shared: Path, split: str, every: int) -> list[Example]:
    values = jsonl(shared / "data" / "banking77" / f"{split}.jsonl")
    return [row(f"{split}{i}", v["input"], v["output"]) for i, v in enumerate(values)][::every]


def test_real_intents(shared: Path) -> None:
    """An eighth of banking77; all of it gives 91 %."""
    fitted = Classifier("c", Exact()).fit(
        _banking(shared, "train", 8), _banking(shared, "test", 10)
    )
    assert fitted.chosen()["labels"] == 77
    assert fitted.chosen()["dev_score"] > 0.75


def test_static_embeddings_compete(shared: Path) -> None:
    model = str(shared / "models" / "potion-base-4m-int8")
    fitted = Classifier("c", Exact(), dense=model).fit(
        _banking(shared, "train", 30), _banking(shared, "test", 12)
    )
    chosen = fitted.chosen()
    scores = {t["features"]: t["dev_score"] for t in chosen["tried"]}
    assert set(scores) == {"tf-idf", model}
    assert scores[model] > 0.5
    assert chosen["dev_score"] == max(t["dev_score"] for t in chosen["tried"])


def test_questions_are_refused(shared: Path) -> None:
    values = jsonl(shared / "data" / "xquad_en" / "qa.jsonl")
    reason = offered([row(v["id"], v["input"], v["output"]) for v in values])
    assert isinstance(reason, str)
