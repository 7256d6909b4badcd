"""`tunewise train`: from a study file, or from a data file and flags alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tunewise.cli.options import (
    AllowCodeOption,
    ColumnsOption,
    EncodingOption,
    JsonOption,
    QuietOption,
    SetOption,
    WorkspaceOption,
    columns_of,
    reporter_of,
)

TRAIN_EXAMPLE = "tunewise train rows.jsonl --model tunewise/tiny --epochs 2 --out tuned"

_NO_DEV = "none"


def train(
    source: Annotated[
        str,
        typer.Argument(help="A study file (YAML), or a file with rows.", metavar="STUDY|ROWS"),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="What is tuned: a hub id, a folder, …")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="sft, distill, pretrain, dpo, orpo, kto, reward or grpo. [default: sft]",
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", help="lora, qlora, or full: all weights. [default: lora]"),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the rows. [default: 3]")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="[default: three are tried, dev chooses]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Rows of an optimiser step. [default: 4–16]")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", help="Longest row in tokens. [default: the context]"),
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(
            "--dev", metavar="ROWS", help="Rows to choose on, or none. [default: a tenth]"
        ),
    ] = None,
    columns: ColumnsOption = None,
    encoding: EncodingOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the training. [default: 0]")
    ] = None,
    report_to: Annotated[
        list[str] | None,
        typer.Option("--report-to", help="tensorboard, mlflow, wandb, trackio; may come again."),
    ] = None,
    overrides: SetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Copy the tuned weights to this folder.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show all that would be used, with reasons; train nothing."),
    ] = False,
    forecast: Annotated[
        bool,
        typer.Option("--forecast", help="Show time, memory and money; train nothing."),
    ] = False,
    allow_code: AllowCodeOption = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fine-tune only: no baselines, no test, no verdict.

    A stopped run goes on where it was.
    """
    from tunewise.cli.show_training import show_planned, show_settings, show_training
    from tunewise.pipeline.alone import explain_study, forecast_training, train_study
    from tunewise.pipeline.quick import training_study
    from tunewise.workspace import Workspace

    if explain and forecast:
        raise typer.BadParameter("goes without --forecast", param_hint="--explain")

    mapped = columns_of(columns)
    with_dev = dev is None or dev.casefold() != _NO_DEV
    given: dict[str, tuple[str, Any]] = {
        "--model": ("model", model),
        "--method": ("fine_tune.method", method),
        "--adapter": ("fine_tune.adapter", adapter),
        "--epochs": ("fine_tune.epochs", epochs),
        "--learning-rate": ("fine_tune.learning_rate", learning_rate),
        "--batch-size": ("fine_tune.batch_size", batch_size),
        "--max-length": ("fine_tune.max_length", max_length),
        "--dev": ("data.dev", dev if with_dev else None),
        "--columns": ("data.columns", mapped and mapped.model_dump(exclude_none=True)),
        "--encoding": ("data.encoding", encoding),
        "--seed": ("fine_tune.seeds", None if seed is None else [seed]),
        "--report-to": ("fine_tune.report_to", report_to or None),
    }
    flags = {name: pair for name, pair in given.items() if pair[1] is not None}
    loaded = training_study(source, flags, overrides or [])
    place, reporter = Workspace(workspace), reporter_of(quiet or json_output)
    if explain:
        show_settings(explain_study(loaded, place, reporter, with_dev=with_dev), json_output)
        return
    if forecast:
        planned = forecast_training(
            loaded, place, reporter, with_dev=with_dev, allow_code=allow_code
        )
        show_planned(planned, json_output)
        return
    tuned = train_study(loaded, place, reporter, out, with_dev=with_dev, allow_code=allow_code)
    show_training(tuned, json_output)
