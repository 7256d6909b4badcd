"""Zero-shot: instructions and the row, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tunewise.candidates.answers import shape_of
from tunewise.candidates.asking import AskedFitted, fits
from tunewise.candidates.base import Traits
from tunewise.candidates.context import BuildContext
from tunewise.candidates.offers import Given, decide
from tunewise.candidates.prompted import Prompted
from tunewise.candidates.wordings import Wording, improved
from tunewise.data.chat import Example, Progress
from tunewise.study.schema import CandidateSpec


@dataclass(frozen=True)
class ZeroShot(Prompted):
    """Of the study's prompts the best on dev, and that one with a note on the answer's form."""

    kind: str = "zero_shot"
    traits: ClassVar[Traits] = Traits(
        title="zero-shot prompting", plain=True, dev_rounds=2, complexity=20
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> ZeroShot:
        return cls(engine=context.engine_of(spec), **context.asking(spec), **context.choosing())

    @classmethod
    def offer(cls, given: Given) -> tuple[bool, str]:
        return decide("instructions alone are the cheapest baseline", given.model)

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        given = self.given(train)
        search = self.search(Wording, dev, len(given) + 1, progress)
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
