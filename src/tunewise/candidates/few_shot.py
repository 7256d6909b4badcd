"""Few-shot: solved examples as chat turns before the row.

What is searched, one thing at a time to stay cheap: the number of shots, fixed or nearest; the
order of the fixed ones, since order alone can decide between good and chance (Lu et al.,
2104.08786); the instructions. Fixed shots stand before everything that differs between rows, so
that engines and servers can reuse them. Nearest ones stand with the most similar last (Liu et
al., 2101.06804).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from tunewise.candidates.answers import AnswerShape, shape_of
from tunewise.candidates.asking import AskedFitted, as_many_as_fit, fits
from tunewise.candidates.base import NotOfferedError, Traits
from tunewise.candidates.context import BuildContext
from tunewise.candidates.offers import Given, decide
from tunewise.candidates.prompted import Prompted
from tunewise.candidates.shots import ShotPool, orders_of
from tunewise.candidates.wordings import Wording
from tunewise.data.chat import Example, Progress, Request
from tunewise.models.engine import Engine
from tunewise.study.schema import CandidateSpec
from tunewise.words import plural, verb

Selection = Literal["fixed", "nearest"]
K = (4, 8, 16)
_SMALLER_K = (1, 2)


@dataclass(frozen=True, eq=False)
class ShotOption:
    """One way to choose and order shots.

    Attributes:
        k: how many shots.
        fixed: the shots in their order; None where each row gets its nearest.
        order: number of the order tried; 0 is the drawn one.
        trimmed: ids of the rows that were too long for all shots.
    """

    engine: Engine
    pool: ShotPool
    wording: Wording
    k: int
    fixed: tuple[Example, ...] | None = None
    order: int = 0
    trimmed: set[str] = field(default_factory=set)

    @property
    def settings(self) -> Mapping[str, Any]:
        how = {"selection": "nearest"} if self.fixed is None else {"selection": "fixed"}
        order = {} if self.fixed is None else {"order": self.order}
        return {**how, "k": self.k, **order, **self.wording.settings}

    def shots(self, example: Example) -> Sequence[Example]:
        """The shots for a row, before any is left out for length."""
        if self.fixed is None:
            return self.pool.nearest(example, self.k)
        return [shot for shot in self.fixed if self.pool.allowed(shot, example)]

    def request(self, example: Example) -> Request:
        shots = self.shots(example)

        def build(n: int) -> Request:
            # Fixed shots go from the end, so that the shared start stays; of the nearest, the
            # least similar go, which stand first.
            kept = shots[len(shots) - n :] if self.fixed is None else shots[:n]
            return self.wording.of(example).request(example, shots=kept)

        request, n = as_many_as_fit(self.engine, build, len(shots))
        if n < len(shots):
            self.trimmed.add(example.id)
        return request


@dataclass(frozen=True, kw_only=True)
class FewShot(Prompted):
    """Shots chosen on dev: how many, which, in what order.

    Attributes:
        k: numbers of shots to choose from.
        selection: the same shots for every row, each row's nearest, or both to choose from.
        orders: how many orders of fixed shots are tried.
    """

    k: Sequence[int] | None = None
    selection: Sequence[Selection] = ("fixed", "nearest")
    orders: int = 3
    kind: str = "few_shot"
    traits: ClassVar[Traits] = Traits(
        title="few-shot prompting", shows_examples=True, dev_rounds=10, complexity=30
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> FewShot:
        return cls(
            engine=context.engine_of(spec),
            k=spec.k,
            selection=tuple(dict.fromkeys(spec.selection or ("fixed", "nearest"))),
            orders=spec.orders or 3,
            **context.asking(spec),
            **context.choosing(),
        )

    @classmethod
    def offer(cls, given: Given) -> tuple[bool, str]:
        why = "training rows can be shown as examples"
        return decide(why, given.model, given.answered)

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> AskedFitted:
        pool = ShotPool(train, dev)
        if not pool.rows:
            raise NotOfferedError(
                f"{self.name}: no training row can be shown as an example",
                hint="Give training rows with answers that are not dev rows.",
            )
        shape = shape_of(train, self.labels)
        wordings = self.wordings(train, shape, dev)
        phrased = self.phrased(wordings[0], shape, train, dev, 0.5)
        expected = (
            len(self._wanted) * len(self.selection) + self.orders + len(wordings) + len(phrased) - 2
        )
        search = self.search(ShotOption, dev, expected, progress)
        offered, notes = self._offered(pool, shape, wordings[0], search.first_rows or train)
        for options in offered.values():
            best = search.race(options)
            if best is not None and best.fixed is not None:
                orders = orders_of(best.fixed, self.orders, self.seed)[1:]
                search.race(
                    replace(best, fixed=tuple(order), order=number, trimmed=set())
                    for number, order in enumerate(orders, 1)
                )
        leader = search.leader
        search.race(replace(leader, wording=other, trimmed=set()) for other in wordings[1:])
        search.race(replace(leader, wording=other, trimmed=set()) for other in phrased)
        choice = search.settle()
        option = choice.option

        def chosen() -> dict[str, Any]:
            ids = None if option.fixed is None else [shot.id for shot in option.fixed]
            said = [*notes, *choice.notes, *self.notes(train, dev, search.prompts)]
            if n := len(option.trimmed):
                said.append(
                    f"{plural(n, 'row')} {verb(n, 'was', 'were')} too long for all {option.k} "
                    f"shots and {verb(n, 'was', 'were')} asked with fewer"
                )
            tried = search.prompts
            return {**choice.as_dict(), "prompts_tried": tried, "shots": ids, "notes": said}

        return AskedFitted(self.engine, option.request, chosen, choice.dev_completions)

    @property
    def _wanted(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.k or K)))

    def _offered(
        self,
        pool: ShotPool,
        shape: AnswerShape,
        wording: Wording,
        rows: Sequence[Example],
    ) -> tuple[dict[Selection, list[ShotOption]], list[str]]:
        """For each selection the options that most rows have room for, fewest shots first."""
        drawn = tuple(pool.draw(self._wanted[-1], shape, self.seed)) if self._fixed else ()
        rows = rows[:: max(1, len(rows) // 20)]
        notes: list[str] = []

        def options(ks: Sequence[int], selection: Selection) -> list[ShotOption]:
            most = len(drawn) if selection == "fixed" else len(pool.rows)
            made = [
                ShotOption(
                    self.engine, pool, wording, k, drawn[:k] if selection == "fixed" else None
                )
                for k in sorted({min(k, most) for k in ks} - {0})
            ]
            fitting = [option for option in made if _most_have_room(option, rows)]
            notes.extend(
                f"{option.k} {selection} shots do not fit the context of "
                f"{self.engine.context_length} tokens for most rows: left out"
                for option in made
                if option not in fitting
            )
            return fitting

        offered = {s: options(self._wanted, s) or options(_SMALLER_K, s) for s in self.selection}
        offered = {selection: found for selection, found in offered.items() if found}
        if not offered:
            raise NotOfferedError(
                f"{self.name}: not even one example fits beside a row and its answer into the "
                f"model's context of {self.engine.context_length} tokens",
                hint="Take a model with a longer context, or leave few_shot out.",
            )
        return offered, notes

    @property
    def _fixed(self) -> bool:
        return "fixed" in self.selection


def _most_have_room(option: ShotOption, rows: Sequence[Example]) -> bool:
    room = [
        fits(option.engine, option.wording.of(row).request(row, shots=option.shots(row)))
        for row in rows
    ]
    return 2 * sum(room) >= len(room)
