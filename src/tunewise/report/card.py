"""Results as pieces of HTML for a notebook: figures, lists, tables and curves in the page's style.

A card stands among other people's HTML, so its styles are nested under its own class, and it holds
no script and asks for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from markupsafe import Markup

from tunewise.report.charts import Plot
from tunewise.report.html import environment, style_sheet
from tunewise.report.text import visible

_CLASS = "tunewise-card"


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a list: a tag with its tone (a severity), a count, and what it says.

    Attributes:
        quiet: small print, such as rows by name.
        note: what to do about it.
    """

    text: str
    tag: str = ""
    count: str = ""
    quiet: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with a name each; ``numbers`` are the columns (from 0, the name) that align right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Card:
    """What one result shows.

    Attributes:
        kind: what it is, in a word or two.
        figures: (label, value, small print) of each large number.
        facts: names with what they are, as two columns.
        lines: sentences at the end.
    """

    kind: str
    title: str
    lead: str = ""
    figures: Sequence[tuple[str, str, str]] = ()
    items: Sequence[Item] = ()
    table: Table | None = None
    plot: Plot | None = None
    plot_label: str = ""
    facts: Sequence[tuple[str, str]] = ()
    lines: Sequence[str] = field(default_factory=tuple)


def render_card(card: Card) -> str:
    """The card as HTML without a document around it; all that it is given is escaped."""
    values = {key: _seen(value) for key, value in asdict(card).items() if key != "plot"}
    template = environment().get_template("card.html")
    return template.render(c=values, plot=card.plot, style=Markup(_nested_style()), name=_CLASS)


def _seen(value: Any) -> Any:
    """The value with unseen characters named, as everywhere on our pages."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {key: _seen(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(inner) for inner in value]
    return value


def _nested_style() -> str:
    """The page's style sheet for what is inside a card and nothing else.

    What the page says of its root and body is said of the card. A notebook's own striped rows are
    taken back.
    """
    text = re.sub(r"/\*.*?\*/", "", style_sheet(), flags=re.DOTALL)
    text = re.sub(r"(?m)^(\s*)(?::root|html|body)(?= \{)", r"\1&", text)
    text = re.sub(r"@page \{[^}]*\}", "", text)
    return (
        f".{_CLASS} {{ {text}\n"
        "& { padding: 2px; border-radius: 14px; background: transparent; font-size: 15px; }\n"
        ".card { max-width: 900px; } .card-title { font-size: 19px; margin-top: 0; }\n"
        ".card-figures { gap: 4px 16px; margin-top: 12px; }\n"
        ".card-figures > div { padding: 4px 0; }\n"
        ".card-items { margin-top: 12px; } .card-line { margin-top: 8px; }\n"
        ".facts { grid-template-columns: minmax(0, auto) minmax(0, 3fr); }\n"
        "table tr, table th, table td { background: none !important; text-align: left; }\n"
        "table .num { text-align: right; }\n"
        "svg text { font-family: system-ui, sans-serif; }\n}"
    )
