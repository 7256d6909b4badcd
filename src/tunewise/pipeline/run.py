"""What can be done with a study: run it, report it again, plan it, only train it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewise.data.chat import text_of
from tunewise.data.tokens import estimate_tokens
from tunewise.errors import ModelError, StudyError, WorkspaceError
from tunewise.models.names import parse_model
from tunewise.pipeline.gates import Gates
from tunewise.pipeline.reporter import Reporter, SilentReporter
from tunewise.pipeline.session import Session
from tunewise.pipeline.tuning import refuse_unaffordable, seeds_of
from tunewise.report.document import TrainingRun, Verdict
from tunewise.report.files import write_report
from tunewise.study.loading import LoadedStudy
from tunewise.study.schema import CandidateSpec
from tunewise.workspace import Workspace


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
            "usd": found.usd,
            "tokens": found.tokens,
            "steps": found.steps,
            "basis": found.basis,
        }
    usd = 0.0 if parse_model(model, session.study.servers).is_local else _usd(session, model)
    total = None if usd is None else usd * prompt_tokens
    return PlannedCandidate(
        spec.name, spec.kind, model, requests, prompt_tokens, total, training, runs
    )


def _usd(session: Session, model: str) -> float | None:
    """US dollars of one prompt token, or None."""
    price = session.prices.models.get(model) if session.prices else None
    return None if price is None or price.input is None else price.input / 1e6


def train_study(
    loaded: LoadedStudy, workspace: Workspace, reporter: Reporter, out: Path | None = None
) -> list[TrainingRun]:
    """Fine-tune the study's first fine-tuned candidate with its first seed; nothing else.

    Raises:
        StudyError: the study has no fine-tuned candidate, or ``out`` exists.
        TrainingError: training cannot start or failed.
    """
    with _session(loaded, workspace, reporter) as session:
        spec = next(
            (s for s in session.specs if s.is_fine_tuned and s.kind != "recorded"),
            CandidateSpec(name="fine_tuned", kind="fine_tuned"),
        )
        if out is not None and out.exists():
            raise StudyError("the folder exists already", where=str(out), hint="Name another.")
        if out is not None and session.hosted:
            raise StudyError(
                "the weights of a hosted fine-tune stay with the provider",
                where="fine_tune.route",
                hint="Leave --out away; the tuned model is used by its name.",
            )
        tuner = session.tuner(spec)
        tuner.check(asked=False)
        if session.hosted:
            refuse_unaffordable(session.study, tuner.forecast().usd, 0.0, 1)
        rate, _ = tuner.learning_rate()
        result, run = tuner.tune(rate, seeds_of(session.study)[0])
        if out is not None:
            source = result.adapter or result.model
            assert source is not None
            shutil.copytree(source, out)
            run.tuned_model = str(out)
        return [run]
