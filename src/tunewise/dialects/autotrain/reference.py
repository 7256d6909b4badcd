"""AutoTrain's parameters as a page of the docs, from the table itself."""

from __future__ import annotations

from typing import Any

from tunewise.dialects.autotrain.parameters import PARAMETERS
from tunewise.dialects.autotrain.tasks import TASKS, Task

_HEAD = """\
# AutoTrain's parameters, and what becomes of them

How to use them: [docs/autotrain.md](autotrain.md). Language models train today; of the other tasks
the table says what a key will be once their trainer is here. A dash means that the parameter has no
key of ours; then the reason stands beside it.

This page is generated from the program's own table.

| parameter | type | what it is | here | why |
|---|---|---|---|---|
"""


def markdown_reference() -> str:
    """The table of parameters, then each task with its names and defaults."""
    lines = [_HEAD.rstrip("\n")]
    for name, one in PARAMETERS.items():
        kind = " \\| ".join(one.choices) if one.choices else one.kind
        kind += ", null" if one.null else ""
        ours = f"`{one.ours}`" if one.ours else "–"
        why = one.why or ("" if one.ours else "for the trainer of its task")
        lines.append(f"| `{name}` | {kind} | {one.means} | {ours} | {why} |")
    for task in TASKS:
        lines += ["", *_task(task)]
    return "\n".join(lines) + "\n"


def _task(task: Task) -> list[str]:
    names = ", ".join(f"`{name}`" for name in task.names)
    verb = f"`tunewise autotrain {task.verb}`" if task.verb else "by a file alone"
    defaults = ", ".join(f"`{k}` {_word(v)}" for k, v in task.defaults.items())
    title = task.label[:1].upper() + task.label[1:]
    return [f"## {title}", "", f"{names}; {verb}.", "", f"Defaults: {defaults}."]


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
