"""Cross-fitting: each fold of the rows is tested by systems that learnt from the other folds.

A fold goes through the gates as a study of its own, with its own choices on its own dev rows, in
the study's folder (``folds/<n>``). Its test rows then stand in the study's items beside those of
the other folds, and the verdict is computed from them as from one test. The test is opened once,
for all rows, before the first fold's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import Any

from tunewise.data.chat import Example
from tunewise.data.split import Split, split_folds
from tunewise.errors import StudyError
from tunewise.pipeline.askable import askable_stage
from tunewise.pipeline.breakdown import check_slices
from tunewise.pipeline.fold_choice import folds_of
from tunewise.pipeline.gates import Gates
from tunewise.pipeline.ledger import open_test
from tunewise.pipeline.measured import Case
from tunewise.pipeline.prepare import Prepared, audit_stage
from tunewise.pipeline.session import Session
from tunewise.pipeline.store import Item
from tunewise.pipeline.tuning import seeds_of
from tunewise.report.document import Verdict
from tunewise.study.schema import CandidateSpec, SplitSpec
from tunewise.verdict.decision import LEAK_SHARE
from tunewise.words import plural
from tunewise.workspace import StudyFolder


def gates_of(session: Session) -> Gates | Folds:
    """What walks a study to its verdict: one test, or fold by fold."""
    if session.study.only_recorded:
        return Gates(session)
    count, why = folds_of(session.study, session.prepared.split)
    return Gates(session) if count is None else Folds(session, count, why)


class Folds:
    """One study, tested fold by fold.

    Attributes:
        session: over all rows, each of them tested; what reads the verdict reads this one.
        children: over each fold's split.
    """

    def __init__(self, session: Session, count: int, why: str) -> None:
        study, prepared = session.study, session.prepared
        if prepared.split.how.get("method") != "hash":
            raise StudyError(
                "the rows are split already, by their files, their `split` column or their times",
                where="data.split",
                hint="Folds cut rows by hash; leave the setting out.",
            )
        if study.fine_tune.learns_unwanted:
            raise StudyError(
                f"`{study.fine_tune.method}` learns from answers that are not wanted, which stand "
                "in no fold",
                where="data.split",
                hint="Leave the setting out.",
            )
        setting = study.data.split
        share = setting.dev if isinstance(setting, SplitSpec) else None
        split = prepared.split
        rows = [*split.train, *split.dev, *split.test]
        self.splits = split_folds(rows, count, dev_share=share)
        how: dict[str, Any] = {"method": "folds", "folds": count, "why": why}
        if share is not None:
            how["dev"] = share
        tested = tuple(row for fold in self.splits for row in fold.test)
        self.session = session.over(_on(prepared, Split((), (), tested, how)))
        self.children = [self._child(prepared, n, fold) for n, fold in enumerate(self.splits)]
        self.session.specs = self.children[0].session.specs
        for child in self.children:
            child.session.specs = self.session.specs
        self.gates = Gates(self.session)

    def _child(self, prepared: Prepared, number: int, split: Split) -> _Fold:
        session = self.session.over(_on(prepared, split))
        session.folder = StudyFolder(self.session.folder.root / "folds" / str(number + 1))
        return _Fold(session)

    def run(self) -> Verdict:
        """Every fold through its gates, then the verdict on all rows."""
        store, reporter = self.session.store, self.session.reporter
        store.forget_lost()
        reporter.gate("G0", "data")
        check_slices(self.session.study, self.session.test)
        reporter.note(
            f"{plural(len(self.session.test), 'row')}, {len(self.children)} folds. "
            f"{self.session.prepared.split.how['why']}"
        )
        for child in self.children:
            child.audit()
        data = self._data()
        if data["broken"] or data["leaked_share"] >= LEAK_SHARE:
            return self.finish()
        for text in askable_stage(self.session):
            reporter.warn(text)
        opened = open_test(self.session)
        for number, child in enumerate(self.children, start=1):
            reporter.gate("G1", f"fold {number} of {len(self.children)}")
            child.walk(opened)
            self.session.engines.close(tuned_only=True)
        self._gather(opened)
        self._ship()
        return self.finish()

    def finish(self) -> Verdict:
        """The verdict on what was measured."""
        return self.gates.finish()

    def case(self) -> Case:
        """What that verdict is computed from."""
        return self.gates.case()

    # --- the folds' results, as those of one test ---------------------------------------------

    def _data(self) -> dict[str, Any]:
        session = self.session
        date = session.keep_date()

        def work() -> dict[str, Any]:
            found = audit_stage(session.study, session.prepared, session.reporter, date)
            parts = [child.store.result("data") or {} for child in self.children]
            clusters = found["clusters"]
            dev = [f"{id_}@{n}" for n, part in enumerate(parts) for id_ in part["dev_ids"]]
            leaked = sum(part["leaked_share"] * len(part["test_ids"]) for part in parts)
            # A row may be among the dev rows of several folds: it is one row still.
            own = {key: key.rpartition("@")[0] for key in dev}
            if clusters is not None or len(set(own.values())) < len(dev):
                known = clusters or {}
                clusters = {**known, **{key: known.get(id_, id_) for key, id_ in own.items()}}
            return found | {
                "rows": {
                    "train": round(fmean(len(fold.train) for fold in self.splits)),
                    "dev": round(fmean(len(fold.dev) for fold in self.splits)),
                    "test": len(found["test_ids"]),
                },
                "dev_ids": dev,
                "clusters": clusters,
                "folds": {i: n for n, part in enumerate(parts) for i in part["test_ids"]},
                "flagged": sorted({i for part in parts for i in part["flagged"]}),
                "leaked_share": leaked / max(1, len(found["test_ids"])),
                "broken": list(dict.fromkeys(b for part in parts for b in part["broken"])),
            }

        return session.store.stage("data", "G0", session.inputs.data(), work)

    def _gather(self, opened: int) -> None:
        """The folds' answers into the study's own stages."""
        session, store = self.session, self.session.store
        for spec in session.specs:
            self._gather_candidate(spec)
        target = session.study.target.model_dump(mode="json")
        result = {"opened": opened, "target": target}
        store.stage("test", "G5", [session.inputs.test(), *self._keys("test")], lambda: result)

    def _gather_candidate(self, spec: CandidateSpec) -> None:
        store = self.session.store
        fits = [child.store.result(f"fit-{spec.name}") or {} for child in self.children]
        notes = [fit["note"] for fit in fits if fit.get("note")]
        whole = not notes and all(child.store.items(spec.name, "test") for child in self.children)

        def work() -> dict[str, Any]:
            if whole:
                for split in ("dev", "test"):
                    store.write_items(spec.name, split, self._items(spec, split))
            chosen = [dict(fit.get("chosen", {})) for fit in fits]
            left = [f"{spec.name} was left out: {notes[0]}"] if notes else []
            return {
                "chosen": {"folds": chosen} if any(chosen) else {},
                "note": notes[0] if notes else None,
                "warnings": left,
            }

        gate = "G3" if spec.traits.trained else "G1"
        keys = self._keys(f"fit-{spec.name}", "test")
        store.stage(f"fit-{spec.name}", gate, keys, work)
        seed = seeds_of(self.session.study)[0]
        name = f"train-{spec.name}-{seed}"
        for number, child in enumerate(self.children, start=1):
            trained = child.store.result(name)
            if trained is None:
                continue
            # It is no model to ship: a part of the rows was kept from it.
            run = trained["run"] | {"fold": number, "tuned_model": None}
            depends_on = [number, *self._keys(name)]
            store.stage(f"{name}-fold-{number}", gate, depends_on, partial(dict, run=run))

    def _items(self, spec: CandidateSpec, split: str) -> list[Item]:
        """The folds' items; dev rows are told apart by their fold."""
        return [
            replace(item, id=f"{item.id}@{n}") if split == "dev" else item
            for n, child in enumerate(self.children)
            for item in child.store.items(spec.name, split)
        ]

    def _keys(self, *stages: str) -> list[Any]:
        """What identifies the folds' own results."""
        return [child.store.key(stage) for child in self.children for stage in stages]

    def of_all_rows(self) -> Session:
        """What learns from all rows: the model to ship, whose test the folds have been."""
        rows = tuple(replace(row, split="train") for row in self.session.test)
        whole = self.session.over(_on(self.session.prepared, Split(rows, (), (), {})))
        whole.specs = self.session.specs
        return whole

    # --- the model to ship --------------------------------------------------------------------

    def _ship(self) -> None:
        """Where fine-tuning pays: one model that learnt from all rows, and what it forgot."""
        verdict = self.finish()
        winner = verdict.primary.with_
        if verdict.verdict != "FINE_TUNE" or winner is None:
            return
        spec = self.session.spec(winner)
        if not spec.traits.trained:
            return
        seed = seeds_of(self.session.study)[0]
        self.session.reporter.gate("G4", "the model to ship, from all rows")
        runs = [run for run in verdict.training if run.candidate == winner and run.fold]
        rates = [run.learning_rate for run in runs if run.learning_rate is not None]
        rate = float(median(rates)) if rates else 1.0
        whole = self.of_all_rows()
        gates = Gates(whole)

        def work() -> dict[str, Any]:
            result, run = whole.tune(spec, rate, seed)
            return {"run": run.model_dump(mode="json"), "folders": gates.folders(result)}

        name = f"train-{winner}-{seed}"
        depends_on = self.session.inputs.training(spec, learning_rate=rate, seed=seed, all=True)
        done = self.session.store.stage(name, "G4", depends_on, work)
        self.gates.measure_forgetting(winner, seed, done["folders"])


class _Fold(Gates):
    """A fold: as a study, but nothing ends early, and the test is opened by the whole."""

    def audit(self) -> None:
        self.store.forget_lost()
        self._data_stage()

    def walk(self, opened: int) -> None:
        tuned = [spec for spec in self.session.specs if spec.traits.trained]
        for spec in self.session.specs:
            if spec not in tuned:
                self._fit_stage(spec)
        seed = seeds_of(self.study)[0]
        rates = self._forecast_and_sweep(tuned) if tuned else {}
        for spec in tuned:
            self._train_stage(spec, rates[spec.name], seed, "G3")

        def work() -> dict[str, Any]:
            for spec in self.session.specs:
                items: Sequence[Item] = self._test_items(spec)
                if items:
                    self.store.write_items(spec.name, "test", items)
            return {"opened": opened}

        self.store.stage("test", "G5", self.session.inputs.test(), work)


def _on(prepared: Prepared, split: Split) -> Prepared:
    """The same rows otherwise split; answers that are not wanted are in no fold."""

    def wanted(rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(row for row in rows if row.desirable is not False)

    parts = replace(
        split, train=wanted(split.train), dev=wanted(split.dev), test=wanted(split.test)
    )
    return replace(prepared, split=parts, unwanted=())
