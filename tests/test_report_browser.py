"""The page in a real browser: widths, schemes, print, and that it asks for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from browser_support import CHROMIUM, chromium
from report_support import ALL, fine_tune, hostile, undecided
from tunewise.report.document import Verdict
from tunewise.report.html import render_html

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Verdict]], Path]:
    folder = tmp_path_factory.mktemp("pages")

    def write(build: Callable[[], Verdict]) -> Path:
        path = folder / f"{build.__name__}.html"
        if not path.exists():
            path.write_text(render_html(build()), "utf-8")
        return path

    return write


@contextmanager
def opened(browser: Any, path: Path, **options: Any) -> Iterator[Any]:
    """The page in a fresh tab; any console message or further request fails the test."""
    page = browser.new_page(**options)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    page.close()
    assert said == []
    assert asked == [path.as_uri()]


WIDER = """() => [...document.querySelectorAll('.card')]
  .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 40))"""


@pytest.mark.parametrize("build", [*ALL, hostile])
def test_no_width_scrolls_sideways(
    browser: Any, page_of: Callable[..., Path], build: Callable[[], Verdict]
) -> None:
    with opened(browser, page_of(build)) as page:
        for width in (390, 320, 901):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(WIDER) == []


def test_letterings_of_a_drawing_do_not_cover_one_another(
    browser: Any, page_of: Callable[..., Path]
) -> None:
    overlaps = """() => [...document.querySelectorAll('.plot, .gain, thead .draw')].flatMap(d => {
      const t = [...d.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()])
        .filter(([_, b]) => b.width);
      return t.flatMap(([a, x], i) => t.slice(i + 1).filter(([_, y]) =>
        x.left < y.right - 1 && y.left < x.right - 1 &&
        x.top < y.bottom - 3 && y.top < x.bottom - 3)
        .map(([b]) => a + ' / ' + b)); })"""
    for build in (fine_tune, undecided):
        with opened(browser, page_of(build)) as page:
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate(overlaps) == [], (build.__name__, width)


def test_an_axis_lies_exactly_over_its_bars(browser: Any, page_of: Callable[..., Path]) -> None:
    ends = """() => [...document.querySelectorAll('table.wide')].map(table =>
      [...table.querySelectorAll('.draw > svg')].map(svg => svg.getBoundingClientRect())
        .map(box => Math.round(box.left) + '..' + Math.round(box.right)))"""
    with opened(browser, page_of(undecided)) as page:
        for width in (320, 390, 901, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            tables = page.evaluate(ends)
            assert [len(table) for table in tables] == [3, 3]
            assert all(len(set(table)) == 1 for table in tables), (width, tables)


def test_hostile_text_is_inert(browser: Any, page_of: Callable[..., Path]) -> None:
    with opened(browser, page_of(hostile)) as page:
        assert page.title().startswith("Fine-tune: <script>")
        assert page.locator("script, img, iframe, link").count() == 0
        assert page.locator("style").count() == 1
        assert "<script>document.title='owned'</script>" in page.locator(".headline").inner_text()
        # The style sheet still holds behind it all.
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius")


def test_long_texts_fold_and_open_without_a_script(
    browser: Any, page_of: Callable[..., Path]
) -> None:
    with opened(browser, page_of(fine_tune)) as page:
        fold = page.locator("details.fold").first
        closed = fold.bounding_box()["height"]
        fold.locator("summary").click()
        assert fold.bounding_box()["height"] > closed
        assert page.get_by_text("show less").first.is_visible()


def test_dark_and_light_differ_and_print_is_light(
    browser: Any, page_of: Callable[..., Path]
) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        with opened(browser, page_of(fine_tune), color_scheme=scheme) as page:
            seen[scheme] = page.evaluate(ground)
            page.emulate_media(media="print")
            assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert seen["light"] != seen["dark"]


def test_prints_whole_on_paper(browser: Any, page_of: Callable[..., Path], tmp_path: Path) -> None:
    # A4 less its margins, at 96 pixels an inch.
    with opened(browser, page_of(fine_tune), viewport={"width": 688, "height": 1000}) as page:
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 688
        assert page.evaluate(WIDER) == []
        assert page.locator("details.fold").first.bounding_box()["height"] > 60
        pdf = tmp_path / "report.pdf"
        page.pdf(path=str(pdf), format="A4")
        assert pdf.read_bytes().startswith(b"%PDF")
