"""The page as text: self-contained, escaped, well formed, readable by all."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from report_support import ALL, do_not_fine_tune, fine_tune, hostile, invalid, undecided
from tunewise.report.document import CostPoint, Verdict
from tunewise.report.html import render_html

VOID = {"meta", "link", "img", "br", "input", "hr", "rect", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Collects elements with their attributes and holds that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.mark.parametrize("build", [*ALL, hostile])
def test_one_self_contained_file(build: Callable[[], Verdict]) -> None:
    text = render_html(build())
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attrs in page.elements:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attrs)
        href = attrs.get("href")
        assert href is None or href.startswith("#")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    policy = next(
        m["content"]
        for m in page.all("meta")
        if m.get("http-equiv") == "Content-Security-Policy" and m["content"]
    )
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}';" in policy and "unsafe" not in policy


@pytest.mark.parametrize("build", [*ALL, hostile])
def test_structure_for_those_who_cannot_see_it(build: Callable[[], Verdict]) -> None:
    page = Page(render_html(build()))
    assert page.all("html")[0]["lang"] == "en"
    for landmark in ("header", "main", "footer", "h1", "title"):
        count = len(page.all(landmark)) - (landmark == "title" and _svg_titles(page))
        assert count == 1, landmark
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for attrs in page.all("section"):
        assert attrs["aria-labelledby"] in ids
    for attrs in page.all("th"):
        assert attrs["scope"] in ("row", "col")
    for i, (tag, attrs) in enumerate(page.elements):
        if tag == "svg":
            hidden = attrs.get("aria-hidden") == "true"
            named = attrs.get("role") == "img" and attrs.get("aria-label")
            assert hidden or (named and page.elements[i + 1][0] == "title")


def _svg_titles(page: Page) -> int:
    return sum(1 for a, b in itertools.pairwise(page.elements) if (a[0], b[0]) == ("svg", "title"))


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    text = render_html(hostile())
    assert "<script" not in text and "</style></title>" not in text and "<img" not in text
    assert "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", text)
    assert "⟨U+202E⟩gnp.exe" in text
    # An answer of two million characters is cut, and the page says by how much.
    assert "1,980,000 more characters not shown" in text
    assert len(text) < 2_000_000


def test_says_what_the_reader_came_for() -> None:
    text = Page(render_html(fine_tune())).text
    for words in (
        "Fine-tuning scores 6.3 points more",
        "A gain worth having",
        "Extract the generic ingredients",
        "74.7",
        "+3.4 to +9.2",
        "Break-even: cheaper above 4.85k requests a month",
        "your traffic 100k",
        "Twice the rows would bring about +2.6 points",
        "Nothing is forgotten beyond the margin of 3.0 points",
        "Was retrieval measured?",
        "free-range eggs",
        "24 min, forecast 21 min",
        "3 test rows are near-duplicates",
        "from an earlier run",
        "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    ):
        assert words in text, words


def test_unknown_costs_say_what_would_make_them_known() -> None:
    text = Page(render_html(do_not_fine_tune())).text
    assert "The costs are unknown: no prices and no traffic were given." in text
    assert "traffic.requests_per_month" in text and "costs.prices" in text


def test_undecided_says_how_many_rows_would_decide() -> None:
    text = Page(render_html(undecided())).text
    assert "Use for now" in text and "1,190 more than there are" in text


def test_an_early_end_shows_no_empty_drawings() -> None:
    page = Page(render_html(invalid()))
    assert not page.all("svg") and not page.all("table")
    assert "The study ended at G0, the audit of the data" in page.text
    assert "test-0" in page.text and "–" not in page.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_left_out(bad: float) -> None:
    verdict = fine_tune()
    verdict.cost.curve.append(CostPoint(requests_per_month=bad, with_usd=bad, without_usd=1))
    verdict.cost.break_even_requests = bad
    verdict.primary.gain = bad
    verdict.primary.interval = (bad, bad)
    verdict.candidates[0].score = bad
    verdict.candidates[0].interval = (bad, bad)
    verdict.learning_curve.points[0].score = bad
    verdict.forgetting.suites[0].change = bad
    verdict.training[0].train_loss.append((400, bad))
    text = render_html(verdict)
    assert not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_keep_aa_contrast(scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", render_html(invalid()), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[scheme == "dark"]))
    assert len(colours) >= 18
    grounds = {
        "text": ["ground", "card", "track", "good-soft", "calm-soft", "warn-soft", "bad-soft"],
        "muted": ["ground", "card", "track", "good-soft", "calm-soft", "warn-soft", "bad-soft"],
        "accent": ["ground", "card", "accent-soft"],
        "other": ["card"],
        "good": ["good-soft", "card"],
        "calm": ["calm-soft"],
        "warn": ["warn-soft"],
        "bad": ["bad-soft"],
    }
    for ink, under in grounds.items():
        for ground in under:
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
