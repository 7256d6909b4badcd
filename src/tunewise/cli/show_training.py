"""A fine-tune alone on stdout: what came of it, or what it would use."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tunewise.cli.output import Output, put
from tunewise.report import format as fmt

if TYPE_CHECKING:
    from tunewise.pipeline.alone import PlannedTraining, Tuned
    from tunewise.training.explain import Setting


def show_training(tuned: Tuned, as_json: bool) -> None:
    """What was trained, where it lies, and what comes next."""
    run = tuned.run
    if as_json:
        _print_json(
            {
                **run.model_dump(mode="json"),
                "rows": dict(tuned.rows),
                "rows_left_out": dict(tuned.left_out),
                "dev": tuned.dev,
                "figures": dict(tuned.figures),
                "tried": list(tuned.tried),
                "folder": None if tuned.folder is None else str(tuned.folder),
            }
        )
        return
    console = Output(soft_wrap=True, highlight=False, markup=False)
    rate = "" if run.learning_rate is None else f", learning rate {run.learning_rate:g}"
    memory = "" if run.peak_memory_mb is None else f", {fmt.memory(run.peak_memory_mb)}"
    steps = fmt.plural(run.steps or 0, "step")
    console.print(f"{run.method}: {steps}, {fmt.duration(run.seconds)}{memory}{rate}")
    if tuned.tried:
        console.print(tried_words(tuned.tried, run.learning_rate))
    if run.dev_loss:
        looks = " → ".join(f"{loss:.3f}" for _, loss in run.dev_loss)
        before = "" if tuned.dev_loss_before is None else f"{tuned.dev_loss_before:.3f} before, "
        console.print(f"dev loss {before}after each epoch {looks}; the lowest is kept")
    if tuned.figures:
        figures = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in tuned.figures.items())
        console.print(f"{'on dev' if run.dev_loss else 'in the last step'}: {figures}")
    rows = tuned.rows
    left_out = sum(tuned.left_out.values())
    learnt = rows["train"] - left_out
    text = f"learnt from {fmt.plural(learnt, 'row')}; dev {fmt.count(rows['dev'])}"
    if left_out:
        text += f"; {fmt.plural(left_out, 'row')} left out"
    if rows["test"]:
        text += (
            f"; {fmt.plural(rows['test'], 'test row')} stayed out, so that a later verdict holds"
        )
    console.print(text)
    console.print(f"{'adapter' if tuned.adapter else 'model'}: {run.tuned_model}", style="bold")
    if tuned.folder is not None:
        console.print(f"losses of all steps: {tuned.folder / 'events.jsonl'}")
    if run.method == "reward":
        console.print("It scores answers; transformers and peft open it as a classifier.")
        return
    command = ["tunewise", "chat", str(run.model if tuned.adapter else run.tuned_model)]
    if tuned.adapter:
        command += ["--adapter", str(tuned.adapter)]
    if tuned.instructions:
        command += ["--system", tuned.instructions]
    console.print(f"Try it: {shlex.join(command)}")
    if tuned.folder is not None and run.tuned_model:
        console.print("Serve models and tune more by the OpenAI API: tunewise serve")


def show_planned(plan: PlannedTraining, as_json: bool) -> None:
    """What a fine-tune alone would take."""
    if as_json:
        _print_json({**asdict(plan.forecast), **_plain(plan)})
        return
    found = plan.forecast
    parts = [
        fmt.duration(found.seconds) if found.seconds is not None else "unknown time",
        "unknown memory"
        if found.peak_memory_bytes is None
        else f"{fmt.memory(found.peak_memory_bytes / 1e6)} at the peak",
    ]
    if plan.usd is not None:
        parts.append(fmt.money(plan.usd))
    console = Output(soft_wrap=True, highlight=False, markup=False)
    console.print(f"training: {', '.join(parts)}", style="bold")
    if found.steps is not None and found.tokens is not None:
        steps, tokens = fmt.plural(found.steps, "step"), fmt.count(found.tokens)
        console.print(f"{steps}, {tokens} tokens")
    if plan.tries and plan.tries_seconds is not None:
        seconds = fmt.duration(plan.tries_seconds)
        console.print(f"before it {plan.tries} learning rates are tried: about {seconds}")
    console.print(f"measured: {found.basis}", style="dim")
    console.print("Nothing was trained.", style="dim")


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


def tried_words(tried: Sequence[Mapping[str, Any]], chosen: float | None) -> str:
    """The learning rates that were tried; says so where the best is the last on its side."""
    losses = {t["learning_rate"]: t["dev_loss"] for t in tried}
    shown = ", ".join(
        f"{rate:g}: {'failed' if loss is None else f'{loss:.3f}'}" for rate, loss in losses.items()
    )
    text = f"learning rates tried, with their dev losses: {shown}"
    if chosen is not None and chosen in (max(losses), min(losses)):
        end, further = (
            ("highest", (1, 2, 4)) if chosen == max(losses) else ("lowest", (0.25, 0.5, 1))
        )
        values = ", ".join(f"{chosen * factor:g}" for factor in further)
        text += f"\nThe {end} was the best, so one beyond it may be better still: "
        text += f"--set 'fine_tune.learning_rate=[{values}]'"
    return text


def _plain(plan: PlannedTraining) -> dict[str, Any]:
    return {
        "usd": plan.usd,
        "tries": plan.tries,
        "tries_seconds": plan.tries_seconds,
        "rows": dict(plan.rows),
    }


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
