"""Candidates without a language model as files that answer by themselves, with Python alone."""

from __future__ import annotations

import json
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class AnswersAlone(Protocol):
    """A fitted candidate that can be written as files which need neither it nor any package."""

    def files(self) -> dict[str, str] | None:
        """Their names with their texts, ``ask.py`` among them; None where it cannot be done."""
        ...


ANSWER = '''\
"""The one answer that is given whatever is asked: python ask.py "a question"."""

from pathlib import Path

print((Path(__file__).parent / "answer.txt").read_text("utf-8"))
'''

LABELS = '''\
"""A plain classifier, with Python alone: python ask.py "a text".

TF-IDF of words and of characters within words as scikit-learn counts them (sublinear counts,
each part of unit length), then logistic regression; all its numbers are in classifier.json.
"""

import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

MODEL = json.loads((Path(__file__).parent / "classifier.json").read_text("utf-8"))


def words(text):
    found = re.findall(r"(?u)\\\\b\\\\w+\\\\b", text)
    return found + [f"{one} {next_}" for one, next_ in zip(found, found[1:])]


def characters(text):
    for word in re.sub(r"\\\\s\\\\s+", " ", text).split():
        padded = f" {word} "
        for n in range(3, 6):
            yield padded[:n]
            for start in range(1, len(padded) - n + 1):
                yield padded[start : start + n]
            if len(padded) <= n:  # a word as short as this is counted once
                break


def scores(text):
    """One number a class, or one for the second of two."""
    found = list(MODEL["intercept"])
    for part in MODEL["parts"]:
        grams = (words if part["kind"] == "word" else characters)(text.lower())
        known = {g: n for g, n in Counter(grams).items() if g in part["grams"]}
        values = {g: (1 + math.log(n)) * part["grams"][g][0] for g, n in known.items()}
        length = math.sqrt(sum(v * v for v in values.values())) or 1.0
        for gram, value in values.items():
            for place, weight in enumerate(part["grams"][gram][1]):
                found[place] += value / length * weight
    return found


def answer(text):
    found, labels = scores(text), MODEL["labels"]
    lists = MODEL["lists"]
    if lists is None:
        if len(found) == 1:
            return labels[found[0] > 0]
        return labels[max(range(len(found)), key=found.__getitem__)]
    probable = [1 / (1 + math.exp(-min(700, max(-700, x)))) for x in found]
    order = sorted(range(len(labels)), key=lambda at: -probable[at])
    given = [labels[at] for at in order if probable[at] >= lists["threshold"]]
    if not given and lists["never_empty"]:
        given = [labels[order[0]]]
    if lists["in_order"]:
        given.sort()
    return json.dumps(given, ensure_ascii=False, separators=tuple(lists["separators"]))


if __name__ == "__main__":
    print(answer(sys.argv[1]))
'''.replace("\\\\", "\\")


def constant_files(answer: str) -> dict[str, str]:
    """The files of a constant answer."""
    return {"answer.txt": answer, "ask.py": ANSWER}


def classifier_files(
    parts: Any,
    labels: list[str],
    weights: Any,
    intercept: Any,
    lists: dict[str, Any] | None = None,
) -> dict[str, str]:
    """The files of a linear model over TF-IDF.

    Args:
        parts: fitted vectorizers of scikit-learn, in the order of the columns.
        labels: the classes. weights: an array of classes (or 1, for two) by columns.
        lists: how several labels are given: ``threshold``, ``never_empty``, ``in_order``,
            ``separators``; None where one label is.
    """
    described, start = [], 0
    for part in parts:
        names = part.get_feature_names_out()
        grams = {
            str(name): [_short(part.idf_[at]), [_short(w) for w in weights[:, start + at]]]
            for at, name in enumerate(names)
        }
        start += len(names)
        described.append({"kind": "word" if part.analyzer == "word" else "char", "grams": grams})
    model = {
        "labels": labels,
        "intercept": [_short(x) for x in intercept],
        "lists": lists,
        "parts": described,
    }
    return {
        "classifier.json": json.dumps(model, ensure_ascii=False, separators=(",", ":")),
        "ask.py": LABELS,
    }


def _short(value: Any) -> float:
    """Seven digits, which single precision has."""
    return float(f"{float(value):.7g}")
