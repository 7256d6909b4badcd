"""The classifier for answers that are lists of labels."""

from __future__ import annotations

import json
import random

import pytest

from candidates_kit import row
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.classifier import Classifier, offered
from tunewise.candidates.constant import Constant
from tunewise.candidates.offers import default_candidates
from tunewise.candidates.one_vs_rest import THRESHOLDS
from tunewise.data.chat import Completion, Example
from tunewise.data.label_lists import label_lists
from tunewise.scoring.registry import get_scorer

WORDS = {
    "billing": "invoice charge card refund paid",
    "login": "password account locked reset",
    "shipping": "parcel late courier address",
    "praise": "thanks great lovely helpful",
    "bug": "crash error broken freeze",
}
F1 = get_scorer("list_f1", {})


def tickets(n: int, seed: int, *, empty: bool = False, form: str = "plain") -> list[Example]:
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        labels = draw.sample(sorted(WORDS), draw.choice([0, 1, 2] if empty else [1, 1, 2, 3]))
        text = [word for label in labels for word in draw.choices(WORDS[label].split(), k=2)]
        text += draw.choices([*" ".join(WORDS.values()).split(), "please", "now"], k=1)
        draw.shuffle(text)
        if form == "sorted":
            labels.sort()
        separators = (",", ":") if form == "compact" else None
        rows.append(row(f"{seed}-{i}", " ".join(text), json.dumps(labels, separators=separators)))
    return rows


def score(rows: list[Example], answers: list[Completion]) -> float:
    return F1.aggregate([F1.score(e, c) for e, c in zip(rows, answers, strict=True)])


def test_it_finds_all_labels_of_a_row_and_beats_the_constant() -> None:
    train, dev, test = tickets(200, 1), tickets(80, 2), tickets(150, 3)
    fitted = Classifier("classifier", F1).fit(train, dev)
    constant = Constant("constant", F1).fit(train, dev)
    assert score(test, fitted.answer(test)) > 0.8
    assert score(test, fitted.answer(test)) > score(test, constant.answer(test)) + 0.2
    chosen = fitted.chosen()
    assert chosen["labels"] == len(WORDS)
    assert chosen["threshold"] in THRESHOLDS
    assert chosen["dev_score"] == max(t["dev_score"] for t in chosen["tried"])
    assert score(dev, fitted.dev_completions or []) == pytest.approx(chosen["dev_score"])
    assert [c.text for c in fitted.answer(dev)] == [c.text for c in fitted.dev_completions or []]
    json.dumps(chosen)


def test_answers_have_the_form_of_the_training_answers() -> None:
    unseen = [row("u", "zzz", None)]
    for form in ("plain", "sorted", "compact"):
        train = tickets(150, 1, form=form)
        answers = Classifier("c", F1).fit(train, train).answer([*tickets(60, 5), *unseen])
        lists = [json.loads(answer.text) for answer in answers]
        assert all(lists), "every training row has a label, so no answer is without one"
        separators = (",", ":") if form == "compact" else None
        assert all(
            json.dumps(one, separators=separators) == answer.text
            for one, answer in zip(lists, answers, strict=True)
        )
        assert all(one == sorted(one) for one in lists) or form != "sorted"


def test_rows_without_any_label_may_get_none() -> None:
    train = tickets(240, 1, empty=True)
    answers = (
        Classifier("c", F1)
        .fit(train, tickets(80, 2, empty=True))
        .answer([row("u", "please now", None)])
    )
    assert answers[0].text == "[]"


def test_without_dev_a_threshold_is_taken_as_given() -> None:
    fitted = Classifier("c", F1).fit(tickets(60, 1), [])
    assert fitted.chosen()["threshold"] == THRESHOLDS[0]
    assert len(fitted.answer(tickets(5, 2))) == 5


def test_it_is_offered_only_where_labels_come_back() -> None:
    assert offered(tickets(60, 1)) is True
    assert "classifier" in default_candidates(
        tickets(60, 1), has_documents=False, has_model=True, can_train=True
    )
    draw = random.Random(3)
    free = [
        row(f"r{i}", "pancakes", json.dumps(["flour", f"{draw.randrange(10**6)} g of salt"]))
        for i in range(60)
    ]
    assert label_lists(free) is None and isinstance(offered(free), str)
    with pytest.raises(NotOfferedError):
        Classifier("c", F1).fit(free, free)
    assert label_lists([row("r", "q", '[{"a": 1}, {"a": 2}]')] * 9) is None
    assert label_lists([row(f"r{i}", "q", f'["{"ab"[i % 2]}"]') for i in range(30)]) is None
