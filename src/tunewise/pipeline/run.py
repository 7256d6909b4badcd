"""What can be done with a study: run it, report it again, plan it, only train it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.data.chat import text_of
from tunewise.data.tokens import estimate_tokens
from tunewise.errors import ModelError, StudyError, TrainingError, WorkspaceError
from tunewise.models.names import parse_model
from tunewise.pipeline.gates import Gates
from tunewise.pipeline.reporter import Reporter, SilentReporter
from tunewise.pipeline.session import Session
from tunewise.pipeline.tuning import EFFORTS, Tuner, refuse_unaffordable, seeds_of
from tunewise.report.document import TrainingRun, Verdict
from tunewise.report.files import write_report
from tunewise.routes.base import Forecast
from tunewise.study.loading import LoadedStudy
from tunewise.study.schema import CandidateSpec
from tunewise.workspace import Workspace

if TYPE_CHECKING:
    from tunewise.training.explain import Setting


@dataclass(frozen=True)
class Outcome:
    """A finished run: the verdict, and the folder where ``report`` and ``verdict_json`` lie."""

    verdict: Verdict
    folder: Path
    report: Path
    verdict_json: Path


@contextmanager
def _session(loaded: LoadedStudy, workspace: Workspace, reporter: Reporter) -> Iterator[Session]:
    try:
        with workspace.lock(loaded.study.name):
            session = Session(loaded, workspace, reporter)
            try:
                yield session
            finally:
                session.close()
    except StudyError as error:
        raise loaded.located(error) from error
    except TrainingError as error:
        if error.where is not None and error.where.startswith("fine_tune."):
            error.where = loaded.located(StudyError(error.message, where=error.where)).where
        raise
    except ModelError as error:
        if error.where is None or error.where != loaded.study.model:
            raise
        where = f"{loaded.places.where(('model',))}: {error.where}"
        raise ModelError(error.message, where=where, hint=error.hint) from error


def run_study(loaded: LoadedStudy, workspace: Workspace, reporter: Reporter) -> Outcome:
    """Run a study to its verdict, or to the gate that ends it earlier.

    Raises:
        TunewiseError: what the user can mend; what was finished is kept.
    """
    with _session(loaded, workspace, reporter) as session:
        return _write(session, Gates(session).run())


def report_study(loaded: LoadedStudy, workspace: Workspace) -> Outcome:
    """Compute the verdict again from what lies on disk; nothing is asked or trained.

    Raises:
        WorkspaceError: this study, as it stands, has not been run.
    """
    with _session(loaded, workspace, SilentReporter()) as session:
        if session.store.result("data") is None:
            raise WorkspaceError(
                "this study has not been run as it stands now",
                where=str(loaded.path),
                hint=f"Run it first: tunewise run {loaded.path}",
            )
        return _write(session, Gates(session).finish())


def _write(session: Session, verdict: Verdict) -> Outcome:
    paths = write_report(verdict, session.folder.root)
    return Outcome(verdict, session.folder.root, paths.report, paths.verdict)


@dataclass(frozen=True)
class PlannedCandidate:
    """What one candidate would take.

    Attributes:
        requests: to the model, at most: dev choices and test.
        prompt_tokens: of all of them, estimated from the rows; None where none are sent.
        usd: of the requests; None where no price is known, 0 on this machine.
        training: seconds, peak_memory_bytes, usd, tokens, steps of one training run.
        runs: training runs with the full data.
    """

    name: str
    kind: str
    model: str | None
    requests: int = 0
    prompt_tokens: int | None = None
    usd: float | None = None
    training: dict[str, Any] | None = None
    runs: int = 0


@dataclass(frozen=True)
class Plan:
    """A run before anything is spent."""

    study: str
    rows: dict[str, int]
    mde: float
    candidates: list[PlannedCandidate] = field(default_factory=list)
    max_usd: float | None = None


def plan_study(loaded: LoadedStudy, workspace: Workspace, reporter: Reporter) -> Plan:
    """What a run would take; loads the data and, for training, calibrates a few seconds."""
    from tunewise.pipeline.judge import GUESSED_DISCORDANCE
    from tunewise.verdict.planning import mde_from_discordance

    with _session(loaded, workspace, reporter) as session:
        rows = {
            "train": len(session.train),
            "dev": len(session.dev),
            "test": len(session.test),
        }
        return Plan(
            study=session.study.name,
            rows=rows,
            mde=mde_from_discordance(GUESSED_DISCORDANCE, rows["test"]),
            candidates=[_planned(session, spec) for spec in session.specs],
            max_usd=session.study.costs.max_usd,
        )


# Settings that a candidate may try on dev, at most (see its `chosen` table for what it did).
_DEV_ROUNDS = {"zero_shot": 2, "few_shot": 8, "rag": 3, "fine_tuned": 1, "fine_tuned+rag": 1}


def _planned(session: Session, spec: CandidateSpec) -> PlannedCandidate:
    model = spec.model or session.study.model
    if spec.kind in ("classifier", "recorded") or model is None:
        return PlannedCandidate(spec.name, spec.kind, None, usd=0.0)
    runs = len(seeds_of(session.study)) if spec.is_fine_tuned else 0
    asked = _DEV_ROUNDS.get(spec.kind, 1) * len(session.dev) + len(session.test)
    requests = asked * max(1, runs)
    each = [sum(estimate_tokens(text_of(m)) for m in row.prompt) for row in session.test]
    shots = 8 * (sum(each) / max(1, len(each))) if spec.kind == "few_shot" else 0.0
    prompt_tokens = int((sum(each) / max(1, len(each)) + shots) * requests)
    training = None
    if spec.is_fine_tuned:
        found = session.tuner(spec).forecast()
        training = {
            "seconds": found.seconds,
            "peak_memory_bytes": found.peak_memory_bytes,
            "usd": _training_usd(session, model, found),
            "tokens": found.tokens,
            "steps": found.steps,
            "basis": found.basis,
        }
    usd = 0.0 if parse_model(model, session.study.servers).is_local else _usd(session, model)
    total = None if usd is None else usd * prompt_tokens
    return PlannedCandidate(
        spec.name, spec.kind, model, requests, prompt_tokens, total, training, runs
    )


def _training_usd(session: Session, model: str, found: Forecast) -> float | None:
    """US dollars of one training run: what the route charges, or this machine's hours.

    None is unknown: no price file, or none of its prices is for training here.
    """
    route = session.study.fine_tune.route
    if route != "local":
        return found.usd
    if session.prices is None:
        return None
    return session.prices.training_usd(route, model, found.seconds, found.tokens)


def _usd(session: Session, model: str) -> float | None:
    """US dollars of one prompt token, or None."""
    price = session.prices.models.get(model) if session.prices else None
    return None if price is None or price.input is None else price.input / 1e6


@dataclass(frozen=True)
class Tuned:
    """A fine-tune alone.

    Attributes:
        run: what was trained.
        rows: how many were learnt from (train), looked at (dev) and held out (test).
        dev: where the dev rows come from, in a few words.
        adapter: its folder, or None where the result is a whole model or lies with a provider.
    """

    run: TrainingRun
    rows: Mapping[str, int]
    dev: str
    adapter: Path | None


def train_study(
    loaded: LoadedStudy,
    workspace: Workspace,
    reporter: Reporter,
    out: Path | None = None,
    *,
    with_dev: bool = True,
) -> Tuned:
    """Fine-tune the study's first fine-tuned candidate with its first seed; nothing else.

    All rows are learnt from but those for dev; where the study splits its rows itself
    (``data.examples``) or names a test, the test rows stay out, so that a verdict can follow.

    Args:
        out: a folder for a copy of the weights.
        with_dev: False learns from the dev rows too.

    Raises:
        StudyError: ``out`` exists, or the study cannot be meant so.
        TrainingError: training cannot start or failed.
    """
    with _session(loaded, workspace, reporter) as session:
        if out is not None and out.exists():
            raise StudyError("the folder exists already", where=str(out), hint="Name another.")
        if out is not None and session.hosted:
            raise StudyError(
                "the weights of a hosted fine-tune stay with the provider",
                where="fine_tune.route",
                hint="Leave --out away; the tuned model is used by its name.",
            )
        tuner, rows, dev = _alone(session, with_dev=with_dev)
        reporter.note(_rows_note(rows, dev))
        tuner.check(asked=False)
        if session.hosted:
            refuse_unaffordable(session.study, tuner.forecast().usd, 0.0, 1)
        rate, _ = tuner.learning_rate()
        result, run = tuner.tune(rate, seeds_of(session.study)[0])
        adapter = result.adapter
        if out is not None:
            source = result.adapter or result.model
            assert source is not None
            shutil.copytree(source, out)
            run.tuned_model = str(out)
            adapter = out if adapter is not None else None
        return Tuned(run, rows, dev, adapter)


def explain_study(
    loaded: LoadedStudy,
    workspace: Workspace,
    reporter: Reporter,
    *,
    with_dev: bool = True,
    alone: bool = True,
) -> list[Setting]:
    """What ``train_study`` would use, each default with its reason; nothing is trained.

    The rows are encoded and the model is loaded, so that the values are those of the run itself.

    Args:
        with_dev: as of ``train_study``.
        alone: False tells the seeds of a whole study; a fine-tune alone takes the first.

    Raises:
        StudyError: the route is a hosted service, which chooses by itself.
        TrainingError, DataError, ModelError: what would stop the run before its first step.
    """
    from tunewise.training.explain import setting, settings_of

    with _session(loaded, workspace, reporter) as session:
        study = session.study
        if session.hosted:
            raise StudyError(
                "a hosted service chooses what the study leaves open, and does not say why",
                where="fine_tune.route",
                hint="--explain is for runs on this machine (`fine_tune.route: local`).",
            )
        tuner, rows, dev = _alone(session, with_dev=with_dev)
        reporter.note(_rows_note(rows, dev))
        rates, seeds = tuner.learning_rates(), seeds_of(study)
        job = tuner.job(rates[len(rates) // 2], seeds[0], tuner.train)
        with reporter.task("looking at rows and model"):
            found = settings_of(job)
        first = [setting("learning_rate", rates if len(rates) > 1 else rates[0], study.fine_tune)]
        if len(rates) > 1:
            share = EFFORTS[study.effort].sweep_fraction
            first.append(setting("sweep", share, study.fine_tune))
        why = "one run, with the first; `tunewise run` takes more" if len(seeds) > 1 else None
        first += [
            setting("epochs", job.epochs, study.fine_tune),
            setting("seeds", seeds[:1], study.fine_tune, why)
            if alone
            else setting("seeds", seeds, study.fine_tune),
        ]
        return [*first, *found]


def _alone(session: Session, *, with_dev: bool) -> tuple[Tuner, dict[str, int], str]:
    """What fine-tunes without a verdict; the number of its rows by split, and where dev is from."""
    study = session.study
    spec = next(
        (s for s in study.candidates or () if s.is_fine_tuned and s.kind != "recorded"),
        CandidateSpec(name="fine_tuned", kind="fine_tuned"),
    )
    session.check_tunable(spec)
    data, only_texts = study.data, study.fine_tune.method == "pretrain"
    splits_itself = data.examples is not None or (data.test is not None and data.dev is None)
    named = data.train is not None or (only_texts and data.documents is not None)
    if splits_itself or not named or spec.kind != "fine_tuned":
        tuner = session.tuner(spec)
        how, held_out = "as the study splits", len(session.test)
        if not with_dev:
            tuner.train, tuner.dev, how = [*tuner.train, *tuner.dev], (), "none"
    else:
        from tunewise.pipeline.training_rows import read_training_rows

        folder = session.training_folder
        found = read_training_rows(study, spec, folder, session.reporter, with_dev=with_dev)
        tuner = session.tuner_of(spec, found.train, found.dev)
        how, held_out = found.how, found.held_out
    return tuner, {"train": len(tuner.train), "dev": len(tuner.dev), "test": held_out}, how


def _rows_note(rows: Mapping[str, int], dev: str) -> str:
    text = f"{rows['train']:,} rows to learn from, {rows['dev']:,} for dev ({dev})"
    if rows["test"]:
        text += f"; {rows['test']:,} test rows stay out, so that a later verdict holds"
    return text
