"""One row's tokens as a self-contained page: what is learnt, and what is only read."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tunewise.report.html import content_policy, style_sheet
from tunewise.report.text import visible

_STYLE = """
main { display: block; padding-bottom: 32px; }
h1 { font-size: 22px; letter-spacing: -.01em; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 12px 0 16px; }
.legend { font-size: 14.5px; }
.tokens { white-space: pre-wrap; font-size: 14.5px; line-height: 2; }
.t { border-radius: 4px; padding: 2px 0; margin-right: 2px; color: var(--muted);
  background: var(--track); -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.t.l { color: var(--good); background: var(--good-soft); font-weight: 600; }
h2 { font-size: 16px; margin-top: 22px; }
.legend .t { padding: 2px 7px; margin-right: 7px; }
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Tokens of {row}</title>
<style>{style}</style>
</head>
<body>
<header class="top"><div>
<span class="brand">Tunewise</span><span class="when">{model}</span>
</div></header>
<main>
<section class="card">
<h1>{row}</h1>
<p class="quiet">{place}</p>
<ul class="legend">
<li><span class="t l">learnt</span>its prediction is in the loss</li>
<li><span class="t">read</span>only read</li>
</ul>
{answers}
</section>
</main>
</body>
</html>
"""


def render_tokens(
    row: str,
    source: str | None,
    model: str,
    answers: Sequence[tuple[str, Sequence[tuple[str, float]]]],
) -> str:
    """The page; texts are escaped and their unseen characters named, nothing is fetched.

    Args:
        row: the row's id.
        model: whose tokenizer it is.
        source: where the row stands.
        answers: what each answer is called, and of each token of the conversation with it the
            text and the weight of its prediction in the loss (0: only read).
    """
    style = style_sheet() + _STYLE
    return _PAGE.format(
        policy=escape(content_policy(style)),
        style=style,
        row=escape(visible(row)),
        model=escape(visible(model)),
        place=escape(visible(source or "")),
        answers="".join(_answer(name, t, alone=len(answers) == 1) for name, t in answers),
    )


def _answer(name: str, tokens: Sequence[tuple[str, float]], *, alone: bool) -> str:
    head = "" if alone else f"<h2>Answer that is {escape(name)}</h2>\n"
    shown = "".join(_token(n, text, weight) for n, (text, weight) in enumerate(tokens, 1))
    learnt = sum(1 for _, weight in tokens if weight)
    return (
        f'{head}<p class="quiet">{len(tokens):,} tokens, {learnt:,} of them learnt</p>\n'
        f'<div class="tokens data">{shown}</div>\n'
    )


def _token(number: int, text: str, weight: float) -> str:
    kind = "t l" if weight else "t"
    shown = escape(visible(text.replace("\r", "␍").replace("\n", "⏎\n")))
    says = f"token {number}: " + ("only read" if not weight else f"weight {weight:g}")
    return f'<span class="{kind}" title="{says}">{shown or "∅"}</span>'
