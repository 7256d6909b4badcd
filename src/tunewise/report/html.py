"""The verdict as one self-contained page: no request, nothing beside it, readable as it is.

Only where the test rows are given does it have a script, its own, by which they are browsed.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tunewise.report import charts, words
from tunewise.report import format as fmt
from tunewise.report.document import Answer, Verdict
from tunewise.report.rows import FIRST, TestRows, confusion, for_page, histogram
from tunewise.report.settings import settings_of, tried_of
from tunewise.report.text import visible, visible_copy

# Longer texts are cut on the page; the whole stands in the workspace's item files.
_LONGEST_TEXT = 20_000
_FOLD_CHARACTERS = 280
_FOLD_LINES = 6

_GROUPS = (
    ("use_case", "Use case"),
    ("alternatives", "Alternatives"),
    ("costs", "Costs"),
    ("benefits", "Benefits"),
    (None, "Further"),
)


def render_html(verdict: Verdict, rows: TestRows | None = None) -> str:
    """The report as one HTML document.

    Args:
        rows: all test rows, to be browsed; None for a page without any script.

    Whatever comes from data sets, models or the study is escaped and its unseen characters are
    named; the page's Content-Security-Policy allows its own style sheet (by hash) and nothing
    else.
    """
    shown = visible_copy(verdict)
    style = style_sheet()
    table = None if rows is None or not rows.rows else _rows_part(rows)
    primary = shown.primary
    return (
        environment()
        .get_template("report.html")
        .render(
            v=shown,
            style=Markup(style),
            policy=content_policy(style, table["script"] if table else None),
            rows=table,
            score_bars=charts.score_bars(shown),
            gain_bar=charts.gain_bar(shown),
            forgetting_bars=charts.forgetting_bars(shown),
            cost_plot=charts.cost_plot(
                shown.cost, primary.with_ or "fine-tuned", primary.without or "baseline"
            ),
            curve_plot=charts.curve_plot(shown.learning_curve),
            loss_plots=[charts.loss_plot(run) for run in shown.training],
            checklist=_checklist(shown.checklist),
            not_reached=_not_reached(shown),
        )
    )


def framed(verdict: Verdict) -> str:
    """The report in a frame of its own: its styles touch nothing else, and it runs nothing."""
    return page_in_frame(render_html(verdict), f"The verdict on {verdict.study}")


def page_in_frame(page: str, title: str) -> str:
    """A whole page as a frame of another."""
    return (
        f'<iframe sandbox srcdoc="{escape(page)}" title="{escape(title)}" '
        'style="width:100%;height:720px;border:1px solid #8884;border-radius:8px"></iframe>'
    )


def content_policy(style: str, script: str | None = None) -> str:
    """A Content-Security-Policy that allows this style sheet and script, by hash, nothing else."""
    scripts = f"script-src 'sha256-{_digest(script)}'; " if script else ""
    return (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; {scripts}"
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _rows_part(rows: TestRows) -> dict[str, Any]:
    """What ``rows.html`` shows, and what its script reads."""
    value, left_out = for_page(rows)
    # Within a script element only the end of it would be obeyed; JSON may name any character.
    data = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    script = files("tunewise.report").joinpath("templates/rows.js").read_text("utf-8")
    leading = rows.pair or rows.candidates[:1]
    spreads = [(visible(n), histogram(rows, n)) for n in leading]
    return {
        "total": len(rows.rows),
        "left_out": left_out,
        "place": visible(rows.place),
        "pair": None if rows.pair is None else [visible(name) for name in rows.pair],
        "candidates": value["candidates"],
        "first": value["rows"][:FIRST],
        "confusions": [m for name in leading if (m := confusion(rows, name)) is not None],
        "histograms": [(n, _heights(counts)) for n, counts in spreads if counts],
        "data": Markup(data),
        "script": Markup(script),
    }


def _heights(counts: list[int]) -> list[float]:
    """Bars of at most 40."""
    return [round(40 * n / max(counts), 2) for n in counts]


def style_sheet() -> str:
    """The colours and forms of all pages, light and dark, wide and narrow."""
    return files("tunewise.report").joinpath("templates/report.css").read_text("utf-8")


@functools.cache
def environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tunewise.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(fmt=fmt, words=words, settings_of=settings_of, tried_of=tried_of)
    environment.filters.update(pct=lambda x: f"{x:.2f}%", fold=_fold, tidy=_tidy)
    environment.filters.update(coded=_coded, sentence=_sentence)
    return environment


def _tidy(sentence: str) -> str:
    """A sentence in which no line breaks between a number and its per cent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _coded(text: str) -> Markup:
    """Prose in which what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def _sentence(text: str) -> str:
    """With one full stop at its end."""
    return f"{text.rstrip('. ')}."


def _fold(text: str) -> tuple[str | None, str]:
    """A long text's beginning (None for a short one), and the text."""
    whole = text
    if len(text) > _LONGEST_TEXT:
        rest = len(text) - _LONGEST_TEXT
        whole = f"{text[:_LONGEST_TEXT]}… ({fmt.plural(rest, 'more character')} not shown)"
    if len(text) <= _FOLD_CHARACTERS and text.count("\n") < _FOLD_LINES:
        return None, whole
    lines = text[: _FOLD_CHARACTERS - 40].split("\n")[: _FOLD_LINES - 2]
    return "\n".join(lines).rstrip(), whole


def _checklist(answers: list[Answer]) -> list[tuple[str, list[Answer]]]:
    groups = [(title, [a for a in answers if a.group == key]) for key, title in _GROUPS]
    return [(title, found) for title, found in groups if found]


def _not_reached(v: Verdict) -> list[str]:
    """Sections that would be empty, so that they are named once and not shown."""
    parts = {
        "scores": any(c.score is not None for c in v.candidates),
        "the comparison that decides": v.primary.gain is not None,
        "costs": v.cost.status != "unknown" or bool(v.cost.reason or v.candidates),
        "learning curve": bool(v.learning_curve.points or v.learning_curve.reason),
        "forgetting": bool(v.forgetting.suites or v.forgetting.reason),
        "worked examples": bool(v.examples),
        "training": bool(v.training),
    }
    return [name for name, there in parts.items() if not there]
