"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tunewise.cli.progress import TerminalReporter

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where results lie. [default: $TUNEWISE_HOME or .tunewise]"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the study, e.g. effort=quick."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def reporter_of(quiet: bool) -> TerminalReporter:
    """What draws a run on stderr."""
    from tunewise.cli.output import Output
    from tunewise.cli.progress import TerminalReporter

    return TerminalReporter(Output(stderr=True), quiet=quiet)
