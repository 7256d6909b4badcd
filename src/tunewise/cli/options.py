"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tunewise.cli.progress import TerminalReporter
    from tunewise.study.schema import Columns

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
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="NAME=COLUMN,…", help="Columns called otherwise: input=Frage,output=…"
    ),
]
EncodingOption = Annotated[
    str | None, typer.Option("--encoding", help="Of text files that are not UTF-8.")
]
DocumentsOption = Annotated[
    str | None,
    typer.Option("--documents", metavar="PATH", help="Folder or file that retrieval searches."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Trust the code that the study names as a reward; remembered until it changes.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def columns_of(text: str | None) -> Columns | None:
    """The map of columns that ``--columns`` gives.

    Raises:
        UsageError: it is not written as one.
    """
    if text is None:
        return None
    from tunewise.data.columns import parse_columns

    return parse_columns(text)


def reporter_of(quiet: bool) -> TerminalReporter:
    """What draws a run on stderr."""
    from tunewise.cli.output import Output
    from tunewise.cli.progress import TerminalReporter

    return TerminalReporter(Output(stderr=True), quiet=quiet)
