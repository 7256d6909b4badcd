"""Zero-shot: instructions and the row, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tunewise.candidates.answers import AnswerShape, shape_of
from tunewise.candidates.asking import AskedFitted, ask, fits
from tunewise.candidates.choosing import DevSearch, Effort
from tunewise.candidates.prompting import Limits, Prompting
from tunewise.data.chat import Example, Progress, Request
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer


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


@dataclass(frozen=True)
class ZeroShot:
    """Of the study's prompts the best on dev, and that one with a note on the answer's form."""

    name: str
    engine: Engine
    scorer: Scorer
    limits: Limits
    prompts: Sequence[str] = ()
    labels: Sequence[str] | None = None
    seed: int = 0
    effort: Effort = "standard"
    kind: str = "zero_shot"

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        given = given_wordings(train, self.prompts, self.limits)
        search: DevSearch[Wording] = DevSearch(
            partial(ask, self.engine),
            self.scorer,
            dev,
            effort=self.effort,
            seed=self.seed,
            expected=len(given) + 1,
            progress=progress,
        )
        best = search.try_all(given)
        notes: list[str] = []
        if (better := improved(best, shape_of(train, self.labels))) is not None:
            sample = (list(dev) or list(train))[:1]
            if all(fits(self.engine, better.request(row)) for row in sample):
                search.try_all([better])
            else:
                notes.append("the note on the answer's form does not fit the model's context")
        choice = search.settle()
        chosen = {**choice.as_dict(), "notes": notes}
        return AskedFitted(
            self.engine, choice.option.request, lambda: chosen, choice.dev_completions
        )
