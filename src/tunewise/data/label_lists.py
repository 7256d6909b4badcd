"""Answers that are lists of labels out of a small set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tunewise.data.chat import Example
from tunewise.data.labels import LONGEST_LABEL, MOST_LABELS

_FEWEST = 3
_COVERED = 0.9
_COMPACT = (",", ":")


@dataclass(frozen=True)
class LabelLists:
    """The labels of training answers that are JSON lists of them.

    Attributes:
        labels: all that occur, sorted.
        rows: of each row its labels.
        never_empty: every row has one at least.
        in_order: every list is sorted.
        separators: how the lists are written (as for ``json.dumps``).
    """

    labels: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    never_empty: bool
    in_order: bool
    separators: tuple[str, str]

    def written(self, labels: Sequence[str]) -> str:
        """An answer with these labels, in the training answers' form."""
        listed = sorted(labels) if self.in_order else list(labels)
        return json.dumps(listed, ensure_ascii=False, separators=self.separators)


def label_lists(rows: Sequence[Example]) -> LabelLists | None:
    """The labels of the rows' answers; None where these are not lists of a small set of labels.

    A set is small if nine in ten of the entries are labels of at least three rows each. Lists
    of one entry each are labels in brackets: the plain classifier does that.
    """
    texts = [text for row in rows if (text := row.answer.strip())]
    lists = [found for text in texts if (found := _labels(text)) is not None]
    if not lists or len(lists) < len(texts) or all(len(one) == 1 for one in lists):
        return None
    counts = Counter(label for one in lists for label in dict.fromkeys(one))
    if not 2 <= len(counts) <= MOST_LABELS or max(map(len, counts)) > LONGEST_LABEL:
        return None
    covered = sum(count for count in counts.values() if count >= _FEWEST)
    if covered < _COVERED * counts.total():
        return None
    written = list(zip(lists, texts, strict=True))
    # A list of one is written alike with and without spaces.
    compact = all(_dumped(one) == text for one, text in written) and any(
        json.dumps(one, ensure_ascii=False) != text for one, text in written
    )
    return LabelLists(
        labels=tuple(sorted(counts)),
        rows=tuple(map(tuple, lists)),
        never_empty=all(lists),
        in_order=all(one == sorted(one) for one in lists),
        separators=_COMPACT if compact else (", ", ": "),
    )


def _dumped(labels: list[str]) -> str:
    return json.dumps(labels, ensure_ascii=False, separators=_COMPACT)


def _labels(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        return None
    return value
