"""Retrieval-augmented generation: passages found for the row stand before its question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tunewise.candidates.answers import shape_of
from tunewise.candidates.asking import AskedFitted, as_many_as_fit, ask
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.choosing import DevSearch, Effort
from tunewise.candidates.passages import HasText
from tunewise.candidates.prompting import Limits, Prompting
from tunewise.candidates.retrieval import (
    PASSAGE_WORDS,
    Retrieval,
    choose_ranking,
    recall_report,
)
from tunewise.candidates.zero_shot import Wording, given_wordings, improved
from tunewise.data.chat import Example, Progress, Request
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer

K = (1, 3, 5)
INSTRUCTION = "Use the numbered passages before the question to answer it."


def told(prompting: Prompting) -> Prompting:
    """The same, saying that the passages are there to be used."""
    note = " ".join(part for part in (INSTRUCTION, prompting.note) if part)
    return prompting.wording(instructions=prompting.instructions, note=note)


@dataclass(frozen=True, eq=False)
class PassageOption:
    """One way to put passages into the prompt.

    Attributes:
        k: how many passages.
        told: whether the instructions say that the answer comes from the passages.
        trimmed: ids of the rows that were too long for all passages.
    """

    engine: Engine
    retrieval: Retrieval
    wording: Wording
    k: int
    told: bool = True
    trimmed: set[str] = field(default_factory=set)

    @property
    def settings(self) -> Mapping[str, Any]:
        ranking = self.retrieval.ranking.as_dict()
        return {"k": self.k, **ranking, "instruction": self.told, **self.wording.settings}

    @property
    def prompting(self) -> Prompting:
        prompting = self.wording.prompting
        return told(prompting) if self.told else prompting

    def request(self, example: Example) -> Request:
        passages = self.retrieval.top(example.user_text, self.k)
        prompting = self.prompting
        request, n = as_many_as_fit(
            self.engine,
            lambda n: prompting.request(example, passages=passages[:n]),
            len(passages),
        )
        if n < len(passages):
            self.trimmed.add(example.id)
        return request

    def notes(self) -> list[str]:
        """What a reader should know about the requests so far."""
        if not self.trimmed:
            return []
        return [
            f"{len(self.trimmed)} rows were too long for all {self.k} passages and were asked "
            "with fewer"
        ]


@dataclass(frozen=True)
class Rag:
    """The number of passages, their ranking and the instructions are chosen on dev.

    Where rows name their documents the ranking is chosen by recall, which asks no model.
    """

    name: str
    engine: Engine
    scorer: Scorer
    limits: Limits
    documents: Sequence[HasText]
    prompts: Sequence[str] = ()
    labels: Sequence[str] | None = None
    k: Sequence[int] | None = None
    passage_words: int = PASSAGE_WORDS
    dense: str | None = None
    seed: int = 0
    effort: Effort = "standard"
    kind: str = "rag"

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        if not self.documents:
            raise NotOfferedError(
                f"{self.name}: there are no documents to search",
                hint="Give a folder or file as `data.documents`.",
            )
        retrieval = Retrieval.over(
            self.documents, passage_words=self.passage_words, dense=self.dense
        )
        ks = sorted({min(k, len(retrieval)) for k in self.k or K})
        rankings_tried: list[Mapping[str, Any]] = []
        if any(row.documents for row in dev):
            retrieval, rankings_tried = choose_ranking(retrieval, dev, ks)
            rankings = [retrieval.ranking]
        else:
            rankings = retrieval.rankings(labelled=False)
        wordings = given_wordings(train, self.prompts, self.limits)
        if (better := improved(wordings[0], shape_of(train, self.labels))) is not None:
            wordings.append(better)
        search: DevSearch[PassageOption] = DevSearch(
            partial(ask, self.engine),
            self.scorer,
            dev,
            effort=self.effort,
            seed=self.seed,
            expected=len(ks) + len(rankings) + len(wordings) - 1,
            progress=progress,
        )
        best = search.try_all([PassageOption(self.engine, retrieval, wordings[0], k) for k in ks])
        search.try_each(
            replace(best, retrieval=retrieval.ranked(ranking), trimmed=set())
            for ranking in rankings[1:]
        )
        search.try_all([replace(search.leader, told=False, trimmed=set())])
        leader = search.leader
        search.try_each(replace(leader, wording=other, trimmed=set()) for other in wordings[1:])
        choice = search.settle()
        option = choice.option
        recall = recall_report(option.retrieval, dev, ks, option.k)

        def chosen() -> dict[str, Any]:
            return {
                **choice.as_dict(),
                "passages": len(retrieval),
                "passage_words": self.passage_words,
                "dense": self.dense,
                "rankings_tried": rankings_tried,
                **recall,
                "notes": option.notes(),
            }

        return AskedFitted(self.engine, option.request, chosen, choice.dev_completions)
