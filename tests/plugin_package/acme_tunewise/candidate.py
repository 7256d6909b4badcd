"""A candidate that answers with one of the question's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tunewise.candidates.base import Traits
from tunewise.data.chat import Completion, Example


@dataclass
class NthWord:
    """The word at ``place``, counted from 0; negative numbers count from the end."""

    name: str
    place: int = -1
    kind: str = "nth_word"
    dev_completions: list[Completion] | None = None

    traits: ClassVar[Traits] = Traits(
        title="a word of the question", needs_model=False, free=True, options=("place",)
    )

    @classmethod
    def from_study(cls, spec: Any, context: Any) -> NthWord:
        return cls(spec.name, **spec.options)

    def fit(self, train: Any, dev: Sequence[Example], progress: Any = None) -> NthWord:
        self.dev_completions = self.answer(dev) if dev else None
        return self

    def answer(self, examples: Sequence[Example], progress: Any = None) -> list[Completion]:
        return [Completion(text=e.user_text.split()[self.place].strip(".")) for e in examples]

    def request(self, example: Example) -> None:
        return None

    def chosen(self) -> dict[str, Any]:
        return {"place": self.place}
