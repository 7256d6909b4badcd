"""What the candidates share that ask an untuned model, and those that search documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import TypeVar

from tunewise.candidates.answers import AnswerShape
from tunewise.candidates.asking import ask
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.choosing import DevSearch, Effort, Option
from tunewise.candidates.held import Held, held_by
from tunewise.candidates.passages import HasText
from tunewise.candidates.phrasings import phrasings
from tunewise.candidates.prompting import Limits
from tunewise.candidates.retrieval import PASSAGE_WORDS, Retrieval
from tunewise.candidates.wordings import Wording, given_wordings, improved, phrased
from tunewise.data.chat import Example, Progress
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer
from tunewise.words import plural

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
        constrain: answers are held to the form of the training answers (``held.py``).
        phrasings: how many further phrasings of the instructions are tried.
        use_case: what it is all for, in a sentence; stands for instructions where there are none.
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
    constrain: bool = False
    phrasings: int = 0
    use_case: str = ""

    def given(self, train: Sequence[Example], dev: Sequence[Example] = ()) -> list[Wording]:
        """The study's prompts as they stand, held to the form of the answers where they can be."""
        held = self.held(train, dev)
        if held is None:
            return given_wordings(train, self.prompts, self.limits)
        limits = replace(self.limits, form=held.form)
        return given_wordings(train, self.prompts, limits, held.told)

    def held(self, train: Sequence[Example], dev: Sequence[Example] = ()) -> Held | None:
        """The form that answers are held to; None for none, or where the model cannot be."""
        if not self.constrain:
            return None
        return held_by(self.engine, self.limits, train, dev, self.labels)

    def wordings(
        self, train: Sequence[Example], shape: AnswerShape, dev: Sequence[Example] = ()
    ) -> list[Wording]:
        """The study's prompts, then the first with a note on the answer's form if there is one.

        Where a form leaves no room for thinking, the first without it follows.
        """
        given = self.given(train, dev)
        better = improved(given[0], shape, train)
        return [*given, *([] if better is None else [better]), *self.free(given[0], train, dev)]

    def free(
        self, wording: Wording, train: Sequence[Example], dev: Sequence[Example]
    ) -> list[Wording]:
        """The wording without its form, where the model may do better when it writes freely."""
        if wording.prompting.limits.form is None:
            return []
        held = self.held(train, dev)
        return [wording.free()] if held is not None and held.leaves_no_room(self.engine) else []

    def phrased(
        self,
        wording: Wording,
        shape: AnswerShape,
        train: Sequence[Example],
        dev: Sequence[Example],
        share: float = 1.0,
    ) -> list[Wording]:
        """Further phrasings of what is wanted, as many as are to be tried.

        Args:
            share: of ``phrasings``; longer prompts try fewer.
        """
        most = int(share * self.phrasings)
        found = phrasings(shape, train, dev, self.seed)[:most] if most else []
        if found and wording.prompting.instructions is None and self.use_case.strip():
            told = wording.prompting.wording(instructions=self.use_case.strip(), note=None)
            settings = {**wording.settings, "prompt": self.use_case.strip()}
            wording = replace(wording, prompting=told, settings=settings)
        return [phrased(wording, one) for one in found]

    def notes(self, train: Sequence[Example], dev: Sequence[Example], tried: int) -> list[str]:
        """What a reader should know of the form and of the search over instructions."""
        said = []
        held = self.held(train, dev)
        if held is not None:
            said.append(held.note)
        if self.phrasings:
            said.append(f"{plural(tried, 'prompt')} tried on dev (`prompt_search`)")
        return [*said, *getattr(self.engine, "notes", ())]

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
