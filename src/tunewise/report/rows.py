"""All test rows with every candidate's answer, for the page that lets a reader browse them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewise.report.text import visible

LONGEST_TEXT = 2_000
"""Characters of one text; the whole stands in the workspace's item files."""
MOST_CHARACTERS = 6_000_000
"""Of all rows in one page, which stays readable to a browser; what is beyond is left out, told."""
MOST_CLASSES = 40
"""Of a confusion matrix."""
BINS = 20
FIRST = 10
"""Rows that stand in the page itself, for readers without JavaScript."""


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """One candidate's answer to a row.

    Attributes:
        text: without thoughts.
        points: 0..100.
        label: the class that the metric read from it; None for metrics without classes.
    """

    text: str
    points: float
    label: str | None = None


@dataclass(frozen=True, slots=True)
class TestRow:
    """One test row.

    Attributes:
        answers: by candidate; a candidate that was not asked has none.
        label: the wanted class; None for metrics without classes.
        slices: values by column, of the study's ``slices``.
    """

    __test__ = False  # no test of pytest's

    id: str
    input: str
    wanted: str
    answers: dict[str, RowAnswer]
    label: str | None = None
    slices: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TestRows:
    """The rows of the final test.

    Attributes:
        candidates: in the order of their columns, those that decide first.
        pair: the champions with and without fine-tuning, where both were tested.
        place: where all of it lies on disk.
    """

    __test__ = False  # no test of pytest's

    rows: Sequence[TestRow]
    candidates: Sequence[str]
    pair: tuple[str, str] | None
    place: str

    def in_order(self) -> list[TestRow]:
        """Rows where the tuned champion loses most first; else the lowest scores first."""

        def key(row: TestRow) -> tuple[float, float]:
            points = [row.answers[n].points if n in row.answers else 0.0 for n in self._leading()]
            return (points[0] - points[1] if len(points) > 1 else 0.0, points[0])

        return sorted(self.rows, key=key) if self.candidates else list(self.rows)

    def _leading(self) -> Sequence[str]:
        return self.pair or self.candidates[:1]


@dataclass(frozen=True, slots=True)
class ByLabel:
    """How a candidate did on one class.

    Attributes:
        rows: of which it is the wanted class.
        precision, recall, f1: 0..100; None where nothing can be said.
    """

    label: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """Wanted classes against given ones.

    Attributes:
        labels: of both sides, the commonest wanted first; the last column, "other", has answers
            that are no wanted class.
        counts: by wanted class, then by given one.
        by_label: precision, recall and F1 of each.
    """

    candidate: str
    labels: list[str]
    counts: list[list[int]]
    by_label: list[ByLabel]


def confusion(rows: TestRows, candidate: str) -> Confusion | None:
    """The confusion matrix of a candidate; None where answers are no classes, or too many."""
    pairs = [
        (row.label, row.answers[candidate].label)
        for row in rows.rows
        if row.label is not None and candidate in row.answers
    ]
    wanted = Counter(label for label, _ in pairs)
    if not 2 <= len(wanted) <= MOST_CLASSES:
        return None
    labels = [label for label, _ in wanted.most_common()]
    place = {label: at for at, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for label, given in pairs:
        counts[place[label]][len(labels) if given is None else place.get(given, len(labels))] += 1
    found = []
    for label, at in place.items():
        right, answered = counts[at][at], sum(line[at] for line in counts)
        precision = 100 * right / answered if answered else None
        recall = 100 * right / wanted[label]
        both = None if precision is None else precision + recall
        f1 = 0.0 if not both else 2 * (precision or 0.0) * recall / both
        found.append(ByLabel(label, wanted[label], precision, recall, f1))
    return Confusion(candidate, labels, counts, found)


def histogram(rows: TestRows, candidate: str) -> list[int] | None:
    """How many rows have which score, in ``BINS`` parts of 0..100; None for right or wrong."""
    points = [row.answers[candidate].points for row in rows.rows if candidate in row.answers]
    if not points or all(p in (0.0, 100.0) for p in points):
        return None
    counts = [0] * BINS
    for p in points:
        counts[min(BINS - 1, int(p * BINS / 100))] += 1
    return counts


def for_page(rows: TestRows) -> tuple[dict[str, Any], int]:
    """What the page's script reads, as JSON values; and how many rows were left out.

    Every string has gone through ``visible``. Rows are in the order of ``TestRows.in_order``.
    """
    found: list[dict[str, Any]] = []
    used = 0
    ordered = rows.in_order()
    for row in ordered:
        one = {
            "id": visible(row.id),
            "in": _cut(row.input),
            "want": _cut(row.wanted),
            "got": [
                [_cut(a.text), round(a.points, 3)] if (a := row.answers.get(name)) else None
                for name in rows.candidates
            ],
            "label": None if row.label is None else visible(row.label),
            "in_slice": [
                f"{visible(column)}: {visible(value)}"
                for column, values in row.slices.items()
                for value in values
            ],
        }
        used += len(json.dumps(one, ensure_ascii=False))
        if used > MOST_CHARACTERS:
            break
        found.append(one)
    value = {
        "candidates": [visible(name) for name in rows.candidates],
        "pair": None if rows.pair is None else [rows.candidates.index(n) for n in rows.pair],
        "rows": found,
    }
    return value, len(ordered) - len(found)


def _cut(text: str) -> str:
    text = visible(text)
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]}… ({len(text) - LONGEST_TEXT:,} more characters)"
