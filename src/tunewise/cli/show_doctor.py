"""What `tunewise doctor` found, on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from tunewise.cli.output import Output, put
from tunewise.doctor import Check, State

_STYLES = {State.OK: "green", State.NOTE: "yellow", State.FAILED: "bold red"}


def show_checks(checks: Sequence[Check], json_output: bool) -> None:
    """One line a check, with what to do under it."""
    if json_output:
        put(json.dumps([asdict(check) for check in checks], indent=2) + "\n")
        return
    table = Table.grid(padding=(0, 2))
    for check in checks:
        found = Text(check.found)
        if check.advice is not None:
            found.append(f"\n{check.advice}", style="italic")
        table.add_row(Text(check.state.value, style=_STYLES[check.state]), check.name, found)
    Output().print(table)
