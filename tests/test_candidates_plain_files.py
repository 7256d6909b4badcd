"""A classifier as files gives the answers that scikit-learn gives, with Python alone."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from tunewise.candidates.classifier import Classifier
from tunewise.data.chat import Example
from tunewise.scoring.registry import get_scorer

WORDS = [
    "Straße",
    "Übergröße",
    "naïve",
    "C",
    "R",
    "it's",
    "don't",
    "東京",
    "снег",
    "12,5",
    "a",
    "b",
    "café",
    "REFUND",
    "refund",
    "parcel",
]


def _texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    glue = [" ", "  ", "\t", "\n\n", ", ", "-"]
    return [
        "".join(draw.choice(WORDS) + draw.choice(glue) for _ in range(draw.randint(1, 12)))
        for _ in range(count)
    ]


def _answer(text: str, kind: str) -> str:
    has = {"refund": "refund" in text.lower(), "snow": "снег" in text, "shirt": "Übergröße" in text}
    if kind == "lists":
        return json.dumps([name for name, there in has.items() if there])
    if kind == "two":
        return "yes" if has["refund"] else "no"
    return next((name for name, there in has.items() if there), "other")


@pytest.mark.parametrize("kind", ["two", "several", "lists"])
def test_equal_to_scikit_learn(tmp_path: Path, kind: str) -> None:
    def rows(count: int, seed: int) -> list[Example]:
        return [
            Example(
                f"{seed}-{i}",
                (
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": _answer(text, kind)},
                ),
            )
            for i, text in enumerate(_texts(count, seed))
        ]

    scorer = get_scorer("list_f1" if kind == "lists" else "accuracy")
    fitted = Classifier("classifier", scorer).fit(rows(150, 1), rows(40, 2))
    files = fitted.files()
    assert files is not None
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    alone = runpy.run_path(str(tmp_path / "ask.py"))["answer"]
    asked = [*rows(300, 3), Example("x", ({"role": "user", "content": "unheard of"},))]
    wanted = [completion.text for completion in fitted.answer(asked)]
    assert len(set(wanted)) > 1
    assert [alone(row.user_text) for row in asked] == wanted
