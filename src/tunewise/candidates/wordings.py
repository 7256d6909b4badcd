"""The instructions that candidates try: the study's own, and those with a note on the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewise.candidates.answers import AnswerShape
from tunewise.candidates.phrasings import Labels, Note, Phrasing, nearest_note
from tunewise.candidates.prompting import Limits, Prompting
from tunewise.data.chat import Example, Request


@dataclass(frozen=True)
class Wording:
    """One way to put the instructions.

    Attributes:
        prompting: how it asks.
        settings: what it is, for the table of what was tried.
        note: what is said about the answer's form to each row, where that is not alike for all.
    """

    prompting: Prompting
    settings: Mapping[str, Any]
    note: Note | None = None

    def of(self, example: Example) -> Prompting:
        """How one row is asked."""
        if self.note is None:
            return self.prompting
        return self.prompting.wording(
            instructions=self.prompting.instructions, note=self.note(example)
        )

    def request(self, example: Example) -> Request:
        return self.of(example).request(example)

    def free(self) -> Wording:
        """The same without a form that the answer is held to."""
        limits = replace(self.prompting.limits, form=None)
        return replace(
            self,
            prompting=replace(self.prompting, limits=limits),
            settings={**self.settings, "held_to": None},
        )


def given_wordings(
    train: Sequence[Example], prompts: Sequence[str], limits: Limits, held_to: str | None = None
) -> list[Wording]:
    """The study's prompts as they stand; the rows' own system messages where it has none.

    Args:
        held_to: what ``limits.form`` is called.
    """
    base = Prompting.from_rows(train, limits)
    texts: Sequence[str | None] = prompts or [None]
    form = {} if held_to is None else {"held_to": held_to}
    return [
        Wording(
            base.wording(instructions=text, note=None),
            {"prompt": text, "wording": "as given" if text is not None else "the rows' own"} | form,
        )
        for text in texts
    ]


def improved(wording: Wording, shape: AnswerShape, train: Sequence[Example] = ()) -> Wording | None:
    """The same with a note on the answer's form, made by program from the training answers.

    Args:
        train: by which the nearest of many labels are told; empty names none of them.
    """
    if shape.note is None:
        return None
    prompting = wording.prompting
    settings = {**wording.settings, "wording": "improved by program", "note": shape.note}
    labels = Labels(shape.labels, train)
    if shape.kind == "labels" and not labels.all_named and train:
        settings |= {"note": "Answer with one of the nearest labels"}
        return Wording(prompting, settings, nearest_note(labels))
    return Wording(
        prompting.wording(instructions=prompting.instructions, note=shape.note), settings
    )


def phrased(wording: Wording, phrasing: Phrasing) -> Wording:
    """The same instructions with another phrasing of what is wanted."""
    prompting = wording.prompting
    parts = (phrasing.lead, prompting.instructions)
    instructions = "\n\n".join(part for part in parts if part) or None
    return Wording(
        prompting.wording(instructions=instructions, note=None),
        {**wording.settings, "wording": phrasing.name},
        phrasing.note,
    )
