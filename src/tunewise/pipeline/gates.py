"""The gates G0 to G5: the cheapest question first, each with a file to show for it.

A killed run goes on where it was. Raw answers are kept by request and training runs by content,
for all studies of the workspace, so that a changed study asks and trains only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.candidates.base import AnsweredBySeed, Fitted, NotOfferedError
from tunewise.candidates.build import build_candidate
from tunewise.data.chat import Completion, Example
from tunewise.models.engine import Engine
from tunewise.pipeline import forgetting
from tunewise.pipeline.askable import askable_stage
from tunewise.pipeline.breakdown import check_slices
from tunewise.pipeline.evidence import Arm, Bench, champion, load_arm
from tunewise.pipeline.judge import judge
from tunewise.pipeline.ledger import open_test
from tunewise.pipeline.measure import mean_score, recorded_gaps, refuse_failures, scored_items
from tunewise.pipeline.measured import Case
from tunewise.pipeline.prepare import audit_stage
from tunewise.pipeline.session import Session
from tunewise.pipeline.store import Item
from tunewise.pipeline.tuning import EFFORTS, parts, refuse_unaffordable, seeds_of
from tunewise.report.document import Verdict
from tunewise.study.schema import CandidateSpec
from tunewise.training.job import TrainingResult
from tunewise.verdict.decision import LEAK_SHARE
from tunewise.verdict.planning import GUESSED_DISCORDANCE, mde_from_discordance
from tunewise.words import plural


class Gates:
    """One study on its way through the gates."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.study = session.study
        self.store = session.store
        self.reporter = session.reporter
        self._fitted: dict[tuple[str, int | None], Fitted] = {}
        self._tuned: dict[tuple[str, int], Mapping[str, Any]] = {}

    def run(self) -> Verdict:
        """All gates, to the first that ends the study."""
        self.store.forget_lost()
        self._g0()
        data = self.store.result("data") or {}
        if data["broken"] or data["leaked_share"] >= LEAK_SHARE:
            return self.finish()
        for text in askable_stage(self.session):
            self.reporter.warn(text)
        if not self.store.stands("test", self.session.inputs.test()):
            # Of other weights or candidates: it must not speak in this run's early decisions.
            self.store.drop("test", "forgetting")
        tuned = [s for s in self.session.specs if s.traits.trained]
        self._g1([s for s in self.session.specs if s not in tuned])
        recorded_tuned = any(s.is_fine_tuned and s.traits.recorded for s in self.session.specs)
        if not recorded_tuned:
            early = judge(self.case())
            if not tuned or early.verdict == "DO_NOT_FINE_TUNE":
                return self.finish()
        if tuned:
            rates = self._forecast_and_sweep(tuned)
            if self._g2(tuned, rates):
                return self.finish()
            self._g3_g4(tuned, rates)
        self._g5()
        return self.finish()

    def _g0(self) -> None:
        self.reporter.gate("G0", "data")
        check_slices(self.study, self.session.test)
        questions = self._data_stage()["questions"]
        n = len(self.session.test)
        found = mde_from_discordance(GUESSED_DISCORDANCE, questions)
        asked = f" of {plural(questions, 'question')}" if questions < n else ""
        self.reporter.note(
            f"{len(self.session.train):,} train, {len(self.session.dev):,} dev, "
            f"{plural(n, 'test row')}{asked}; "
            f"this test shows gains from about {found:.1f} points on"
        )
        if self.session.prepared.split.how.get("why"):
            self.reporter.note(self.session.prepared.split.how["why"])
        if found > 100 - self.study.target.minimal_gain:
            self.reporter.warn("the test set is too small to show any gain")

    def _data_stage(self) -> dict[str, Any]:
        date = None if self.study.only_recorded else self.session.keep_date()
        return self.store.stage(
            "data",
            "G0",
            self.session.inputs.data(),
            lambda: audit_stage(self.study, self.session.prepared, self.reporter, date),
        )

    def _g1(self, specs: Sequence[CandidateSpec]) -> None:
        self.reporter.gate("G1", "baselines")
        for spec in specs:
            self._fit_stage(spec)

    def _fit_stage(self, spec: CandidateSpec) -> None:
        """Fit a candidate and score it on dev; what cannot be offered is noted, not fatal."""

        def work() -> dict[str, Any]:
            try:
                fitted = self.fitted(spec)
            except NotOfferedError as reason:
                if self.study.candidates is not None and len(self.study.candidates) == 1:
                    raise
                left_out = f"{spec.name} was left out: {reason.message}"
                named = not spec.is_constant or spec in (self.study.candidates or ())
                told = [left_out] if named else []
                return {"note": reason.message, "chosen": {}, "warnings": told}
            items = self._answers(spec, "dev", self.session.dev, fitted)
            self.store.write_items(spec.name, "dev", items)
            warnings: list[str] = []
            if isinstance(fitted, AnsweredBySeed):
                # Which test rows have an answer, not how good it is: the gaps are told.
                fitted.answer_all_seeds(self.session.test)
                warnings = recorded_gaps(spec.name, fitted.missing, fitted.extra)
            return {"chosen": dict(fitted.chosen()), "note": None, "warnings": warnings}

        depends_on = self.session.inputs.candidate(spec)
        result = self.store.stage(f"fit-{spec.name}", "G1", depends_on, work)
        for text in result.get("warnings", []):
            self.reporter.warn(text)
        items = self.store.items(spec.name, "dev")
        if items:
            self.reporter.note(f"{spec.name}: {mean_score(self.session.scorer, items):.1f} on dev")

    def fitted(self, spec: CandidateSpec, seed: int | None = None) -> Fitted:
        """A candidate with everything chosen; asked again, kept answers make that quick."""
        key = (spec.name, seed)
        if key not in self._fitted:
            tuned = self._tuned_engine(spec, seed) if seed is not None else None
            candidate = build_candidate(spec, context=self.session.context(spec, tuned))
            label = spec.name if seed is None else f"{spec.name}, seed {seed}"
            with self.reporter.task(label) as progress:
                self._fitted[key] = candidate.fit(self.session.train, self.session.dev, progress)
        return self._fitted[key]

    def tuned(self, spec: CandidateSpec, seed: int, folders: Mapping[str, Any]) -> Fitted:
        """A candidate whose model was tuned before, here or elsewhere."""
        self._tuned[spec.name, seed] = folders
        return self.fitted(spec, seed)

    def _answers(
        self,
        spec: CandidateSpec,
        split: str,
        rows: Sequence[Example],
        fitted: Fitted,
        seed: int | None = None,
    ) -> list[Item]:
        if isinstance(fitted, AnsweredBySeed):
            return [
                item
                for recorded_seed, completions in fitted.answer_all_seeds(rows).items()
                for item in scored_items(
                    spec.name, split, rows, completions, self.session.scorer, recorded_seed
                )
            ]
        completions: Sequence[Completion]
        if split == "dev" and fitted.dev_completions is not None:
            completions = fitted.dev_completions
        else:
            with self.reporter.task(f"{spec.name} on {split}") as progress:
                completions = fitted.answer(rows, progress)
        refuse_failures(spec.name, completions)
        return scored_items(spec.name, split, rows, completions, self.session.scorer, seed)

    # --- fine-tuning ------------------------------------------------------------------------

    def _forecast_and_sweep(self, tuned: Sequence[CandidateSpec]) -> dict[str, float]:
        self.reporter.gate("G2", "forecast, learning rate, pilot")
        rates = {}
        for spec in tuned:

            def forecast(spec: CandidateSpec = spec) -> dict[str, Any]:
                tuner = self.session.tuner(spec)
                tuner.check()
                with self.reporter.task("forecast"):
                    found = tuner.forecast()
                return {
                    "seconds": found.seconds,
                    "peak_memory_bytes": found.peak_memory_bytes,
                    "usd": found.usd,
                    "tokens": found.tokens,
                    "steps": found.steps,
                    "basis": found.basis,
                }

            depends_on = self.session.inputs.forecast(
                spec, charged=self.session.capabilities.charges_money
            )
            found = self.store.stage(f"forecast-{spec.name}", "G2", depends_on, forecast)
            self._show_forecast(spec, found)

            def sweep(spec: CandidateSpec = spec) -> dict[str, Any]:
                rate, trials = self.session.tuner(spec).learning_rate()
                return {"learning_rate": rate, "trials": trials}

            depends_on = self.session.inputs.learning(spec)
            chosen = self.store.stage(f"sweep-{spec.name}", "G2", depends_on, sweep)
            rates[spec.name] = float(chosen["learning_rate"])
            if chosen["trials"]:
                self.reporter.note(f"{spec.name}: learning rate {rates[spec.name]:g}")
        return rates

    def _show_forecast(self, spec: CandidateSpec, found: Mapping[str, Any]) -> None:
        runs = len(seeds_of(self.study))
        seconds, memory = found["seconds"], found["peak_memory_bytes"]
        text = f"{spec.name}: {runs} run{'s' if runs != 1 else ''}"
        if seconds is not None:
            text += f" of about {seconds:.0f} s"
        if memory is not None:
            text += f", {memory / 1e6:,.0f} MB of memory"
        if self.session.capabilities.charges_money:
            usd = "an unknown sum" if found["usd"] is None else f"{found['usd']:.2f} US dollars"
            text += f" for {usd} each ({found['basis']})"
        self.reporter.note(text)
        pilots = sum(EFFORTS[self.study.effort].sizes)
        refuse_unaffordable(self.study, found["usd"], self.session.engines.spent_usd, runs + pilots)

    def _g2(self, tuned: Sequence[CandidateSpec], rates: Mapping[str, float]) -> bool:
        """The pilot on parts of the rows; True where its curve is flat and far below."""
        sizes = EFFORTS[self.study.effort].sizes
        flat = []
        for spec in tuned:
            for rows in parts(self.session.tuner(spec).train, sizes) if sizes else ():
                self._pilot(spec, rates[spec.name], rows)
            flat.append(bool(sizes) and self._flat(spec))
        ends = all(flat)
        text = (
            "The pilot's learning curve is flat and below the best baseline, so the full "
            "fine-tune was not run."
        )
        if ends:
            self.reporter.warn(text)
        depends_on = {"ends": ends, "minimal_gain": self.study.target.minimal_gain}
        self.store.stage("pilot", "G2", depends_on, lambda: {"warnings": [text] if ends else []})
        return ends

    def _pilot(self, spec: CandidateSpec, rate: float, rows: Sequence[Example]) -> None:
        name = f"{spec.name}-{len(rows)}"

        def work() -> dict[str, Any]:
            seed = seeds_of(self.study)[0]
            result, run = self.session.tune(spec, rate, seed, rows)
            engine = self.session.tuned_engine(spec, result.adapter, result.model, result.remote)
            fitted = build_candidate(spec, context=self.session.context(spec, engine)).fit(
                self.session.train, self.session.dev
            )
            items = self._answers(spec, "dev", self.session.dev, fitted)
            self.store.write_items(name, "dev", items)
            return {"rows": len(rows), "name": name, "seconds": run.seconds}

        depends_on = self.session.inputs.training(spec, learning_rate=rate, rows=len(rows))
        self.store.stage(f"curve-{name}", "G2", depends_on, work)
        items = self.store.items(name, "dev")
        score = mean_score(self.session.scorer, items)
        self.reporter.note(f"{spec.name}: {score:.1f} on dev after {plural(len(rows), 'row')}")

    def _flat(self, spec: CandidateSpec) -> bool:
        """The largest pilot gains less than M over the smallest (or over the untuned model), and
        stays below the best baseline, both beyond chance."""
        bench, ids = self._bench, [row.id for row in self.session.dev]
        best = champion(bench, self._baseline_arms("dev"))
        points = sorted(
            (r["result"] for r in self.store.stages() if r["stage"].startswith("curve-")),
            key=lambda p: int(p["rows"]),
        )
        names = [p["name"] for p in points if p["name"].startswith(f"{spec.name}-")]
        curve = [load_arm(self.store, spec, "dev", ids, under=name) for name in names]
        untuned = [a for a in self._baseline_arms("dev") if a.spec.traits.plain]
        arms = [*untuned[:1], *(a for a in curve if a is not None)]
        if best is None or len(arms) < 2:
            return False
        rise = bench.compare(arms[-1], arms[0])
        gap = bench.compare(arms[-1], best)
        return rise.high < self.study.target.minimal_gain and gap.high < 0

    @property
    def _bench(self) -> Bench:
        data = self.store.result("data") or {}
        return Bench(self.study, self.session.scorer, data.get("clusters"))

    def _baseline_arms(self, split: str) -> list[Arm]:
        ids = [row.id for row in (self.session.dev if split == "dev" else self.session.test)]
        arms = [
            load_arm(self.store, s, split, ids) for s in self.session.specs if not s.is_fine_tuned
        ]
        return [a for a in arms if a is not None]

    def _g3_g4(self, tuned: Sequence[CandidateSpec], rates: Mapping[str, float]) -> None:
        self.reporter.gate("G3", "full fine-tune")
        first, *more = seeds_of(self.study)
        for spec in tuned:
            self._train_stage(spec, rates[spec.name], first, "G3")
            if EFFORTS[self.study.effort].sizes:
                self._curve_end(spec)
        ids = [row.id for row in self.session.dev]
        arms = [load_arm(self.store, s, "dev", ids) for s in tuned]
        best = champion(self._bench, [a for a in arms if a is not None])
        if more and best is not None:
            self.reporter.gate("G4", "more seeds")
            for seed in more:
                self._train_stage(best.spec, rates[best.name], seed, "G4")

    def _curve_end(self, spec: CandidateSpec) -> None:
        """The full fine-tune is the last point of the learning curve."""
        point = {"rows": len(self.session.train), "name": spec.name}
        depends_on = self.session.inputs.training(spec)
        self.store.stage(f"curve-{spec.name}-all", "G3", depends_on, lambda: point)

    def _train_stage(self, spec: CandidateSpec, rate: float, seed: int, gate: str) -> None:
        def work() -> dict[str, Any]:
            result, run = self.session.tune(spec, rate, seed)
            forecast = self.store.result(f"forecast-{spec.name}") or {}
            memory = forecast.get("peak_memory_bytes")
            run.forecast_seconds = forecast.get("seconds")
            run.forecast_memory_mb = None if memory is None else round(memory / 1e6, 1)
            self._tuned[spec.name, seed] = self.folders(result)
            fitted = self.fitted(spec, seed)
            items = self._answers(spec, "dev", self.session.dev, fitted, seed)
            others = [i for i in self.store.items(spec.name, "dev") if i.seed != seed]
            self.store.write_items(spec.name, "dev", [*others, *items])
            run.dev_score = mean_score(self.session.scorer, items)
            return {
                "run": run.model_dump(mode="json"),
                "chosen": dict(fitted.chosen()),
                "folders": self._tuned[spec.name, seed],
            }

        depends_on = self.session.inputs.training(spec, learning_rate=rate, seed=seed)
        result: Mapping[str, Any] = self.store.stage(
            f"train-{spec.name}-{seed}", gate, depends_on, work
        )
        self._tuned[spec.name, seed] = result["folders"]
        fit = {"chosen": result["chosen"], "note": None}
        self.store.stage(f"fit-{spec.name}", gate, depends_on, lambda: fit)
        self.reporter.note(f"{spec.name}, seed {seed}: {result['run']['dev_score']:.1f} on dev")

    def _tuned_engine(self, spec: CandidateSpec, seed: int) -> Engine:
        folders = self._tuned[spec.name, seed]
        adapter, model = folders["adapter"], folders["model"]
        return self.session.tuned_engine(
            spec,
            Path(adapter) if adapter else None,
            Path(model) if model else None,
            folders.get("remote"),
        )

    # --- the test, once ---------------------------------------------------------------------

    def _g5(self) -> None:
        self.reporter.gate("G5", "test")

        def work() -> dict[str, Any]:
            opened = open_test(self.session)
            for spec in self.session.specs:
                items = self._test_items(spec)
                if items:
                    self.store.write_items(spec.name, "test", items)
            return {"opened": opened, "target": self.study.target.model_dump(mode="json")}

        self.store.stage("test", "G5", self.session.inputs.test(), work)
        self._forgetting()

    def _test_items(self, spec: CandidateSpec) -> list[Item]:
        rows = self.session.test
        seeds = [seed for name, seed in self._tuned if name == spec.name]
        if seeds:
            return [
                item
                for seed in seeds
                for item in self._answers(
                    spec, "test", self.session.test, self.fitted(spec, seed), seed
                )
            ]
        stage = self.store.result(f"fit-{spec.name}")
        if stage is None or stage.get("note"):
            return []
        return self._answers(spec, "test", rows, self.fitted(spec))

    def _forgetting(self) -> None:
        """Measured only where the verdict hangs on it: the other verdicts ship no tuned model."""
        wanted = self.study.forgetting
        if not self._tuned or (wanted.suite is None and wanted.must_pass is None):
            return
        before = judge(self.case())
        winner = before.primary.with_
        if before.verdict != "FINE_TUNE":
            return
        seeds = [seed for name, seed in self._tuned if name == winner]
        if not seeds or winner is None:
            return
        spec = self.session.spec(winner)
        base = spec.model or self.study.model
        assert base is not None
        self.store.stage(
            "forgetting",
            "G5",
            self.session.inputs.forgetting(spec),
            lambda: forgetting.measure(
                self.study,
                self.session.engine(base),
                self._tuned_engine(spec, seeds[0]),
                self.store,
                self.session.scorer,
                self.reporter,
            ),
        )

    def measure_forgetting(self, winner: str, seed: int, folders: Mapping[str, Any]) -> None:
        """What a tuned model lost that was trained elsewhere (of all rows, after folds)."""
        self._tuned[winner, seed] = folders
        self._forgetting()

    @staticmethod
    def folders(result: TrainingResult) -> dict[str, str | None]:
        """Where the tuned model is."""
        return {
            "adapter": str(result.adapter) if result.adapter else None,
            "model": str(result.model) if result.model else None,
            "remote": result.remote,
        }

    def case(self) -> Case:
        """What the verdict is computed from."""
        return Case(
            study=self.study,
            digest=self.session.digest,
            specs=self.session.specs,
            scorer=self.session.scorer,
            store=self.store,
            prices=self.session.prices,
            examples={row.id: row for row in self.session.test if row.messages},
            rows={row.id: row for row in self.session.test},
            places={
                row.id: row.source
                for row in (*self.session.dev, *self.session.test)
                if row.source is not None
            },
            also=self.session.also,
            command=self.session.command,
        )

    def finish(self) -> Verdict:
        """The verdict on what was measured."""
        verdict = judge(self.case())
        if self.session.engines.spent_usd:
            verdict.cost.spent_usd = self.session.engines.spent_usd
        return verdict
