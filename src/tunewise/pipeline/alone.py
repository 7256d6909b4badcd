"""A fine-tune alone: no baselines, no test, no verdict. Trained, explained or forecast."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.data.chat import Example, text_of
from tunewise.errors import StudyError, WorkspaceError
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.run import training_usd
from tunewise.pipeline.session import Session, open_session
from tunewise.pipeline.tuning import EFFORTS, Tuner, refuse_unaffordable, seeds_of
from tunewise.report.document import TrainingRun
from tunewise.routes.base import Forecast
from tunewise.study.loading import LoadedStudy
from tunewise.study.schema import CandidateSpec
from tunewise.study.trusted_code import require_trusted
from tunewise.words import plural, verb
from tunewise.workspace import Workspace

if TYPE_CHECKING:
    from tunewise.training.explain import Setting


@dataclass(frozen=True)
class Tuned:
    """A fine-tune alone.

    Attributes:
        run: what was trained.
        rows: how many were learnt from (train), looked at (dev) and held out (test).
        dev: where the dev rows come from, in a few words.
        adapter: its folder, or None where the result is a whole model or lies with a provider.
        tried: learning rates with their dev losses (see ``Trial.as_dict``); empty where one was
            given.
        left_out: rows that were not learnt from, by reason.
        folder: where the run's events lie; None with a provider.
        dev_loss_before: of the model that training began with; None without dev.
        figures: of the method, at the last look at dev or, without dev, in the last step; and
            what was counted.
        instructions: the system message of the rows, where all have the same.
    """

    run: TrainingRun
    rows: Mapping[str, int]
    dev: str
    adapter: Path | None
    tried: Sequence[Mapping[str, Any]] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    folder: Path | None = None
    dev_loss_before: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    instructions: str | None = None


def train_study(
    loaded: LoadedStudy,
    workspace: Workspace,
    reporter: Reporter,
    out: Path | None = None,
    *,
    with_dev: bool = True,
    allow_code: bool = False,
) -> Tuned:
    """Fine-tune the study's first fine-tuned candidate with its first seed; nothing else.

    All rows are learnt from but those for dev; where the study splits its rows itself
    (``data.examples``) or names a test, the test rows stay out, so that a verdict can follow.

    Args:
        out: a folder for a copy of the weights.
        with_dev: False learns from the dev rows too.
        allow_code: the user trusts the code that the study names, as it is now.

    Raises:
        StudyError: ``out`` exists or cannot be made, or the study cannot be meant so.
        UntrustedCodeError: the study names code, and nobody has allowed it.
        TrainingError: training cannot start or failed.
        WorkspaceError: the weights cannot be copied to ``out``.
    """
    require_trusted(loaded.study.fine_tune, allow=allow_code)
    with open_session(loaded, workspace, reporter) as session:
        if out is not None:
            _check_out(out, given_back=session.capabilities.local_weights)
        tuner, rows, dev = _alone(session, with_dev=with_dev)
        reporter.note(_rows_note(rows, dev))
        with reporter.task("looking at rows and model"):
            tuner.check(asked=False)
        if session.capabilities.charges_money:
            refuse_unaffordable(session.study, tuner.forecast().usd, 0.0, 1)
        session.keep_date()
        rate, tried = tuner.learning_rate()
        result, run = tuner.tune(rate, seeds_of(session.study)[0], losses=True)
        weights = result.adapter or result.model
        folder = None if weights is None else weights.parent
        adapter = result.adapter
        if out is not None:
            assert weights is not None
            _copy(weights, out)
            run.tuned_model = str(out)
            adapter = out if adapter is not None else None
        if not result.trained_tokens and session.study.fine_tune.method == "grpo":
            reporter.warn(
                "nothing was learnt: all answers to each prompt had the same reward. Take a "
                "reward that tells them apart, or more `fine_tune.grpo.samples`"
            )
        instructions = _instructions(tuner.train)
        figures = _figures(result.metrics)
        before = result.metrics.get("dev_loss_before")
        return Tuned(
            run,
            rows,
            dev,
            adapter,
            tried,
            result.rows_left_out,
            folder,
            before,
            figures,
            instructions,
        )


def _check_out(out: Path, *, given_back: bool) -> None:
    """Refuse before anything is trained what could not be copied afterwards."""
    if not given_back:
        raise StudyError(
            "the weights of a hosted fine-tune stay with the provider",
            where="fine_tune.route",
            hint="Leave --out away; the tuned model is used by its name.",
        )
    if out.exists():
        raise StudyError("the folder exists already", where=str(out), hint="Name another.")
    try:
        out.mkdir(parents=True)
        out.rmdir()
    except OSError as error:
        raise StudyError(
            f"no folder can be made here: {error.strerror}",
            where=str(out),
            hint="Name another place with --out.",
        ) from error


def _copy(weights: Path, out: Path) -> None:
    """The whole folder, or nothing.

    Raises:
        WorkspaceError: it cannot be written; says where the weights lie.
    """
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(weights, beside)
        beside.rename(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise WorkspaceError(
            f"the tuned weights could not be copied: {error.strerror or 'the disk may be full'}",
            where=str(out),
            hint=f"The training is done; they lie in {weights}",
        ) from error


def _figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of dev, or of the last step where there was no dev; counts stand in any case."""
    hidden = "train_" if any(name.startswith("valid_") for name in metrics) else "valid_"
    return {
        name.removeprefix("train_").removeprefix("valid_"): value
        for name, value in metrics.items()
        if not name.startswith(hidden) and name != "dev_loss_before"
    }


def _instructions(rows: Sequence[Example]) -> str | None:
    """The system message that the first rows share."""
    found = {
        text_of(m[0]) if (m := rows[i].messages) and m[0].get("role") == "system" else None
        for i in range(min(len(rows), 100))
    }
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class PlannedTraining:
    """A fine-tune alone before it is spent.

    Attributes:
        forecast: of one run on all rows.
        usd: of that run; None is unknown.
        tries: learning rates that are tried first; 0 where one is given.
        tries_seconds: that they take together.
        rows: as of ``Tuned``.
    """

    forecast: Forecast
    usd: float | None
    tries: int
    tries_seconds: float | None
    rows: Mapping[str, int]


def forecast_training(
    loaded: LoadedStudy,
    workspace: Workspace,
    reporter: Reporter,
    *,
    with_dev: bool = True,
    allow_code: bool = False,
) -> PlannedTraining:
    """What ``train_study`` would take: a few steps are measured and their weights thrown away.

    Args:
        with_dev, allow_code: as of ``train_study``.

    Raises:
        TunewiseError: what would stop the run before its first step.
    """
    require_trusted(loaded.study.fine_tune, allow=allow_code)
    with open_session(loaded, workspace, reporter) as session:
        tuner, rows, dev = _alone(session, with_dev=with_dev)
        reporter.note(_rows_note(rows, dev))
        with reporter.task("looking at rows and model"):
            tuner.check(asked=False)
        with reporter.task("forecast"):
            found = tuner.forecast()
        rates = tuner.learning_rates()
        tries = len(rates) if len(rates) > 1 else 0
        share = tries * EFFORTS[session.study.effort].sweep_fraction
        seconds = None if found.seconds is None else share * found.seconds
        usd = training_usd(session, tuner.model, found)
        return PlannedTraining(found, usd, tries, seconds, rows)


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
        StudyError: the route does not train on this machine, and chooses by itself.
        TrainingError, DataError, ModelError: what would stop the run before its first step.
    """
    from tunewise.training.explain import setting, settings_of

    with open_session(loaded, workspace, reporter) as session:
        study = session.study
        if not session.capabilities.this_machine:
            raise StudyError(
                "a service chooses what the study leaves open, and does not say why",
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
        (s for s in study.candidates or () if s.traits.trained),
        CandidateSpec(name="fine_tuned", kind="fine_tuned"),
    )
    session.check_tunable(spec)
    data, only_texts = study.data, study.fine_tune.method == "pretrain"
    splits_itself = data.examples is not None or (data.test is not None and data.dev is None)
    named = data.train is not None or (only_texts and data.documents is not None)
    if splits_itself or not named or not spec.traits.plain:
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
    text = f"{plural(rows['train'], 'row')} to learn from, {rows['dev']:,} for dev ({dev})"
    if rows["test"]:
        stay = verb(rows["test"], "stays", "stay")
        text += f"; {plural(rows['test'], 'test row')} {stay} out, so that a later verdict holds"
    return text
