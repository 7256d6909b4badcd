"""The tuned model as a candidate, alone or with retrieval. Nothing is trained here.

A tuned model is asked exactly as it was trained: `training_examples` gives the trainer the very
messages that `fit` will send. Its answers are held to the same form, by the same decoding, as those
of the prompted models that it is compared with (``held.py``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, ClassVar

from tunewise.candidates.asking import AskedFitted, ask
from tunewise.candidates.base import Traits
from tunewise.candidates.choosing import DevSearch, Option
from tunewise.candidates.context import BuildContext
from tunewise.candidates.held import Held, held_by
from tunewise.candidates.offers import Given, decide
from tunewise.candidates.passages import Passage
from tunewise.candidates.prompted import Searching
from tunewise.candidates.prompting import Limits
from tunewise.candidates.rag import PassageOption, told
from tunewise.candidates.retrieval import Retrieval, choose_ranking, recall_report
from tunewise.candidates.wordings import Wording, given_wordings
from tunewise.data.chat import Example, Progress, answer_of, text_of
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
    labels: Sequence[str] | None = None
    seed: int = 0
    constrain: bool = False
    kind: str = "fine_tuned"
    traits: ClassVar[Traits] = Traits(
        title="the fine-tuned model", trained=True, plain=True, dev_rounds=2, complexity=60
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
        wordings, notes = self._answering(train, dev)
        return self._asked(wordings, notes, dev, progress)

    def _wording(self, train: Sequence[Example], held: Held | None = None) -> Wording:
        if held is None:
            return given_wordings(train, self.prompts[:1], self.limits)[0]
        limits = replace(self.limits, form=held.form)
        return given_wordings(train, self.prompts[:1], limits, held.told)[0]

    def _answering(
        self, train: Sequence[Example], dev: Sequence[Example]
    ) -> tuple[list[Wording], list[str]]:
        """How it is asked, held to the form first, and what a reader should know of that."""
        engine = self._tuned()
        held = held_by(engine, self.limits, train, dev, self.labels) if self.constrain else None
        wording = self._wording(train, held)
        if held is None:
            return [wording], []
        learnt_otherwise = held.reshaped_by(engine) or any(map(_thinks, train))
        freely = held.leaves_no_room(engine) or learnt_otherwise
        return [wording, wording.free()] if freely else [wording], [held.note]

    def _asked(
        self,
        options: Sequence[Option],
        notes: Sequence[str],
        dev: Sequence[Example],
        progress: Progress | None,
    ) -> AskedFitted:
        engine = self._tuned()
        search: DevSearch[Option] = DevSearch(
            partial(ask, engine),
            self.scorer,
            dev,
            seed=self.seed,
            expected=len(options),
            progress=progress,
        )
        search.race(options)
        choice = search.settle()
        said = [*notes, *choice.notes, *getattr(engine, "notes", ())]
        chosen = {**choice.as_dict(), "notes": said}
        return AskedFitted(engine, choice.option.request, lambda: chosen, choice.dev_completions)

    def _tuned(self) -> Engine:
        if self.engine is None:
            raise TrainingError(
                f"{self.name}: there is no tuned model to ask", hint="Train it first."
            )
        return self.engine


@dataclass(frozen=True, kw_only=True)
class FineTunedRag(FineTuned, Searching):
    """The tuned model with passages, in training as in use.

    The ranking and the number of passages are set before training, by recall on dev where rows
    name their documents: the fewest passages with 95 % of the best recall. Where they name none,
    the middle one of the numbers to choose from.
    """

    kind: str = "fine_tuned+rag"
    traits: ClassVar[Traits] = Traits(
        title="the fine-tuned model with retrieval",
        trained=True,
        retrieves=True,
        dev_rounds=2,
        complexity=70,
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
        wordings, notes = self._answering(train, dev)
        options = [PassageOption(self._tuned(), retrieval, wording, k) for wording in wordings]
        fitted = self._asked(options, notes, dev, progress)
        recall = recall_report(retrieval, dev, self.numbers(retrieval), k)
        plain = fitted.chosen()

        def chosen() -> dict[str, Any]:
            cut = [note for option in options for note in option.notes()]
            return {
                **plain,
                "passages": len(retrieval),
                "passage_words": self.passage_words,
                "dense": self.dense,
                **recall,
                "notes": [*dict.fromkeys(cut), *plain["notes"]],
            }

        return AskedFitted(self._tuned(), fitted.request, chosen, fitted.dev_completions)

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


def _thinks(row: Example) -> bool:
    """Whether the wanted answer begins with thoughts, for which a form has no room."""
    target = row.target or {}
    return bool(target.get("reasoning_content")) or text_of(target) != answer_of(target)
