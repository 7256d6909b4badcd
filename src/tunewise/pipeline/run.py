"""What can be done with a study: run it, report it again, plan it (``alone.py`` only trains)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunewise.data.chat import text_of
from tunewise.data.tokens import estimate_tokens
from tunewise.errors import WorkspaceError
from tunewise.models.names import parse_model
from tunewise.pipeline.browsed import browsed_rows
from tunewise.pipeline.costing import request_usd
from tunewise.pipeline.folds import Folds, gates_of
from tunewise.pipeline.gates import Gates
from tunewise.pipeline.reporter import Reporter, SilentReporter
from tunewise.pipeline.session import Session, open_session
from tunewise.pipeline.tuning import seeds_of
from tunewise.report.document import Verdict
from tunewise.report.files import write_report
from tunewise.routes.base import Forecast
from tunewise.study.loading import LoadedStudy
from tunewise.study.schema import CandidateSpec
from tunewise.study.trusted_code import require_trusted
from tunewise.verdict.prices import Usage
from tunewise.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """A finished run: the verdict, and the folder where ``report`` and ``verdict_json`` lie."""

    verdict: Verdict
    folder: Path
    report: Path
    verdict_json: Path


def run_study(
    loaded: LoadedStudy, workspace: Workspace, reporter: Reporter, *, allow_code: bool = False
) -> Outcome:
    """Run a study to its verdict, or to the gate that ends it earlier.

    Args:
        allow_code: the user trusts the code that the study names, as it is now.

    Raises:
        UntrustedCodeError: it names code, and nobody has allowed it.
        TunewiseError: what the user can mend; what was finished is kept.
    """
    require_trusted(loaded.study.fine_tune, allow=allow_code)
    with open_session(loaded, workspace, reporter) as session:
        gates = gates_of(session)
        return _write(gates, gates.run())


def report_study(loaded: LoadedStudy, workspace: Workspace) -> Outcome:
    """Compute the verdict again from what lies on disk; nothing is asked or trained.

    Raises:
        WorkspaceError: this study, as it stands, has not been run.
    """
    with open_session(loaded, workspace, SilentReporter()) as session:
        gates = gates_of(session)
        if gates.session.store.result("data") is None:
            raise WorkspaceError(
                "this study has not been run as it stands now",
                where=str(loaded.path),
                hint=f"Run it first: tunewise run {loaded.path}",
            )
        return _write(gates, gates.finish())


def _write(gates: Gates | Folds, verdict: Verdict) -> Outcome:
    folder = gates.session.folder.root
    paths = write_report(verdict, folder, browsed_rows(gates.case(), verdict))
    return Outcome(verdict, folder, paths.report, paths.verdict)


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
    """A run before anything is spent.

    Attributes:
        rows: of each part; of folds, those of the first, and all rows as test rows.
        mde: the smallest gain that the test can show, in points.
        folds: their number; None for one test. split: why.
    """

    study: str
    rows: dict[str, int]
    mde: float
    candidates: list[PlannedCandidate] = field(default_factory=list)
    max_usd: float | None = None
    folds: int | None = None
    split: str | None = None


def plan_study(
    loaded: LoadedStudy, workspace: Workspace, reporter: Reporter, *, allow_code: bool = False
) -> Plan:
    """What a run would take; loads the data and, for training, calibrates a few seconds.

    Args:
        allow_code: as in :func:`run_study`.

    Raises:
        UntrustedCodeError: the study names code, and nobody has allowed it.
    """
    from tunewise.data.questions import together
    from tunewise.verdict.planning import GUESSED_DISCORDANCE, mde_from_discordance

    require_trusted(loaded.study.fine_tune, allow=allow_code)
    with open_session(loaded, workspace, reporter) as session:
        gates = gates_of(session)
        split, tested, folds = session.prepared.split.how.get("why"), gates.session.test, 1
        if isinstance(gates, Folds):
            folds, session = len(gates.children), gates.children[0].session
        return Plan(
            study=session.study.name,
            rows={"train": len(session.train), "dev": len(session.dev), "test": len(tested)},
            mde=mde_from_discordance(GUESSED_DISCORDANCE, together(tested).questions),
            folds=folds if folds > 1 else None,
            split=split or None,
            candidates=[_planned(session, spec, folds) for spec in session.specs],
            max_usd=session.study.costs.max_usd,
        )


def _planned(session: Session, spec: CandidateSpec, folds: int) -> PlannedCandidate:
    """What a candidate would take, in all folds."""
    traits = spec.traits
    model = spec.model or (session.study.model if traits.needs_model else None)
    if not traits.asks or (traits.needs_model and model is None):
        return PlannedCandidate(spec.name, spec.kind, None, usd=0.0)
    runs = (len(seeds_of(session.study)) if folds == 1 else 1) if traits.trained else 0
    asked = traits.dev_rounds * len(session.dev) + len(session.test)
    requests = asked * max(1, runs)
    each = [sum(estimate_tokens(text_of(m)) for m in row.prompt) for row in session.test]
    shots = 8 * (sum(each) / max(1, len(each))) if traits.shows_examples else 0.0
    prompt_tokens = int((sum(each) / max(1, len(each)) + shots) * requests)
    answers = [estimate_tokens(text_of(row.messages[-1])) for row in session.train if row.messages]
    answer_tokens = int(sum(answers) / max(1, len(answers)) * requests)
    training = None
    if traits.trained and model is not None:
        found = session.tuner(spec).forecast()
        training = {
            "seconds": found.seconds,
            "peak_memory_bytes": found.peak_memory_bytes,
            "usd": training_usd(session, model, found),
            "tokens": found.tokens,
            "steps": found.steps,
            "basis": found.basis,
        }
    requests, prompt_tokens, answer_tokens = (
        folds * count for count in (requests, prompt_tokens, answer_tokens)
    )
    runs *= folds
    usage = Usage(input=prompt_tokens, output=answer_tokens)
    total = _requests_usd(session, spec, model, requests, usage)
    return PlannedCandidate(
        spec.name, spec.kind, model, requests, prompt_tokens, total, training, runs
    )


def _requests_usd(
    session: Session, spec: CandidateSpec, model: str | None, requests: int, usage: Usage
) -> float | None:
    """US dollars of a candidate's requests; None is unknown."""
    if model is not None and parse_model(model, session.study.servers).is_local:
        return 0.0
    if spec.usd_per_1k_requests is not None:
        return spec.usd_per_1k_requests * requests / 1000
    price = session.prices.models.get(model) if session.prices and model else None
    if price is None:
        return None
    each = Usage(
        input=np.asarray(usage.input) / requests, output=np.asarray(usage.output) / requests
    )
    usd = request_usd(price, each)
    return None if usd is None else float(usd) * requests


def training_usd(session: Session, model: str, found: Forecast) -> float | None:
    """US dollars of one training run: what the route charges, or this machine's hours.

    None is unknown: no price file, or none of its prices is for training here.
    """
    if session.capabilities.charges_money:
        return found.usd
    if session.prices is None:
        return None
    return session.prices.training_usd(
        session.study.fine_tune.route, model, found.seconds, found.tokens
    )
