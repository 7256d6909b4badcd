"""Which solved examples a prompt shows: drawn once for all rows, or each row's nearest."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tunewise.candidates.answers import AnswerShape
from tunewise.candidates.prompting import answer_text
from tunewise.candidates.search import TextIndex
from tunewise.data.chat import Example


class ShotPool:
    """The rows that may be shown as shots, with a guard that never shows a row its own answer.

    A shot is withheld from a row that has the same id or group, or is its near-duplicate
    (:meth:`TextIndex.near_duplicates`); so a score cannot come from an answer that stood in the
    prompt, also where dev rows were cut from the training rows.

    Attributes:
        rows: the pool; training rows with an answer that is wanted, without dev's.
    """

    def __init__(self, train: Sequence[Example], dev: Sequence[Example]) -> None:
        in_dev = {row.id for row in dev}
        self.rows = [
            row
            for row in train
            if row.id not in in_dev and row.desirable is not False and answer_text(row).strip()
        ]
        self._index = TextIndex([row.user_text for row in self.rows])
        self._places = {row.id: place for place, row in enumerate(self.rows)}
        self._dev = dev

    def allowed(self, shot: Example, row: Example) -> bool:
        """Whether ``shot`` may be shown to ``row``."""
        if shot.id == row.id or (shot.group is not None and shot.group == row.group):
            return False
        return not self._alike(shot, row)

    def _alike(self, shot: Example, row: Example) -> bool:
        return self._index.near_duplicates(self._places[shot.id], row.user_text)

    def nearest(self, row: Example, k: int) -> list[Example]:
        """The ``k`` most similar allowed rows by BM25, the most similar last."""
        wanted = k + 8
        while True:
            places = self._index.top(row.user_text, wanted)
            found = [self.rows[p] for p in places if self.allowed(self.rows[p], row)]
            if len(found) >= k or wanted >= len(self.rows):
                return found[:k][::-1]
            wanted *= 4

    def draw(self, k: int, shape: AnswerShape, seed: int) -> list[Example]:
        """``k`` rows drawn by ``seed``, the same ones first for every ``k``.

        Labels take turns, the most frequent first. Left out are the longest tenth, near-duplicates
        of rows already drawn, and rows that dev could recognise itself in.
        """
        rows = sorted(self.rows, key=lambda row: row.id)
        random.Random(seed).shuffle(rows)
        lengths = sorted(_length(row) for row in rows)
        longest = lengths[int(0.9 * (len(lengths) - 1))] if lengths else 0
        rows = [row for row in rows if _length(row) <= longest]
        dev = TextIndex([row.user_text for row in self._dev])
        groups = {row.group for row in self._dev if row.group is not None}
        drawn: list[Example] = []
        for row in _in_turns(rows, shape):
            if len(drawn) == k:
                break
            if (
                row.group not in groups
                and not any(self._alike(other, row) for other in drawn)
                and not dev.has_near_duplicate(row.user_text)
            ):
                drawn.append(row)
        return drawn


def orders_of(shots: Sequence[Example], n: int, seed: int) -> list[list[Example]]:
    """Up to ``n`` different orders of ``shots``, the given one first."""
    found = [list(shots)]
    for number in range(8 * n):
        if len(found) >= n:
            break
        order = list(shots)
        random.Random(f"{seed}/{len(shots)}/{number}").shuffle(order)
        if order not in found:
            found.append(order)
    return found


def _length(row: Example) -> int:
    return len(row.user_text) + len(row.answer)


def _in_turns(rows: Sequence[Example], shape: AnswerShape) -> list[Example]:
    if shape.kind != "labels":
        return list(rows)
    place = {label: number for number, label in enumerate(shape.labels)}
    seen: dict[str, int] = {}
    keyed = []
    for number, row in enumerate(rows):
        label = row.answer.strip()
        turn = seen.get(label, 0)
        seen[label] = turn + 1
        keyed.append((turn, place.get(label, len(place)), number))
    return [rows[number] for _, _, number in sorted(keyed)]
