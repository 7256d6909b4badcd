"""What results show in a notebook, in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tunewise as tw
from browser_support import CHROMIUM, chromium

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

WORDS = {"fire": "warm", "sun": "warm", "ice": "cold", "snow": "cold", "stove": "warm"}
ROWS = [
    {"input": f"Note {i}: {word} in room {i * 7 % 90}.", "output": WORDS[word]}
    for i, word in enumerate([*WORDS] * 40)
]
STUDY: dict[str, Any] = {
    "name": "warm-or-cold-and-a-name-that-is-rather-long-for-a-narrow-screen",
    "use_case": "Tell warm from cold.",
    "data": {"examples": ROWS},
    "model": "tunewise/tiny",
    "metric": "accuracy",
    "candidates": ["zero_shot", "classifier"],
    "effort": "quick",
}
UNBROKEN = "x" * 300


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The HTML of one result of each kind."""
    folder = tmp_path_factory.mktemp("results")
    options: dict[str, Any] = {"workspace": folder / "work", "progress": False}
    broken = [{"input": UNBROKEN, "output": ""}, {"input": "Call 555-010-9999", "output": "Ice"}]
    tuned = tw.train(
        ROWS[:48], model="tunewise/tiny", epochs=3, learning_rate=1e-3, batch_size=8, **options
    )
    result = tw.run({**STUDY, "candidates": ["classifier"]}, **options)
    made: dict[str, Any] = {
        "audit": tw.audit([*ROWS, *ROWS[:9], *broken], test=ROWS[:20], **options),
        "proposal": tw.init(ROWS, folder / "study.yaml", workspace=folder / "work"),
        "forecast": tw.forecast({**STUDY, "candidates": None}, **options),
        "train": tuned,
        "study": tw.load_study({**STUDY, "prompt": UNBROKEN, "data": {"examples": str(folder)}}),
        "verdict": tw.load_verdict(result.folder),
    }
    return {name: value._repr_html_() for name, value in made.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


KINDS = ("audit", "proposal", "forecast", "train", "study", "verdict")
WIDER = """() => [...document.querySelectorAll('.card, .card *:not(svg *)')].filter(e => {
    const b = e.getBoundingClientRect();
    return b.width && !e.closest('.sideways')  // these scroll by themselves
      && (b.right > innerWidth + 1 || b.left < -1 || e.scrollWidth > e.clientWidth + 1
      && getComputedStyle(e).display != 'inline' && e.tagName != 'svg'); })
  .map(e => e.tagName + ' ' + (e.innerText || '').slice(0, 40))"""
# The contrast of each text with the ground that it stands on, and its size.
FAINT = """() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(x => x / 255)
    .map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3]) return c; }
    return [255, 255, 255]; };
  return [...document.querySelectorAll('.card *')].filter(e =>
    [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) &&
    !['STYLE', 'TITLE', 'title'].includes(e.tagName)
    && e.getBoundingClientRect().width).filter(e => {
      const s = getComputedStyle(e), svg = e instanceof SVGElement;
      const a = light(rgb(svg ? s.fill : s.color)), b = light(ground(e));
      const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      return ratio < 4.5 || parseFloat(s.fontSize) < 12; })
    .map(e => e.textContent.slice(0, 40)); }"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 420])
def test_a_result_fits_and_can_be_read(
    browser: Any, pages: dict[str, str], tmp_path: Path, kind: str, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    path = tmp_path / "cell.html"
    head = '<!DOCTYPE html><meta charset="utf-8"><title>cell</title>'
    path.write_text(f'{head}<body style="margin:8px">{pages[kind]}</body>', "utf-8")
    page.goto(path.as_uri())
    inner = page.frames[-1]  # a verdict is in a frame of its own
    measured: Callable[[str], Any] = inner.evaluate
    page.screenshot(path=tmp_path / f"{kind}-{scheme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert inner.locator(".card").count() >= 1
    assert measured("document.documentElement.scrollWidth - innerWidth") <= 0
    assert measured(WIDER) == []
    assert measured(FAINT) == []
    page.close()


def test_a_card_s_style_stays_inside_the_card(browser: Any, pages: dict[str, str]) -> None:
    page = browser.new_page()
    page.set_content("<table id='t'><tr><td>x</td></tr></table><h2 id='h'>y</h2>")
    plain = [
        page.evaluate(
            f"getComputedStyle({e}).cssText || getComputedStyle({e}).width + "
            f"getComputedStyle({e}).margin + getComputedStyle({e}).font"
        )
        for e in ("t", "h")
    ]
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", pages["audit"])
    styled = [
        page.evaluate(
            f"getComputedStyle({e}).cssText || getComputedStyle({e}).width + "
            f"getComputedStyle({e}).margin + getComputedStyle({e}).font"
        )
        for e in ("t", "h")
    ]
    assert styled == plain
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "14px"
    page.close()
