"""What the candidates share that ask an untuned model, and those that search documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TypeVar

from tunewise.candidates.answers import AnswerShape
from tunewise.candidates.asking import ask
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.choosing import DevSearch, Effort, Option
from tunewise.candidates.passages import HasText
from tunewise.candidates.prompting import Limits
from tunewise.candidates.retrieval import PASSAGE_WORDS, Retrieval
from tunewise.candidates.wordings import Wording, given_wordings, improved
from tunewise.data.chat import Example, Progress
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer

PASSAGES = (1, 3, 5)
"""Numbers of passages to choose from, where the study names none."""

OptionT = TypeVar("OptionT", bound=Option)


@dataclass(frozen=True)
class Prompted:
    """A model, how it is asked, and what decides between settings.

    Attributes:
        name: how the report calls the candidate.
        engine: the model.
        scorer: the study's metric.
        limits: of every answer.
        prompts: the instructions to try; empty for the rows' own system messages.
        labels: the labels, where the study knows them; else they come from the training answers.
        seed: of every draw.
        effort: how many dev rows a first look takes.
    """

    name: str
    engine: Engine
    scorer: Scorer
    limits: Limits
    _: KW_ONLY
    prompts: Sequence[str] = ()
    labels: Sequence[str] | None = None
    seed: int = 0
    effort: Effort = "standard"

    def given(self, train: Sequence[Example]) -> list[Wording]:
        """The study's prompts as they stand."""
        return given_wordings(train, self.prompts, self.limits)

    def wordings(self, train: Sequence[Example], shape: AnswerShape) -> list[Wording]:
        """The study's prompts, then the first with a note on the answer's form if there is one."""
        given = self.given(train)
        better = improved(given[0], shape)
        return given if better is None else [*given, better]

    def search(
        self, kind: type[OptionT], dev: Sequence[Example], expected: int, progress: Progress | None
    ) -> DevSearch[OptionT]:
        """A search on ``dev`` among ``expected`` settings of one kind."""
        return DevSearch(
            partial(ask, self.engine),
            self.scorer,
            dev,
            effort=self.effort,
            seed=self.seed,
            expected=expected,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class Searching:
    """What is searched, and how many passages may stand in a prompt.

    Raises NotOfferedError where there are no documents.

    Attributes:
        name: how the report calls the candidate.
        documents: what is cut into passages.
        k: numbers of passages to choose from.
        passage_words: length of a passage.
        dense: an encoder's name, to search by meaning too.
    """

    name: str
    documents: Sequence[HasText]
    k: Sequence[int] | None = None
    passage_words: int = PASSAGE_WORDS
    dense: str | None = None

    def __post_init__(self) -> None:
        if not self.documents:
            raise NotOfferedError(
                f"{self.name}: there are no documents to search",
                hint="Give a folder or file as `data.documents`.",
            )

    def retrieval(self) -> Retrieval:
        """The documents, cut and indexed."""
        return Retrieval.over(self.documents, passage_words=self.passage_words, dense=self.dense)

    def numbers(self, retrieval: Retrieval) -> list[int]:
        """Numbers of passages to choose from, fewest first; none above what there is."""
        return sorted({min(k, len(retrieval)) for k in self.k or PASSAGES})
