"""Retrieval-augmented generation: passages found for the row stand before its question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tunewise.candidates.answers import shape_of
from tunewise.candidates.asking import AskedFitted, as_many_as_fit
from tunewise.candidates.base import Traits
from tunewise.candidates.context import BuildContext
from tunewise.candidates.offers import Given, decide
from tunewise.candidates.prompted import Prompted, Searching
from tunewise.candidates.prompting import Prompting
from tunewise.candidates.retrieval import Retrieval, choose_ranking, recall_report
from tunewise.candidates.wordings import Wording
from tunewise.data.chat import Example, Progress, Request
from tunewise.models.engine import Engine
from tunewise.study.schema import CandidateSpec
from tunewise.words import plural, verb

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

    def prompting(self, example: Example) -> Prompting:
        """How one row is asked."""
        prompting = self.wording.of(example)
        return told(prompting) if self.told else prompting

    def request(self, example: Example) -> Request:
        passages = self.retrieval.top(example.user_text, self.k)
        prompting = self.prompting(example)
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
        n = len(self.trimmed)
        return [
            f"{plural(n, 'row')} {verb(n, 'was', 'were')} too long for all {self.k} passages and "
            f"{verb(n, 'was', 'were')} asked with fewer"
        ]


@dataclass(frozen=True, kw_only=True)
class Rag(Prompted, Searching):
    """The number of passages, their ranking and the instructions are chosen on dev.

    Where rows name their documents the ranking is chosen by recall, which asks no model.
    """

    kind: str = "rag"
    traits: ClassVar[Traits] = Traits(
        title="retrieval", retrieves=True, dev_rounds=5, complexity=40
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> Rag:
        return cls(
            engine=context.engine_of(spec),
            **context.asking(spec),
            **context.searching(spec),
            **context.choosing(),
        )

    @classmethod
    def offer(cls, given: Given) -> tuple[bool, str]:
        return decide("there are documents to search", given.model, given.documents)

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        retrieval = self.retrieval()
        ks = self.numbers(retrieval)
        rankings_tried: list[Mapping[str, Any]] = []
        if any(row.documents for row in dev):
            retrieval, rankings_tried = choose_ranking(retrieval, dev, ks)
            rankings = [retrieval.ranking]
        else:
            rankings = retrieval.rankings(labelled=False)
        shape = shape_of(train, self.labels)
        wordings = self.wordings(train, shape, dev)
        phrased = self.phrased(wordings[0], shape, train, dev, 0.5)
        expected = len(ks) + len(rankings) + len(wordings) + len(phrased) - 1
        search = self.search(PassageOption, dev, expected, progress)
        search.race(PassageOption(self.engine, retrieval, wordings[0], k) for k in ks)
        best = search.leader
        search.race(
            replace(best, retrieval=retrieval.ranked(ranking), trimmed=set())
            for ranking in rankings[1:]
        )
        search.race([replace(search.leader, told=False, trimmed=set())])
        leader = search.leader
        search.race(replace(leader, wording=other, trimmed=set()) for other in wordings[1:])
        search.race(replace(leader, wording=other, trimmed=set()) for other in phrased)
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
                "prompts_tried": search.prompts,
                "notes": [*option.notes(), *choice.notes, *self.notes(train, dev, search.prompts)],
            }

        return AskedFitted(self.engine, option.request, chosen, choice.dev_completions)
