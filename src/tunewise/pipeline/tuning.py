"""G2 to G4: the pilot, the learning rate, the full fine-tune, more seeds; all judged on dev."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunewise.data.chat import Example, canonical_hash
from tunewise.data.findings import Finding
from tunewise.errors import BudgetError, StudyError, TrainingError
from tunewise.models.raw_form import Form
from tunewise.models.template_date import today
from tunewise.pipeline.following import Follower, wait
from tunewise.pipeline.kept_trainings import bring, forecast_once, trial_folders
from tunewise.pipeline.reporter import Reporter
from tunewise.report.document import TrainingRun
from tunewise.routes.base import Forecast, Route, open_route
from tunewise.study.prices import Prices
from tunewise.study.schema import CandidateSpec, Study
from tunewise.training.job import TrainingJob, TrainingResult, date_of, rows_digest
from tunewise.training.left_out import MOST_TOO_LONG
from tunewise.training.trackers import check_trackers
from tunewise.words import plural, some_of

DEFAULT_EPOCHS = 3.0


@dataclass(frozen=True)
class Effort:
    """What ``effort`` stands for.

    Attributes:
        sizes: parts of the training rows (0..1) tried before the whole, for the learning curve.
        sweep_fraction: of the epochs that each learning rate gets when the study names none.
        seeds: of the full fine-tune; from three on the verdict is about the recipe.
    """

    sizes: tuple[float, ...]
    sweep_fraction: float
    seeds: int


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(sizes=(), sweep_fraction=0.34, seeds=1),
    "standard": Effort(sizes=(0.25,), sweep_fraction=0.34, seeds=3),
    "thorough": Effort(sizes=(0.125, 0.25, 0.5), sweep_fraction=1.0, seeds=5),
}


def seeds_of(study: Study) -> list[int]:
    """The training seeds of a study, the first one first trained."""
    if study.fine_tune.seeds:
        return list(dict.fromkeys(study.fine_tune.seeds))
    return [study.seed + i for i in range(EFFORTS[study.effort].seeds)]


class Tuner:
    """Fine-tunes one candidate by the study's route.

    Args:
        study: says how.
        spec: the candidate.
        train, dev: rows as the tuned model will be asked (see ``training_examples``).
        folder: where training jobs of this study lie; each has its own folder, by content.
        prices: what hosted training costs.
        revision: identifies the weights that training begins with.
        date: of the study, for chat templates that write one; None is today's.
        form: of the text that is trained on.
    """

    def __init__(
        self,
        study: Study,
        spec: CandidateSpec,
        train: Sequence[Example],
        dev: Sequence[Example],
        folder: Path,
        reporter: Reporter,
        prices: Prices | None = None,
        revision: str | None = None,
        date: str | None = None,
        form: Form = "chat",
    ) -> None:
        self.study = study
        self.spec = spec
        self.train = train
        self.dev = dev
        self.folder = folder
        self.reporter = reporter
        self.route: Route = open_route(study.fine_tune.route, servers=study.servers, prices=prices)
        model = spec.model or study.model
        assert model is not None
        self.model = model
        self._revision = revision or model
        self._form = form
        self._date = date or today()
        self.on_this_machine = self.route.capabilities.this_machine
        self._digested: tuple[Sequence[Example], Sequence[Example], str] | None = None

    def job(self, learning_rate: float, seed: int, rows: Sequence[Example]) -> TrainingJob:
        """The job for one run; equal jobs share a folder, so a finished one is found again."""
        fine_tune = self.study.fine_tune
        local_weights = self.route.capabilities.local_weights
        job = TrainingJob(
            model=self.model,
            examples=rows,
            dev=self.dev,
            fine_tune=fine_tune,
            learning_rate=learning_rate,
            epochs=fine_tune.epochs or DEFAULT_EPOCHS,
            seed=seed,
            output=self.folder,
            date=date_of(self.model, None, self._date) if local_weights else None,
            form=self._form,
        )
        digest = self._digest(rows)
        if local_weights:
            identity = job.key_of(digest)
        else:  # what a service reads of the options is known to its route alone
            options = fine_tune.model_dump(
                mode="json", exclude={"learning_rate", "seeds", "epochs", "report_to"}
            )
            identity = canonical_hash(
                [self._revision, options, learning_rate, job.epochs, seed, digest]
            )
        return replace(job, output=self.folder / identity[:16])

    def _digest(self, rows: Sequence[Example]) -> str:
        """SHA-256 of what training reads of the rows; of the same as last time, as it was."""
        known = self._digested
        if known is None or known[0] is not rows or known[1] is not self.dev:
            digest = rows_digest(rows, self.dev, self.study.fine_tune.method)
            known = self._digested = rows, self.dev, digest
        return known[2]

    def check(self, *, asked: bool = True) -> None:
        """Refuse, before anything is spent, what would train on broken labels.

        Args:
            asked: whether the tuned model will be asked afterwards.

        Raises:
            TrainingError: the label audit found an error (the message names rows), too many rows
                are too long, or a tracker of ``report_to`` is not there.
        """
        trackers = self.study.fine_tune.report_to
        if trackers and not self.on_this_machine:
            raise StudyError(
                "trackers follow runs on this machine only",
                where="fine_tune.report_to",
                hint="Leave it out: a hosted service shows its runs itself.",
            )
        check_trackers(trackers)
        findings = self.route.check(self.job(1e-4, seeds_of(self.study)[0], self.train))
        errors = [
            f for f in findings if f.severity == "error" or (asked and f.code == "not_deployed")
        ]
        if errors:
            first = errors[0]
            raise TrainingError(
                f"{first.message} ({plural(first.count, 'row')})",
                where=self._places(first.rows),
                hint=first.fix,
            )
        for finding in findings:
            if finding.code == "too_long":
                self._refuse_too_long(finding)
            if finding.severity == "warning":
                rows = f" ({plural(finding.count, 'row')}: {self._places(finding.rows)})"
                self.reporter.warn(finding.message + (rows if finding.rows else ""))

    def _refuse_too_long(self, finding: Finding) -> None:
        total = len(self.train)
        if finding.count <= MOST_TOO_LONG * total:
            return
        limit = self.study.fine_tune.max_length
        raise TrainingError(
            f"{some_of(finding.count, total, 'row', 'is', 'are')} longer than the limit and would "
            f"not be learnt, more than a tenth: {finding.message}",
            where="data" if limit is None else "fine_tune.max_length",
            hint=f"{finding.fix} Rows that are not to be learnt belong out of the file. "
            f"The first: {self._places(finding.rows)}.",
        )

    def _places(self, ids: Sequence[str], most: int = 3) -> str:
        """Some rows as ``file:line``, since an id may be a hash; by id where lines are shared."""
        shown: dict[str, str | None] = dict.fromkeys(ids[:most])
        for row in self.train:
            if row.id in shown:
                shown[row.id] = row.source
                if all(shown.values()):
                    break
        places = [place or id for id, place in shown.items()]
        if len(set(places)) < len(places):
            places = list(shown)
        return ", ".join(places) + (", …" if len(ids) > most else "")

    def forecast(self) -> Forecast:
        """Time, memory and money of one full run."""
        job = self.job(1e-4, seeds_of(self.study)[0], self.train)
        if not self.on_this_machine:
            return self.route.forecast(job)
        return forecast_once(job, self.folder, lambda: self.route.forecast(job))

    def learning_rates(self) -> list[float]:
        """The learning rates to choose from: those that are given, or the usual ones.

        Where there are no dev rows to choose on, or tries would run elsewhere, the middle one of
        the usual ones stands alone.
        """
        from tunewise.training.sweep import count_parameters, default_learning_rates

        fine_tune = self.study.fine_tune
        given = fine_tune.learning_rate
        if given is not None:
            return [given] if isinstance(given, float) else list(given)
        if not self.route.capabilities.local_weights:
            return [1.0]  # a service has its own, and a factor on it
        parameters = count_parameters(self.model)
        usual = default_learning_rates(parameters, fine_tune.adapter, fine_tune.method)
        return list(usual) if len(self.dev) and self.on_this_machine else [usual[1]]

    def learning_rate(self) -> tuple[float, list[dict[str, Any]]]:
        """The study's learning rate, or the best of several on dev loss, with all tries."""
        from tunewise.training.sweep import choose_learning_rate

        values = self.learning_rates()
        if len(values) == 1:
            return values[0], []
        if not self.on_this_machine:
            raise StudyError(
                "several learning rates can be tried on this machine only",
                where="fine_tune.learning_rate",
                hint="Give one, or leave it out.",
            )
        effort = EFFORTS[self.study.effort]
        job = self.job(values[len(values) // 2], seeds_of(self.study)[0], self.train)
        with self.reporter.task("learning rate") as progress:
            done = 0

            def run(short: TrainingJob) -> TrainingResult:
                from tunewise.training.loop import train

                nonlocal done
                progress(done, len(values))
                result = train(short)
                done += 1
                progress(done, len(values))
                return result

            rate, trials = choose_learning_rate(
                job, values, effort.sweep_fraction, run, trial_folders(self.folder)
            )
        return rate, [t.as_dict() for t in trials]

    def tune(
        self,
        learning_rate: float,
        seed: int,
        rows: Sequence[Example] | None = None,
        *,
        losses: bool = False,
    ) -> tuple[TrainingResult, TrainingRun]:
        """One run to its end.

        Args:
            losses: tell the reporter of them on the way, and measure dev before training too.

        Raises:
            TrainingError: it failed.
        """
        job = self.job(learning_rate, seed, self.train if rows is None else rows)
        job = replace(job, dev_before=losses)
        if self.route.capabilities.local_weights:
            bring(job)
        label = f"{self.spec.name}: {plural(len(job.examples), 'row')}, seed {seed}"
        handle = self.route.submit(job)
        # What an earlier run into the same folder has told is not told again.
        seen = len(handle.events()) if self.on_this_machine else 0
        with self.reporter.task(label) as progress:
            follow = Follower(self.reporter, progress, losses=losses)

            def listen() -> None:
                nonlocal seen
                for event in handle.events(seen):
                    seen += 1
                    follow(event)

            result = wait(handle, listen, pause=self.on_this_machine)
        run = TrainingRun(
            candidate=self.spec.name,
            route=self.study.fine_tune.route,
            method=self.study.fine_tune.method,
            model=self.model,
            seed=seed,
            learning_rate=learning_rate if self.route.capabilities.local_weights else None,
            epochs=result.config.get("epochs", job.epochs),
            steps=result.steps,
            tokens=result.tokens,
            seconds=round(result.seconds, 2),
            peak_memory_mb=round(result.peak_memory_bytes / 1e6, 1)
            if self.on_this_machine
            else None,
            tuned_model=str(result.adapter or result.model or result.remote),
            train_loss=thinned([(i + 1, v) for i, v in enumerate(result.train_loss)]),
            dev_loss=[(s, v) for s, v in result.dev_loss],
            rows=len(job.examples) - sum(result.rows_left_out.values()),
            rows_left_out=dict(result.rows_left_out),
        )
        return result, run


def refuse_unaffordable(study: Study, usd: float | None, spent: float, runs: float) -> None:
    """Refuse training that costs more than ``costs.max_usd`` leaves, or an unknown amount.

    Args:
        usd: of one run on all rows, as forecast; None is unknown.
        spent: by the study so far.
        runs: how many, a run on a part of the rows counted as that part.

    Raises:
        BudgetError, StudyError: with what to do.
    """
    limit = study.costs.max_usd
    if limit is None:
        return
    if usd is None:
        raise StudyError(
            "`costs.max_usd` is set, but what training costs is unknown",
            where="costs.prices",
            hint="Add the model under `training` in the price file, or remove `max_usd`.",
        )
    total = usd * runs
    if total and total + spent > limit:
        raise BudgetError(
            f"fine-tuning would cost about {total:.2f} US dollars, the limit is {limit:.2f}",
            where="costs.max_usd",
            hint="Raise the limit, or lower `effort`.",
        )


def parts(train: Sequence[Example], sizes: Sequence[float]) -> list[list[Example]]:
    """Nested parts of the training rows, drawn by hash of the id: a larger holds the smaller."""
    ranked = sorted(train, key=lambda e: canonical_hash(["part", e.id]))
    return [ranked[: max(1, math.ceil(s * len(train)))] for s in sizes]


def thinned(points: Sequence[tuple[int, float]], most: int = 200) -> list[tuple[int, float]]:
    """At most ``most`` points of a curve, evenly taken, the last one kept."""
    step = max(1, math.ceil(len(points) / most))
    kept = list(points[::step])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
