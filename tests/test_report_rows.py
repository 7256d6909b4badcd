"""All test rows on the page: what is embedded, what is counted, and how a browser shows it."""

from __future__ import annotations

import html
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from browser_support import CHROMIUM, chromium
from report_support import fine_tune
from tunewise.report import rows as room
from tunewise.report.html import render_html
from tunewise.report.rows import (
    RowAnswer,
    TestRow,
    TestRows,
    confusion,
    for_page,
    histogram,
)


def _rows(count: int = 57, text: str = "") -> TestRows:
    """A tuned and a prompted candidate; the tuned one is wrong in every fourth row, and alone so in
    every eighth.
    """
    found = []
    for i in range(count):
        label = "refund" if i % 3 else "delivery"
        other = "delivery" if label == "refund" else "refund"
        tuned = label if i % 4 else other
        prompted = label if i % 8 < 4 else "no idea"
        found.append(
            TestRow(
                id=f"r{i}",
                input=f"mail {i} {text}",
                wanted=label,
                label=label,
                answers={
                    "tuned": RowAnswer(tuned, 100.0 * (tuned == label), tuned),
                    "prompted": RowAnswer(prompted, 100.0 * (prompted == label), prompted),
                },
                slices={"language": ["de" if i % 2 else "en"]},
            )
        )
    return TestRows(found, ["tuned", "prompted"], ("tuned", "prompted"), "items")


def test_rows_where_the_tuned_model_loses_most_come_first() -> None:
    value, left_out = for_page(_rows())
    assert left_out == 0
    gaps = [row["got"][0][1] - row["got"][1][1] for row in value["rows"]]
    assert gaps == sorted(gaps)
    assert gaps[0] == -100
    assert value["pair"] == [0, 1]


def test_what_would_make_the_page_too_large_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = _rows(text="x" * 5000)
    value, _ = for_page(rows)
    assert value["rows"][0]["in"].endswith("more characters)")
    assert len(value["rows"][0]["in"]) < room.LONGEST_TEXT + 40
    monkeypatch.setattr(room, "MOST_CHARACTERS", 30_000)
    value, left_out = for_page(rows)
    assert left_out == 57 - len(value["rows"]) > 0
    assert f"{left_out} rows would make this page too large" in render_html(fine_tune(), rows)


def test_confusions_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rows = _rows()
    found = confusion(rows, "prompted")
    assert found is not None
    assert found.labels == ["refund", "delivery"]
    wanted = [row.label for row in rows.rows]
    given = [row.answers["prompted"].label for row in rows.rows]
    both = metrics.confusion_matrix(wanted, given, labels=[*found.labels, "no idea"])
    assert found.counts == both[:2].tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        wanted, given, labels=found.labels
    )
    for at, one in enumerate(found.by_label):
        assert one.rows == support[at]
        assert (one.precision, one.recall, one.f1) == pytest.approx(
            (100 * precision[at], 100 * recall[at], 100 * f1[at])
        )


def test_scores_between_right_and_wrong_have_a_histogram() -> None:
    draw = random.Random(0)
    points = [draw.uniform(0, 100) for _ in range(200)] + [100.0]
    rows = [TestRow(str(i), "", "", {"a": RowAnswer("", p)}) for i, p in enumerate(points)]
    table = TestRows(rows, ["a"], None, "items")
    counts = histogram(table, "a")
    assert counts is not None
    assert sum(counts) == 201
    assert counts[0] == sum(p < 5 for p in points)
    assert confusion(table, "a") is None
    assert histogram(_rows(), "tuned") is None


def test_hostile_rows_stay_text() -> None:
    text = "</script><script>document.title='gone'</script>\u202e{{ 7 * 7 }}"
    page = render_html(fine_tune(), _rows(text=text))
    assert len(re.findall("<script", page)) == 2
    data = re.search(r'id="rows-data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert "⟨U+202E⟩" in json.loads(data[1])["rows"][0]["in"]
    policy = html.unescape(page.split('Content-Security-Policy" content="')[1].split('"')[0])
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_reader_browses_filters_and_searches(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with chromium() as browser:
        _browse(browser, tmp_path)


def _browse(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(fine_tune(), _rows(text="<b>bold</b>")), "utf-8")
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(path.as_uri())

    def count() -> str:
        return page.inner_text("#rows-count")

    assert count() == "1 to 10 of 57"
    assert page.inner_text("#rows-list article:first-child").count("<b>bold</b>") == 1
    page.keyboard.press("Tab")
    page.focus("#rows-next")
    page.keyboard.press("Enter")
    assert count() == "11 to 20 of 57"
    page.select_option("#rows-which", "worse")
    worse = sum(not i % 4 and i % 8 < 4 for i in range(57))
    assert count() == f"1 to {worse} of {worse}"
    page.select_option("#rows-label", "delivery")
    both = sum(not i % 4 and i % 8 < 4 and not i % 3 for i in range(57))
    assert count() == f"1 to {both} of {both}"
    page.select_option("#rows-label", "")
    page.select_option("#rows-which", "all")
    page.select_option("#rows-slice", "language: de")
    assert count() == "1 to 10 of 28"
    page.fill("#rows-search", "MAIL 13 ")
    assert count() == "1 to 1 of 1"
    page.fill("#rows-search", "nowhere")
    assert count() == "no row is like that"
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert errors == []
    context.close()

    still = browser.new_context(java_script_enabled=False)
    page = still.new_page()
    page.goto(path.as_uri())
    assert page.locator("#rows-list article").count() == 10
    assert page.is_hidden("#rows-tools")
    assert "the first 10 are shown" in page.inner_text("main")
    still.close()
