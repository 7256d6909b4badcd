"""A candidate that answers with the last word of the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewise.data.chat import Completion, Example


@dataclass
class LastWord:
    name: str
    kind: str = "last_word"
    dev_completions: list[Completion] | None = None

    def fit(self, train: Any, dev: Sequence[Example], progress: Any = None) -> LastWord:
        self.dev_completions = self.answer(dev)
        return self

    def answer(self, examples: Sequence[Example], progress: Any = None) -> list[Completion]:
        return [Completion(text=e.user_text.split()[-1].strip(".")) for e in examples]

    def request(self, example: Example) -> None:
        return None

    def chosen(self) -> dict[str, Any]:
        return {"word": -1}


def make_last_word(spec: Any, context: Any) -> LastWord:
    return LastWord(spec.name)
