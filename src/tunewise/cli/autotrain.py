"""`tunewise autotrain`: AutoTrain's YAML and its command line, run by our trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewise.cli.options import (
    JsonOption,
    QuietOption,
    SetOption,
    WorkspaceOption,
    reporter_of,
)

if TYPE_CHECKING:
    from tunewise.dialects.autotrain.config import Config

AUTOTRAIN_EXAMPLE = "tunewise autotrain --config config.yml"

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}


def autotrain(
    context: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE|URL", help="AutoTrain's YAML, or its https address."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "--explain", help="Show what becomes of each key; train nothing."
        ),
    ] = False,
    no_push: Annotated[
        bool, typer.Option("--no-push-to-hub", help="Keep the result here, whatever it says.")
    ] = False,
    overrides: SetOption = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run an AutoTrain configuration, or AutoTrain's own verbs and flags.

    Verbs: llm, text-classification, seq2seq and so on, with their flags and --train;
    `tunewise autotrain llm --help` lists them. Each key is told: mapped, defaulted, or without
    meaning here. The result lies in the folder project_name.
    """
    from tunewise.cli.output import put
    from tunewise.cli.show_dialect import show_translation
    from tunewise.cli.show_training import show_training
    from tunewise.dialects.autotrain.translate import translate
    from tunewise.pipeline.project import as_dict, loaded_study, train_project
    from tunewise.workspace import Workspace

    if not {"--help", "-h"}.isdisjoint(context.args):
        put(_help(context))
        return
    found, train = _config(config, context.args, no_push)
    translation = translate(found)
    dry_run = dry_run or not train
    if not json_output and not (quiet and not dry_run):
        show_translation(translation, whole=dry_run, stderr=not dry_run)
    out = Path(str(found.values["project_name"]))
    if dry_run:
        if translation.study is not None and not translation.missing:
            loaded_study(found, translation, overrides or [])
        if json_output:
            put(json.dumps(as_dict(translation, None, out), ensure_ascii=False, indent=2) + "\n")
        elif not train:
            put("Nothing was trained: give --train.\n")
        return
    place, reporter = Workspace(workspace), reporter_of(quiet or json_output)
    tuned = train_project(found, translation, place, reporter, overrides or [])
    if json_output:
        put(json.dumps(as_dict(translation, tuned, out), ensure_ascii=False, indent=2) + "\n")
        return
    show_training(tuned, False)


def _help(context: typer.Context) -> str:
    """Of a verb with its flags; of the command, where none is named."""
    from tunewise.dialects.autotrain.flags import flags_of, task_of

    if context.args[0].startswith("-"):
        return context.get_help() + "\n"
    return flags_of(task_of(context.args[0])).format_help()


def _config(config: str | None, arguments: Sequence[str], no_push: bool) -> tuple[Config, bool]:
    """The configuration that a file or flags give, and whether it is to be trained."""
    from dataclasses import replace

    from tunewise.dialects.autotrain.config import read_config
    from tunewise.dialects.autotrain.flags import parse_flags
    from tunewise.dialects.sources import read_source
    from tunewise.errors import UsageError

    if config is not None:
        if arguments:
            raise UsageError(
                f"{arguments[0]!r} goes without --config",
                hint="A file says all itself; change a key of the study with --set.",
            )
        found, train = read_config(read_source(config, "AutoTrain configuration")), True
    elif arguments:
        understood = parse_flags(arguments)
        found, train = understood.config, understood.train
    else:
        raise UsageError(
            "nothing is named to train",
            where="tunewise autotrain",
            hint=f"A file: {AUTOTRAIN_EXAMPLE}\nOr flags: tunewise autotrain llm --train --model …",
        )
    if no_push:
        found = replace(found, values={**found.values, "push_to_hub": False})
    return found, train
