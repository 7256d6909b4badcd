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
    """Of the study's prompts the best on dev, and that one with further words on what is wanted."""

    kind: str = "zero_shot"
    traits: ClassVar[Traits] = Traits(
        title="zero-shot prompting", plain=True, dev_rounds=5, complexity=20
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
        given, shape = self.given(train, dev), shape_of(train, self.labels)
        sample = (list(dev) or list(train))[:1]

        def fit_in(wording: Wording) -> bool:
            return all(fits(self.engine, wording.request(row)) for row in sample)

        search = self.search(Wording, dev, len(given) + 1 + self.phrasings, progress)
        search.race(given)
        best = search.leader
        notes: list[str] = []
        if (better := improved(best, shape, train)) is not None:
            if fit_in(better):
                search.race([better])
            else:
                notes.append("the note on the answer's form does not fit the model's context")
        search.race(w for w in self.phrased(best, shape, train, dev) if fit_in(w))
        search.race(self.free(search.leader, train, dev))
        choice = search.settle()
        notes += choice.notes + self.notes(train, dev, search.prompts)
        chosen = {**choice.as_dict(), "prompts_tried": search.prompts, "notes": notes}
        return AskedFitted(
            self.engine, choice.option.request, lambda: chosen, choice.dev_completions
        )
