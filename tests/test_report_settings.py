"""What was chosen of a candidate, in words."""

from __future__ import annotations

from typing import Any

import pytest

from tunewise.report.document import CandidateRow
from tunewise.report.settings import settings_of, tried_of


def _row(**chosen: Any) -> CandidateRow:
    return CandidateRow(name="c", kind="c", chosen=chosen)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (
            {"selection": "nearest", "k": 4, "prompt": "Sort it.", "wording": "as given"},
            [
                "4 solved examples in the prompt, those nearest to each question.",
                "Prompt: “Sort it.”",
            ],
        ),
        (
            {"selection": "fixed", "k": 1, "order": 0, "prompt": None, "wording": "the rows' own"},
            ["1 solved example in the prompt, the same for every question.",
             "Prompt: the rows' own."],
        ),
        (
            {"k": 1, "ranking": "bm25", "passages": 353, "passage_words": 120, "instruction": True,
             "recall": {"1": 0.9}, "retrieval_problem": False},
            [
                "The best passage of 353 (each of at most 120 words), "
                "ranked by their words (BM25).",
                "The prompt says that the answer stands in the passages.",
                "The passage that holds the answer was found in 90 % among 1.",
            ],
        ),
        (
            {"features": "tf-idf", "c": 10.0, "labels": 2, "train_rows": 80,
             "majority": {"label": "yes", "share": 0.6}},
            [
                "Logistic regression (C = 10) over TF-IDF of words and characters, 2 labels from "
                "80 rows.",
                "The commonest label, yes, stands in 60.0 % of them.",
            ],
        ),
        ({"answer": "[]", "share": 0.64},
         ["Always answers “[]”, right in 64.0 % of the training rows."]),
        ({"of_a_plugin": [1, 2]}, ["of a plugin: [1, 2]."]),
    ],
)  # fmt: skip
def test_each_kind_is_told_in_sentences(chosen: dict[str, Any], said: list[str]) -> None:
    assert settings_of(_row(**chosen)) == said


def test_notes_and_answers_that_were_needed() -> None:
    row = _row(
        held_to="a JSON list",
        dev_evaluations=1,
        notes=["answers are held to the form of the training answers, a JSON list"],
    )
    assert settings_of(row) == [
        "1 answer on dev led to this choice.",
        "Answers are held to the form of the training answers, a JSON list.",
    ]


def test_what_was_tried_is_told_by_what_differs() -> None:
    tried = [
        {"k": 4, "prompt": "Sort it.", "dev_score": 0.5, "dev_rows": 20},
        {"k": 8, "prompt": "Sort it.", "dev_score": 0.75, "dev_rows": 40},
    ]
    assert tried_of(_row(tried=tried)) == [("k 4", "50.0", 20), ("k 8", "75.0", 40)]
    assert tried_of(_row()) == []
