"""A fine-tune alone on stdout: what came of it, or what it would use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tunewise.cli.output import Output, put
from tunewise.report import format as fmt

if TYPE_CHECKING:
    from tunewise.pipeline.run import Tuned
    from tunewise.training.explain import Setting


def show_training(tuned: Tuned, as_json: bool) -> None:
    """What was trained, where it lies, and what comes next."""
    run = tuned.run
    if as_json:
        _print_json({**run.model_dump(mode="json"), "rows": dict(tuned.rows), "dev": tuned.dev})
        return
    console = Output(soft_wrap=True, highlight=False, markup=False)
    rate = "" if run.learning_rate is None else f", learning rate {run.learning_rate:g}"
    console.print(f"{run.method}: {run.steps} steps, {fmt.duration(run.seconds)}{rate}")
    if run.dev_loss:
        console.print(f"dev loss {' → '.join(f'{loss:.3f}' for _, loss in run.dev_loss)}")
    rows = tuned.rows
    text = f"learnt from {fmt.count(rows['train'])} rows; dev {fmt.count(rows['dev'])}"
    if rows["test"]:
        text += f"; {fmt.count(rows['test'])} test rows stayed out, so that a later verdict holds"
    console.print(text)
    console.print(f"{'adapter' if tuned.adapter else 'model'}: {run.tuned_model}", style="bold")
    if run.method == "reward":
        console.print("It scores answers; transformers and peft open it as a classifier.")
        return
    if tuned.adapter:
        console.print(f"Try it: tunewise chat {run.model} --adapter {tuned.adapter}")
    else:
        console.print(f"Try it: tunewise chat {run.tuned_model}")
    if run.route == "local":
        console.print("Serve models and tune more by the OpenAI API: tunewise serve")


def show_settings(settings: Sequence[Setting], as_json: bool) -> None:
    """What a run would use: what is given stands out, defaults have their reasons."""
    if as_json:
        _print_json([setting.as_dict() for setting in settings])
        return
    table = Table(show_lines=False, pad_edge=False, box=None, header_style="bold")
    for column in ("setting", "value", "why"):
        table.add_column(column, overflow="fold", ratio=5 if column == "why" else None)
    for one in settings:
        why = Text(one.reason, style="bold" if one.given else "")
        if one.source:
            why.append(f" [{one.source}]", style="dim")
        table.add_row(one.name, Text(_shown(one.value)), why)
    console = Output()
    console.print(table)
    console.print("Nothing was trained.", style="dim")


def _shown(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return fmt.count(value) if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(v if k == "name" else f"{k} {_shown(v)}" for k, v in value.items())
    return str(value)


def _print_json(value: Any) -> None:
    put(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
