"""The tuned model as a candidate, alone or with retrieval. Nothing is trained here.

A tuned model is asked exactly as it was trained: `training_examples` gives the trainer the very
messages that `fit` will send.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

from tunewise.candidates.asking import AskedFitted, ask
from tunewise.candidates.base import Traits
from tunewise.candidates.choosing import DevSearch, Option
from tunewise.candidates.context import BuildContext
from tunewise.candidates.offers import Given, decide
from tunewise.candidates.passages import Passage
from tunewise.candidates.prompted import Searching
from tunewise.candidates.prompting import Limits
from tunewise.candidates.rag import PassageOption, told
from tunewise.candidates.retrieval import Retrieval, choose_ranking, recall_report
from tunewise.candidates.wordings import Wording, given_wordings
from tunewise.data.chat import Example, Progress
from tunewise.errors import TrainingError
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer
from tunewise.study.schema import CandidateSpec

_ENOUGH_RECALL = 0.95
_WITHOUT_SOURCE = 0.2


@dataclass(frozen=True)
class FineTuned:
    """The tuned model with the study's first prompt: the zero-shot form that it was trained on."""

    name: str
    engine: Engine | None
    scorer: Scorer
    limits: Limits
    _: KW_ONLY
    prompts: Sequence[str] = ()
    seed: int = 0
    kind: str = "fine_tuned"
    traits: ClassVar[Traits] = Traits(
        title="the fine-tuned model", trained=True, plain=True, complexity=60
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> FineTuned:
        return cls(engine=context.tuned_engine, **context.asking(spec))

    @classmethod
    def offer(cls, given: Given) -> tuple[bool, str]:
        why = "training rows have answers to learn from"
        return decide(why, given.trainable, given.answered)

    def training_examples(
        self, train: Sequence[Example], dev: Sequence[Example] = ()
    ) -> list[Example]:
        """The rows as a trainer should see them; ``dev`` plays no part."""
        prompting = self._wording(train).prompting
        return [prompting.training_example(row) for row in train]

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        return _asked(self, self._wording(train), dev, progress)

    def _wording(self, train: Sequence[Example]) -> Wording:
        return given_wordings(train, self.prompts[:1], self.limits)[0]


@dataclass(frozen=True, kw_only=True)
class FineTunedRag(FineTuned, Searching):
    """The tuned model with passages, in training as in use.

    The ranking and the number of passages are set before training, by recall on dev where rows
    name their documents: the fewest passages with 95 % of the best recall. Where they name none,
    the middle one of the numbers to choose from.
    """

    kind: str = "fine_tuned+rag"
    traits: ClassVar[Traits] = Traits(
        title="the fine-tuned model with retrieval", trained=True, retrieves=True, complexity=70
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> FineTunedRag:
        return cls(engine=context.tuned_engine, **context.asking(spec), **context.searching(spec))

    @classmethod
    def offer(cls, given: Given) -> tuple[bool, str]:
        why = "there are documents to search and answers to learn from"
        return decide(why, given.trainable, given.answered, given.documents)

    def training_examples(
        self, train: Sequence[Example], dev: Sequence[Example] = ()
    ) -> list[Example]:
        """The rows with the passages found for them, distractors included.

        Where a row names its document and retrieval missed it, its best passage takes the place of
        a random distractor in four rows of five; the fifth stays without, so that the model also
        learns what to do when retrieval fails (RAFT, 2403.10131).
        """
        retrieval, k = self._settled(dev)
        prompting = told(self._wording(train).prompting)
        return [
            prompting.training_example(row, passages=self._for_training(row, retrieval, k))
            for row in train
        ]

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        retrieval, k = self._settled(dev)
        option = PassageOption(_tuned(self), retrieval, self._wording(train), k)
        fitted = _asked(self, option, dev, progress)
        recall = recall_report(retrieval, dev, self.numbers(retrieval), k)
        plain = fitted.chosen()

        def chosen() -> dict[str, Any]:
            return {
                **plain,
                "passages": len(retrieval),
                "passage_words": self.passage_words,
                "dense": self.dense,
                **recall,
                "notes": option.notes(),
            }

        return AskedFitted(_tuned(self), option.request, chosen, fitted.dev_completions)

    def _settled(self, dev: Sequence[Example]) -> tuple[Retrieval, int]:
        retrieval = self.retrieval()
        ks = self.numbers(retrieval)
        if not any(row.documents for row in dev):
            return retrieval, ks[len(ks) // 2]
        retrieval, _ = choose_ranking(retrieval, dev, ks)
        recall = retrieval.recall(dev, ks)
        return retrieval, min(k for k in ks if recall[k] >= _ENOUGH_RECALL * max(recall.values()))

    def _for_training(self, row: Example, retrieval: Retrieval, k: int) -> list[Passage]:
        found = retrieval.top(row.user_text, k)
        missed = not any(passage.document in row.documents for passage in found)
        chance = random.Random(f"{self.seed}/{row.id}")
        if row.documents and missed and chance.random() >= _WITHOUT_SOURCE:
            sources = (retrieval.within(row.user_text, document) for document in row.documents)
            source = next((passage for passage in sources if passage is not None), None)
            if source is not None:
                found[chance.randrange(len(found))] = source
        return found


def _asked(
    candidate: FineTuned,
    option: Option,
    dev: Sequence[Example],
    progress: Progress | None,
) -> AskedFitted:
    engine = _tuned(candidate)
    search: DevSearch[Option] = DevSearch(
        partial(ask, engine), candidate.scorer, dev, seed=candidate.seed, progress=progress
    )
    search.try_all([option])
    choice = search.settle()
    chosen = {**choice.as_dict(), "notes": []}
    return AskedFitted(engine, option.request, lambda: chosen, choice.dev_completions)


def _tuned(candidate: FineTuned) -> Engine:
    if candidate.engine is None:
        raise TrainingError(
            f"{candidate.name}: there is no tuned model to ask", hint="Train it first."
        )
    return candidate.engine
