"""From what lies on disk to the verdict: pure recomputation, offline, at any time.

Everything in ``verdict.json`` comes from the study file, the stage files and the items. Nothing
is asked, trained or remembered here, so ``tunewise report`` gives the same verdict again.
"""

from __future__ import annotations

import datetime
import platform
from typing import Literal, cast

import numpy as np

from tunewise import __version__
from tunewise.pipeline import costing
from tunewise.pipeline.breakdown import breakdown, worse_sentences
from tunewise.pipeline.cautions import cautions
from tunewise.pipeline.evidence import Arm, load_arm, mean_tokens
from tunewise.pipeline.explain import checklist, next_steps, worked_examples
from tunewise.pipeline.failures import failures_of
from tunewise.pipeline.forgetting import forgetting_part
from tunewise.pipeline.measured import Case, Measured
from tunewise.report.document import (
    Audit,
    AuditFinding,
    BreakdownRow,
    CandidateRow,
    Cost,
    CurvePoint,
    LearningCurve,
    Primary,
    StageTime,
    TestSet,
    Verdict,
)
from tunewise.scoring.base import SetFigures, SetWarnings
from tunewise.study.schema import CandidateSpec
from tunewise.training.left_out import LEFT_OUT
from tunewise.verdict.curve import NoFit, fit_learning_curve
from tunewise.verdict.decision import Decision, decide
from tunewise.verdict.planning import (
    GUESSED_DISCORDANCE,
    MOST_LOOKS,
    mde,
    mde_decide,
    mde_from_discordance,
)
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.sentence import headline
from tunewise.words import level, some_of

Gate = Literal["G0", "G1", "G2", "G3", "G4", "G5"]


def judge(case: Case) -> Verdict:
    """The verdict on what has been measured so far."""
    return _Judge(case).verdict()


class _Judge:
    """Writes the parts of the document from what was measured."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.study = case.study
        self.measured = Measured(case)

    def verdict(self) -> Verdict:
        study, measured = self.study, self.measured
        evidence = measured.evidence()
        decision = decide(evidence)
        parts, left_out = self._breakdown()
        with_name = measured.with_.name if measured.with_ is not None else ""
        verdict = Verdict(
            tunewise=__version__,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            study=study.name,
            study_hash=self.case.digest,
            use_case=study.use_case,
            metric=study.metric.name,
            ended_at=self._ended_at(),
            verdict=decision.verdict.value,
            use=decision.use,
            use_for_now=decision.provisional,
            because=[code.value for code in decision.because],
            headline=headline(decision, evidence, cost=measured.cost, names=self._names()),
            cautions=[*cautions(measured), *worse_sentences(parts, with_name)],
            test=self._test_set(),
            primary=self._primary(decision),
            candidates=[self._row(spec) for spec in self.case.specs],
            failures=failures_of(measured),
            breakdown=parts,
            cost=self._cost_part(),
            forgetting=forgetting_part(study, measured.forgetting),
            learning_curve=self._learning_curve(),
            audit=self._audit(),
            training=measured.training,
            stages=[
                StageTime(stage=r["stage"], gate=r["gate"], seconds=r["seconds"])
                for r in self.case.store.stages()
            ],
            reproducibility=self._reproducibility(),
            warnings=[*self._warnings(decision), *left_out],
        )
        verdict.checklist = checklist(study, verdict, self.case.specs)
        verdict.next_steps = next_steps(study, verdict, self.case.specs, self.case.command)
        if self.case.examples and measured.test:
            names = (verdict.primary.with_, verdict.primary.without)
            items = {n: [i for i in a.items[0] if i is not None] for n, a in measured.test.items()}
            shown = {i: e for i, e in self.case.examples.items() if i not in measured.flagged}
            verdict.examples = worked_examples(shown, items, names)
        return verdict

    def _ended_at(self) -> Gate:
        gates = [str(record["gate"]) for record in self.case.store.stages()]
        return cast(Gate, max(gates, default="G0"))

    def _names(self) -> dict[str, str]:
        """A candidate that is not called by its kind keeps the name that the user gave it."""
        titled = [s for s in self.case.specs if s.name == s.kind and s.traits.title is not None]
        return {s.name: str(s.traits.title) for s in titled}

    def _test_set(self) -> TestSet:
        ids = self.measured.data.get("test_ids") or []
        return TestSet(
            n=len(ids) or None,
            clusters=len({self.measured.clusters.get(i, i) for i in ids})
            if self.measured.clusters
            else None,
            sha256=self.measured.data.get("test_hash"),
            opened=self.measured.look,
            left_out=len(self.measured.flagged & set(ids)),
            repeated=self.measured.data.get("repeated", 0),
        )

    def _primary(self, decision: Decision) -> Primary:
        measured, comparison = self.measured, self.measured.comparison
        M = self.study.target.minimal_gain
        one, other = (
            arm.name if arm is not None else None for arm in (measured.with_, measured.without)
        )
        names = {"with": one, "without": other}
        if comparison is None:
            return Primary(**names, minimal_gain=M)
        labels = decision.labels
        return Primary(
            **names,
            gain=comparison.gain,
            interval=(comparison.low, comparison.high),
            level=100 * (1 - comparison.alpha),
            p_value=None if np.isnan(comparison.p_value) else comparison.p_value,
            method=comparison.method.value,
            mde=mde(comparison.se),
            mde_decide=mde_decide(comparison.se, M),
            n=comparison.n,
            clusters=comparison.clusters,
            folds=comparison.folds,
            seeds=comparison.seeds,
            seed_sd=comparison.seed_sd,
            discordance=comparison.discordance.share if comparison.discordance else None,
            minimal_gain=M,
            labels_needed=labels.total if labels else None,
            labels_chance=labels.chance if labels else None,
            gain_without_left_out=measured.with_flagged.gain if measured.with_flagged else None,
            notes=[*comparison.warnings, *decision.notes, *_of_folds(decision, comparison)],
        )

    def _row(self, spec: CandidateSpec) -> CandidateRow:
        measured, bench = self.measured, self.measured.bench
        stage = self.case.store.result(f"fit-{spec.name}") or {}
        on_dev, on_test = measured.dev.get(spec.name), measured.test.get(spec.name)
        arm = measured.kept(on_test) if on_test is not None else on_dev
        row = CandidateRow(
            name=spec.name,
            kind=spec.kind,
            constant=spec.is_constant,
            fine_tuned=spec.is_fine_tuned,
            model=spec.model or (self.study.model if spec.traits.needs_model else None),
            dev_score=bench.score(on_dev) if on_dev is not None else None,
            chosen=stage.get("chosen", {}),
            note=stage.get("note"),
        )
        if arm is None:
            return row
        items = arm.answered()
        times = [1000 * i.latency_s for i in items if i.latency_s is not None]
        prompt = [i.prompt_tokens for i in items if i.prompt_tokens is not None]
        completion = [i.completion_tokens for i in items if i.completion_tokens is not None]
        cost = measured.costs.get(spec.name)
        row.measured_on = "test" if on_test is not None else "dev"
        row.score = bench.score(arm)
        row.interval = bench.interval(arm)
        row.n = len(arm.ids)
        row.failures = arm.failures
        row.tokens_per_request = mean_tokens(arm)
        row.prompt_tokens = float(np.mean(prompt)) if prompt else None
        row.completion_tokens = float(np.mean(completion)) if completion else None
        row.usd_per_1k_requests = cost.per_1k if cost else None
        row.latency_ms = float(np.median(times)) if times else None
        row.latency_p95_ms = float(np.quantile(times, 0.95)) if times else None
        row.figures = self._figures(arm)
        return row

    def _figures(self, arm: Arm) -> dict[str, float]:
        if not isinstance(self.case.scorer, SetFigures):
            return {}
        found = self.case.scorer.figures(arm.item_scores()[0])
        return {name: 100 * value for name, value in found.items()}

    def _cost_part(self) -> Cost:
        measured, comparison = self.measured, self.measured.comparison
        with_, without = measured.with_, measured.without
        if with_ is None or without is None:
            return Cost(reason="no fine-tuned candidate was tested against a baseline")
        gain = comparison.gain if comparison is not None else None
        one, other = measured.costs[with_.name], measured.costs[without.name]
        return costing.document(self.study, self.case.prices, one, other, measured.cost, gain)

    def _breakdown(self) -> tuple[list[BreakdownRow], list[str]]:
        """The gain by slices and further metrics, where the test was opened."""
        measured, case = self.measured, self.case
        if measured.with_ is None or measured.without is None:
            return [], []
        pair = measured.kept(measured.with_), measured.kept(measured.without)
        return breakdown(measured.on_test, *pair, case.rows, case.also)

    def _learning_curve(self) -> LearningCurve:
        points = [r["result"] for r in self.case.store.stages() if r["stage"].startswith("curve-")]
        trained = next((s for s in self.case.specs if s.traits.trained), None)
        if not points or trained is None:
            return LearningCurve(reason="no parts of the training rows were tried")
        scores: dict[int, list[list[float]]] = {}
        shown = []
        for point in sorted(points, key=lambda p: p["rows"]):
            ids = self.measured.data["dev_ids"]
            arm = load_arm(self.case.store, trained, "dev", ids, under=point["name"])
            if arm is None:
                continue
            scores.setdefault(point["rows"], []).append(list(arm.scores.mean(axis=0)))
            shown.append(
                CurvePoint(
                    rows=point["rows"],
                    score=self.measured.bench.score(arm),
                    interval=self.measured.bench.interval(arm),
                )
            )
        fit = fit_learning_curve(
            scores, minimal_gain=self.study.target.minimal_gain, rng_seed=self.study.seed
        )
        if isinstance(fit, NoFit):
            return LearningCurve(points=shown, reason=fit.reason)
        largest = fit.sizes[-1]
        return LearningCurve(
            points=shown,
            fitted=[
                CurvePoint(rows=int(n), score=fit.score(float(n)))
                for n in np.geomspace(fit.sizes[0], 2 * largest, 24).round()
            ],
            gain_from_doubling=fit.doubling_gain,
            gain_interval=(fit.low, fit.high),
            more_data=fit.more_data,
        )

    def _audit(self) -> Audit:
        data = self.measured.data
        n = data.get("questions") or len(data.get("test_ids") or [])
        return Audit(
            rows=data.get("rows", {}),
            unreadable=data.get("unreadable", 0),
            findings=[AuditFinding.model_validate(f) for f in data.get("findings", [])],
            split=data.get("split"),
            prompt_tokens_median=data.get("prompt_tokens_median"),
            answer_tokens_median=data.get("answer_tokens_median"),
            mde=mde_from_discordance(GUESSED_DISCORDANCE, n) if n else None,
        )

    def _reproducibility(self) -> dict[str, str]:
        found = {
            "tunewise": __version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "study": self.case.digest,
            "seed": str(self.study.seed),
        }
        found.update({k: str(v) for k, v in self.measured.data.get("versions", {}).items()})
        if self.measured.data.get("date"):
            found["date in prompts"] = self.measured.data["date"]
        if self.measured.data.get("test_hash"):
            found["test rows"] = self.measured.data["test_hash"]
        if self.case.prices is not None:
            found["prices"] = f"{self.case.prices.date}, {self.case.prices.source}"
        return found

    def _warnings(self, decision: Decision) -> list[str]:
        found = [
            text
            for record in self.case.store.stages()
            for text in record["result"].get("warnings", [])
        ]
        if self.measured.comparison is None:  # otherwise they stand beside the comparison
            found += decision.notes
        scorer = self.case.scorer
        if isinstance(scorer, SetWarnings):
            for name, arm in (self.measured.test or self.measured.dev).items():
                found += [f"{name}: {text}" for text in scorer.warnings(arm.item_scores()[0])]
        found += [
            f"{run.candidate}: {some_of(count, run.rows + count, 'row', 'is', 'are')} left out of "
            f"the training: "
            f"{LEFT_OUT.get(code, code)}."
            for run in self.measured.training
            if run.rows is not None
            for code, count in run.rows_left_out.items()
        ]
        opened = self.case.store.result("test")
        for chosen in self.measured.chosen_in_folds.values():
            if len(chosen) > 1:
                told = ", ".join(f"{name} in {count}" for name, count in chosen.most_common())
                found.append(
                    f"Not all folds chose the same: {told} of {chosen.total()} folds. What is "
                    "compared is the choosing, not one of them."
                )
        comparison, look = self.measured.comparison, self.measured.look or 1
        if look > 1:
            found.append(
                f"This is look {look} at these test rows: they, or a part of them, were opened "
                "before, since when rows, candidates or settings have changed."
                + (
                    f" The interval of the gain allows for that ({level(comparison.alpha)} in "
                    "place of 95 %)."
                    if comparison is not None and look <= MOST_LOOKS
                    else ""
                )
            )
        target = self.study.target.model_dump(mode="json")
        if opened and opened.get("target", target) != target:
            before = ", ".join(
                f"{key} {value}" for key, value in opened["target"].items() if value != target[key]
            )
            found.append(
                f"The target was changed after the test was opened (before: {before}); a verdict "
                "counts on one that is fixed beforehand."
            )
        today = datetime.datetime.now(datetime.UTC).date()
        asked = {
            name: costing.billed_as(self.study, arm.spec)
            for name, arm in (self.measured.test or self.measured.dev).items()
            if not arm.spec.traits.free and arm.spec.usd_per_1k_requests is None
        }
        models = {model for model in asked.values() if model is not None}
        found += costing.price_warnings(self.study, self.case.prices, today, models)
        if self.study.costs.cache_hit_rate and self.case.prices is not None:
            found += [
                f"Which prompt tokens of {name} every request repeats is not known, so no cache "
                "is counted for it; run it again, or give recorded answers `static_tokens`."
                for name in asked
                if self._no_static_tokens(name)
            ]
        return list(dict.fromkeys(found))

    def _no_static_tokens(self, name: str) -> bool:
        items = (self.measured.test or self.measured.dev)[name].answered()
        return any(i.prompt_tokens is not None and i.static_tokens is None for i in items)


def _of_folds(decision: Decision, comparison: PairedComparison) -> list[str]:
    if comparison.folds is None:
        return []
    spread = (
        f"Each of the {comparison.folds} folds was answered by a system of its own; the interval "
        "allows for how much these differ."
    )
    if decision.verdict.value != "FINE_TUNE":
        return [spread]
    return [
        spread,
        "The model to ship learnt from all rows and was not itself tested: the score is that of "
        "models that learnt from the other folds.",
    ]
