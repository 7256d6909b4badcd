"""What a study has measured: arms, champions, their comparison, costs, and the evidence of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tunewise.data.chat import Example
from tunewise.pipeline import costing
from tunewise.pipeline.evidence import Alike, Arm, Bench, averaged_items, champion, load_arm
from tunewise.pipeline.forgetting import suite_of
from tunewise.pipeline.store import Store
from tunewise.report.document import TrainingRun
from tunewise.scoring.base import Scorer
from tunewise.study.prices import Prices
from tunewise.study.schema import CandidateSpec, Study
from tunewise.verdict.cost import UNKNOWN_COST, CostComparison, break_even_value, net_benefit
from tunewise.verdict.decision import Baseline, Evidence, Floor
from tunewise.verdict.forgetting import UNMEASURED, Forgetting, measure_forgetting
from tunewise.verdict.intervals import Limits
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.sequential import look_alpha
from tunewise.verdict.words import ForgettingStatus


@dataclass(frozen=True)
class Case:
    """All that a verdict is computed from.

    Attributes:
        study: as resolved. digest: its hash.
        specs: the candidates of the study, defaults filled in.
        scorer: the metric.
        store: stages and items.
        prices: of the price file; None without one.
        examples: the test rows by id, for the worked examples (empty: none are shown).
        rows: all test rows by id, for slices. also: the further metrics by name.
        places: ``file:line`` of dev and test rows by id, where they have one.
        command: the arguments that name this study to a command; empty where none can.
    """

    study: Study
    digest: str
    specs: tuple[CandidateSpec, ...]
    scorer: Scorer
    store: Store
    prices: Prices | None = None
    examples: Mapping[str, Example] | None = None
    rows: Mapping[str, Example] = field(default_factory=dict)
    also: tuple[tuple[str, Scorer], ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()


COLLAPSED = 0.9
"""An answer given in a larger share of the rows than this is nearly the only one."""


def _side(arms: Mapping[str, Arm], tuned: bool) -> list[Arm]:
    """The arms with fine-tuning, or those without; the best constant answer is no rival."""
    return [a for a in arms.values() if a.spec.is_fine_tuned == tuned and not a.spec.is_constant]


def floor_of(arms: Mapping[str, Arm]) -> Arm | None:
    """The best constant answer."""
    return next((a for a in arms.values() if a.spec.is_constant), None)


class Measured:
    """All that lies on disk of a study, as arms and numbers.

    Attributes:
        look: which look at the test rows this is; None where they were not opened.
        bench, on_test: compare on dev, and on test with the intervals of that look.
        dev, test: the candidates' arms by name, in the study's order.
        flagged: ids of test rows that leak; they are left out of what decides.
        chosen_in_folds: how many folds chose which champion, with fine-tuning and without.
        with_, without: the champions' arms on test; None where one was not tested.
        comparison: of the two, flagged rows left out; ``with_flagged`` has them, where there
            are any.
        costs: by name. cost: the champions' against each other.
        forgetting: of the tuned champion.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.study = case.study
        self.store = case.store
        self.data = case.store.result("data") or {}
        self.clusters: dict[str, str] | None = self.data.get("clusters")
        self.bench = Bench(case.study, case.scorer, self.clusters)
        opened = case.store.result("test")
        self.look: int | None = opened["opened"] if opened else None
        self.folds: dict[str, int] | None = self.data.get("folds")
        self.on_test = replace(self.bench, alpha=look_alpha(self.look or 1), folds=self.folds)
        self.dev = self._arms("dev")
        self.test = self._arms("test")
        self.flagged = set(self.data.get("flagged", []))
        self.training = [
            TrainingRun.model_validate(run)
            for record in case.store.stages()
            if record["stage"].startswith("train-")
            for run in [record["result"]["run"]]
        ]
        self.chosen_in_folds: dict[bool, Counter[str]] = {}
        self.with_, self.without, chosen_before = self._pair()
        self.comparison: PairedComparison | None = None
        self.with_flagged: PairedComparison | None = None
        if self.with_ is not None and self.without is not None:
            pair = (self.with_, self.without, chosen_before)
            self.comparison, one, other = self._compare(*pair, kept=True)
            if self.folds is None:
                self.with_, self.without = self.test[one], self.test[other]
            if self.flagged & set(self.with_.ids):
                self.with_flagged = self._compare(*pair, kept=False)[0]
        arms = self.test or self.dev
        self.costs = {name: self._cost(arm) for name, arm in arms.items()}
        self.cost: CostComparison = UNKNOWN_COST
        if self.with_ is not None and self.without is not None:
            one_cost, other_cost = self.costs[self.with_.name], self.costs[self.without.name]
            self.cost = costing.compare(self.study, one_cost, other_cost)
        self.forgetting = self._forgetting()

    def _arms(self, split: str) -> dict[str, Arm]:
        ids = self.data.get(f"{split}_ids") or []
        arms = {s.name: load_arm(self.store, s, split, ids) for s in self.case.specs}
        return {name: arm for name, arm in arms.items() if arm is not None}

    def _champions(self, arms: Mapping[str, Arm], tuned: bool) -> Arm | None:
        """The best arm with or without fine-tuning.

        The best constant answer steps in where it beats every other baseline; alone it is none.
        """
        best = champion(self.bench, _side(arms, tuned))
        floor = None if tuned else floor_of(arms)
        if best is None or floor is None or self.bench.score(floor) <= self.bench.score(best):
            return best
        return floor

    def _pair(self) -> tuple[Arm | None, Arm | None, bool]:
        """The champions' arms on test, and whether they were chosen before it was opened."""
        study = self.study
        if study.primary is not None:
            with_, without = (self.test.get(name) for name in study.primary)
            return with_, without, True
        if self.folds is not None:
            return self._over_folds(tuned=True), self._over_folds(tuned=False), True
        sides = {tuned: _side(self.test, tuned) for tuned in (True, False)}
        asked_on_dev = any(_side(self.dev, tuned) for tuned in (True, False))
        if all(len(arms) <= 1 for arms in sides.values()):
            one, other = (next(iter(sides[t]), None) for t in (True, False))
            if other is not None and other.name in self.dev:
                best = self._champions(self.dev, tuned=False)
                other = self.test.get(best.name, other) if best is not None else other
            return one, other, True
        if asked_on_dev:
            chosen = [self._champions(self.dev, tuned) for tuned in (True, False)]
            on_test = [self.test.get(a.name) if a is not None else None for a in chosen]
            return on_test[0], on_test[1], True
        one, other = (champion(self.bench, sides[t]) for t in (True, False))
        return one, other, False

    def _over_folds(self, *, tuned: bool) -> Arm | None:
        """In each fold the champion that the fold's own dev rows chose, joined over the folds.

        It goes by the name of the one that most folds chose.
        """
        assert self.folds is not None
        chosen: dict[int, str] = {}
        for fold in sorted(set(self.folds.values())):
            dev = {}
            for name, arm in self.dev.items():
                own = np.array([id_.endswith(f"@{fold}") for id_ in arm.ids])
                if own.any() and name in self.test:
                    dev[name] = arm.rows(own)
            best = self._champions(dev, tuned)
            if best is None:
                return None
            chosen[fold] = best.name
        self.chosen_in_folds[tuned] = Counter(chosen.values())
        names = [chosen[self.folds[id_]] for id_ in self.data["test_ids"]]
        first = self.test[self.chosen_in_folds[tuned].most_common(1)[0][0]]
        places = range(len(first.ids))
        return Arm(
            first.spec,
            first.ids,
            np.array([[self.test[names[i]].scores[0, i] for i in places]]),
            (tuple(self.test[names[i]].items[0][i] for i in places),),
        )

    def kept(self, arm: Arm) -> Arm:
        """The arm without the flagged rows (with them where nothing else is left)."""
        keep = np.array([i not in self.flagged for i in arm.ids])
        return arm if keep.all() or not keep.any() else arm.rows(keep)

    def _compare(
        self, with_: Arm, without: Arm, chosen_before: bool, *, kept: bool
    ) -> tuple[PairedComparison, str, str]:
        shown = self.kept if kept else (lambda arm: arm)
        if chosen_before:
            pair = self.on_test.compare(shown(with_), shown(without))
            return pair, with_.name, without.name
        arms = [shown(a) for a in self.test.values()]
        return self.on_test.best_of_all(
            [a for a in arms if a.spec.is_fine_tuned],
            [a for a in arms if not a.spec.is_fine_tuned and not a.spec.is_constant],
        )

    def _floor(self, scored: Mapping[str, Arm]) -> Floor | None:
        """The best constant answer, and how far the tuned champion is above it."""
        floor = floor_of(scored)
        if floor is None:
            return None
        comparison = None
        if self.with_ is not None and floor.name in self.test:
            pair = self.kept(self.with_), self.kept(self.test[floor.name])
            comparison = self.on_test.compare(*pair)
        return Floor(name=floor.name, comparison=comparison)

    def _above_floor(self, arm: Arm, floor: Arm | None) -> float | None:
        """Points above the best constant answer; of a collapsed arm, what is beyond chance."""
        if floor is None or arm.name == floor.name or arm.ids != floor.ids:
            return None
        one, other = self.kept(arm), self.kept(floor)
        if self.collapsed(arm) is None:
            return self.bench.score(one) - self.bench.score(other)
        bench = self.on_test if floor is self.test.get(floor.name) else self.bench
        return bench.compare(one, other).low

    def collapsed(self, arm: Arm) -> Alike | None:
        """The arm's commonest answer where it is nearly always given, and is not always wanted."""
        found = arm.alike()
        split = "test" if arm is self.test.get(arm.name) else "dev"
        wanted = (self.data.get("wanted_alike") or {}).get(split)
        if arm.spec.is_constant or found is None or wanted is None or wanted > COLLAPSED:
            return None
        return found if found.share > COLLAPSED else None

    def evidence(self) -> Evidence:
        """What ``decide`` decides on."""
        study, cost, comparison = self.study, self.cost, self.comparison
        with_, without = self.with_, self.without
        scored = self.dev if _side(self.dev, tuned=False) else self.test
        on_dev = scored is self.dev
        rivals = _side(scored, tuned=False)
        arms = [a for a in scored.values() if not a.spec.is_fine_tuned] if rivals else []
        best = without or self._champions(scored, tuned=False)
        shown = self.test or self.dev
        floor = floor_of(shown)
        against = {}
        if comparison is not None and without is not None and len(rivals) > 1:
            others = [a for a in _side(self.test, tuned=False) if a.name != without.name]
            on_test = [self.kept(a) for a in (without, *others)]
            against = self.on_test.against_best(self.kept(without), on_test)
        benefit = None
        value = study.traffic.value_per_correct
        if comparison is not None and value is not None:
            benefit = net_benefit(
                value_per_correct=value,
                gain=comparison.gain,
                gain_limits=Limits(comparison.low, comparison.high),
                cost=cost,
            )
        failed = {a.name: a.failed for a in (with_, without) if a is not None}
        return Evidence(
            minimal_gain=study.target.minimal_gain,
            baselines=tuple(
                Baseline(
                    name=arm.name,
                    score=self.bench.score(arm) if on_dev else None,
                    low=self.bench.interval(arm)[0] if on_dev else None,
                    tried=self._tried(arm.spec),
                    rows=len(arm.ids) if on_dev else None,
                    n=self.bench.effective_rows(arm) if on_dev else None,
                    measured=self.bench.score(self.kept(shown[arm.name]))
                    if arm.name in shown
                    else None,
                    over_constant=self._above_floor(shown[arm.name], floor)
                    if arm.name in shown
                    else None,
                    usd_per_month=self._usd_per_month(self.costs.get(arm.name)),
                    against_best_low=against[arm.name].low if arm.name in against else None,
                )
                for arm in arms
            ),
            best_baseline=best.name if best is not None else None,
            fine_tuned=with_.name if with_ is not None else None,
            floor=self._floor(shown),
            comparison=comparison,
            comparison_with_flagged=self.with_flagged,
            cost=cost.cost_class,
            net_benefit=benefit,
            break_even_value=break_even_value(gain=comparison.gain, cost=cost)
            if comparison is not None
            else None,
            target=study.target.score,
            forgetting=self.forgetting.status,
            forgetting_vetoes=study.forgetting.veto or bool(self.forgetting.lost),
            forgotten=max(
                (-s.change for s in self.forgetting.suites if s.status is ForgettingStatus.FAILED),
                default=None,
            ),
            look=self.look or 1,
            broken=tuple(self.data.get("broken", [])),
            failed=failed,
            leaked=float(self.data.get("leaked_share", 0.0)),
        )

    def _tried(self, spec: CandidateSpec) -> int:
        """How many settings a candidate was chosen from on dev."""
        if spec.is_constant:  # which is chosen on the training rows
            return 1
        chosen = (self.store.result(f"fit-{spec.name}") or {}).get("chosen", {})
        return max(1, sum(len(chosen.get(key) or ()) for key in ("tried", "rankings_tried")))

    def _usd_per_month(self, cost: costing.CandidateCost | None) -> float | None:
        requests = self.study.traffic.requests_per_month
        if cost is None or requests is None:
            return None
        return cost.per_month(requests, self.study.traffic.horizon_months)

    def _cost(self, arm: Arm) -> costing.CandidateCost:
        runs = [r for r in self.training if r.candidate == arm.name]
        usd = None
        if runs and self.case.prices is not None:
            last = runs[-1]
            usd = self.case.prices.training_usd(last.route, last.model, last.seconds, last.tokens)
        return costing.candidate_cost(
            self.study, arm.spec, averaged_items(arm), self.case.prices, usd
        )

    def _forgetting(self) -> Forgetting:
        result = self.store.result("forgetting")
        if result is None:
            return UNMEASURED
        suites = {}
        for name in result["suites"]:
            base, tuned = (
                self.store.items(f"{name}.{side}", "forgetting") for side in ("base", "tuned")
            )
            suites[name] = suite_of(base, tuned, result.get("looks", {}).get(name))
        return measure_forgetting(
            suites,
            margin=self.study.forgetting.margin,
            lost=list(result["lost"]),
            rng_seed=self.study.seed,
        )
