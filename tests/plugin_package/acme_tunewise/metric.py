"""A metric: right where the answer has as many characters as the wanted one, more or less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tunewise.data.chat import Completion, Example
from tunewise.scoring.base import ItemScore


@dataclass
class SameLength:
    """Characters of the answer against the wanted one's."""

    slack: int = 0
    name: ClassVar[str] = "same_length"
    binary: ClassVar[bool] = True
    corpus: ClassVar[bool] = False

    def score(self, example: Example, completion: Completion) -> ItemScore:
        apart = abs(len(completion.text) - len(example.answer))
        return ItemScore(float(apart <= self.slack))

    def aggregate(self, items: Sequence[Any]) -> float:
        return sum(item.value for item in items) / len(items)
