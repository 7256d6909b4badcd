"""What became of another tool's configuration, as a table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tunewise.cli.output import Output
from tunewise.dialects.told import Told, Translation
from tunewise.study.keys import redact

_STYLES = {"mapped": "bold", "defaulted": "", "no meaning here": "dim", "later": "yellow"}


def show_translation(translation: Translation, *, whole: bool = True, stderr: bool = False) -> None:
    """A row for each key, those that were given first.

    Args:
        whole: a row for each default too; else they stand together in a sentence.
    """
    console = Output(stderr=stderr)
    console.print(f"{translation.dialect}: {translation.task}", style="bold", highlight=False)
    table = Table(show_lines=False, pad_edge=False, box=None, header_style="bold")
    for column, ratio in (("line", None), ("key", None), ("value", 2), ("", None), ("here", 5)):
        table.add_column(column, overflow="fold", ratio=ratio, no_wrap=ratio is None)
    order = sorted(
        (t for t in translation.told if whole or t.state != "defaulted"),
        key=lambda t: (t.state == "defaulted", t.line is None, t.line or 0),
    )
    for row in order:
        table.add_row(
            Text(str(row.line or "")),
            Text(redact(row.key.rpartition(".")[2])),
            Text(redact(_value(row.value))),
            Text(row.state),
            _here(row),
            style=_STYLES[row.state],
        )
    console.print(table)
    silent = [t for t in translation.told if t.state == "defaulted"]
    if silent and not whole:
        named = ", ".join(f"{t.key} {_value(t.value)}".strip() for t in silent)
        console.print(Text(redact(f"Defaults of {translation.dialect}: {named}"), style="dim"))
        console.print(Text("--dry-run says what each of them means here.", style="dim"))
    for sentence in translation.missing:
        console.print(Text(redact(f"Missing: {sentence}"), style="yellow"))


def _here(row: Told) -> Text:
    text = Text(redact(row.ours))
    if row.why:
        text.append(redact(f"{' – ' if row.ours else ''}{row.why}"), style="dim")
    return text


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
