"""The instructions that candidates try: the study's own, and those with a note on the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewise.candidates.answers import AnswerShape
from tunewise.candidates.prompting import Limits, Prompting
from tunewise.data.chat import Example, Request


@dataclass(frozen=True)
class Wording:
    """One way to put the instructions.

    Attributes:
        prompting: how it asks.
        settings: what it is, for the table of what was tried.
    """

    prompting: Prompting
    settings: Mapping[str, Any]

    def request(self, example: Example) -> Request:
        return self.prompting.request(example)


def given_wordings(
    train: Sequence[Example], prompts: Sequence[str], limits: Limits
) -> list[Wording]:
    """The study's prompts as they stand; the rows' own system messages where it has none."""
    base = Prompting.from_rows(train, limits)
    texts: Sequence[str | None] = prompts or [None]
    return [
        Wording(
            base.wording(instructions=text, note=None),
            {"prompt": text, "wording": "as given" if text is not None else "the rows' own"},
        )
        for text in texts
    ]


def improved(wording: Wording, shape: AnswerShape) -> Wording | None:
    """The same with a note on the answer's form, made by program from the training answers."""
    if shape.note is None:
        return None
    prompting = wording.prompting
    return Wording(
        prompting.wording(instructions=prompting.instructions, note=shape.note),
        {**wording.settings, "wording": "improved by program", "note": shape.note},
    )
