"""The verdict in a terminal: what it looks like, and that it fits and stays harmless."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from report_support import (
    ALL,
    do_not_fine_tune,
    fine_tune,
    hostile,
    invalid,
    undecided,
)
from tunewise.report.document import Verdict
from tunewise.report.terminal import print_verdict


def shown(
    verdict: Verdict, width: int, *, encoding: str = "utf-8", terminal: bool = False, **env: str
) -> str:
    """What a console of this width and encoding receives, without spaces at line ends."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        _environ={"TERM": "xterm-256color", **env},
    )
    print_verdict(verdict, console, report=Path("out/report.html"))
    file.flush()
    return "\n".join(x.rstrip() for x in raw.getvalue().decode(encoding).splitlines()) + "\n"


WIDE = """\
╭─ recipe-assistant · list_f1 ─────────────────────────────────────────────────╮
│ FINE-TUNE                                                                    │
│ Fine-tuning scores 6.3 points more than the best prompt (95 % interval +3.4  │
│ to +9.2, asked for 2.0) and saves about $412 a month.                        │
│ Use: fine_tuned                                                              │
│ Because: a gain worth having; cheaper                                        │
╰─ ended at G5, the final test ────────────────────────────────────────────────╯

Candidates
candidate   score  30                     80    n  fail  tokens    $/1k  latency
zero_shot    41.2      ├●─┤           ┊       400     2     512    0.61   640 ms
few_shot     68.4                   ├●┊┤      400     0   2,304    4.82    1.5 s
classifier   52.0           ├─●┤      ┊       400     0       –  0.0020   0.4 ms
fine_tuned   74.7                     ┊├●─┤   400     0     421    0.49   410 ms
Scores in points, 95 % intervals, on test, 400 rows.
┊ 70.4: few_shot plus the gain asked for.

What decides
• fine_tuned scores 6.3 points more than few_shot (95 % interval +3.4 to +9.2).
• Asked for: at least 2.0. Even the low end of the interval beats that.
• p < 0.001, BCa paired bootstrap, 400 rows, 3 training seeds.
• 400 test rows can tell a gain from the one asked for from 6.1 points up.
• Rows treated as independent; hidden grouping would widen the interval.

Costs
• At 100k requests a month fine-tuning saves $412 a month (95 % interval $381 to
  $440).
• Break-even: cheaper above 4.85k requests a month (95 % interval 4.5k to 5.3k).
• What it costs once is earned back in 0.6 months.
• This study itself spent $3.18.

Forgetting
• Nothing is forgotten beyond the margin of 3.0 points.
• general: 61.4 before, 60.8 after (−0.6, at worst −1.9), 720 rows: passed
• must_pass: 100.0 before, 100.0 after, 40 rows: passed

Warnings
• The model's licence was not checked.

Next steps
1. Serve it: tunewise serve recipe-assistant
2. Label about 500 rows a year and retrain when the base model retires.

Report: out/report.html
"""

NARROW = """\
╭─ wiki-questions · token_f1 ────────────────────╮
│ DO NOT FINE-TUNE                               │
│ Retrieval is as good: fine-tuning gains 0.4    │
│ points (95 % interval −1.1 to +1.96, asked for │
│ 2.0).                                          │
│ Use: rag                                       │
│ Because: no gain worth having                  │
╰─ ended at G5, the final test ──────────────────╯

Candidates
  0                                             80
zero_shot  12.3  (9.4 to 15.2)
        ├●─┤                                 ┊
  n 900, 61 tokens, 88 ms
few_shot  18.8  (15.9 to 21.7)
           ├─●─┤                             ┊
  n 900, 644 tokens, 312 ms
rag  71.5  (68.6 to 74.4)
                                          ├─●┊┤
  n 900, 803 tokens, 390 ms
fine_tuned  30.2  (27.3 to 33.1)
                  ├─●┤                       ┊
  n 900, 60 tokens, 90 ms
fine_tuned+rag  71.9  (69.0 to 74.8)
                                           ├●┊┤
  n 900, 801 tokens, 392 ms
Scores in points, 95 % intervals, on test, 900
rows.
┊ 73.5: rag plus the gain asked for.

What decides
• fine_tuned+rag scores 0.4 points more than rag
  (95 % interval −1.1 to +1.96).
• Asked for: at least 2.0. A gain of that size is
  ruled out, and so is a loss of that size.
• p = 0.610, clustered t, 46.2 degrees of freedom,
  900 rows, 48 clusters, 1 training seed, look 2
  of at most 5 at these rows.
• 900 test rows can tell a gain from the one asked
  for from 4.2 points up.

Costs
• The costs are unknown: no prices and no traffic
  were given.
• To know it, give traffic.requests_per_month: how
  many requests a month you expect.
• To know it, give costs.prices: a dated price
  file, or usd_per_1k_requests with each
  candidate.

Forgetting
• Forgetting was not measured: the base model
  answers only 4 % of the suite.

Warnings
• This is look 2 at these test rows.

Next steps
1. Ship rag.
2. Improve retrieval first: recall@5 is 81 %.

Report: out/report.html
"""

ASCII = """\
+- tickets - accuracy ---------------------------------------------------------+
| UNDECIDED                                                                    |
| 20 test rows cannot tell a gain of 2.0 points from none; about 1,210 would.  |
| Use for now: few_shot                                                        |
| Because: too few test rows                                                   |
+- ended at G5, the final test ------------------------------------------------+

Candidates
candidate   score  50                       100   n  fail  tokens  $/1k  latency
few_shot     75.0    |-----------o:-----|        20     0     410  0.31   120 ms
fine_tuned   85.0          |------:---o----|     20     1      72  0.30    60 ms
Scores in points, 95 % intervals, on test, 20 rows.
: 77.0: few_shot plus the gain asked for.

What decides
* fine_tuned scores 10.0 points more than few_shot (95 % interval -12.7 to
  +31.5).
* Asked for: at least 2.0. The interval is too wide: it holds such a gain and
  such a loss.
* p = 0.375, Newcombe paired interval; McNemar mid-p, 20 rows, 1 training seed.
* About 1,210 test rows, 1,190 more than there are, decide with 80 % chance if
  the gain is as measured.

Costs
* At 1k requests a month it is not clear which is cheaper (95 % interval $1.50
  dearer to $1.10 cheaper a month).
* No break-even can be named: the costs per request cannot be told apart.

Forgetting
* It now fails 2 must-pass rows that it could do before.
* general: 61.4 before, 49.0 after (-12.4, at worst -14.8), 720 rows: failed
* arithmetic: 40.0 before, 39.0 after (-1.0, at worst -6.5), 60 rows: unproven
* neighbours: - before, - after, 12 rows: unmeasured

Next steps
1. Label about 1,190 more test rows, then run again.

Report: out/report.html
"""


def test_80_columns() -> None:
    assert shown(fine_tune(), 80) == WIDE


def test_50_columns() -> None:
    assert shown(do_not_fine_tune(), 50) == NARROW


def test_ascii() -> None:
    assert shown(undecided(), 80, encoding="ascii") == ASCII


def test_a_study_that_ended_early_shows_no_empty_parts() -> None:
    text = shown(invalid(), 80)
    assert "INVALID" in text and "31 of 200 test rows" in text
    assert "Rows test-0, test-1" in text and "and 26 more" in text
    for absent in ("Candidates", "What decides", "Costs", "Forgetting", "–"):
        assert absent not in text


@pytest.mark.parametrize("build", [*ALL, hostile])
def test_fits_every_width(build: Callable[[], Verdict]) -> None:
    verdict = build()
    for width in (24, 40, 50, 75, 76, 80, 120):
        assert max(map(cell_len, shown(verdict, width).splitlines())) <= width


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_fits_and_prints_in_old_encodings(encoding: str) -> None:
    for width in (50, 80):
        lines = shown(hostile(), width, encoding=encoding).splitlines()
        assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [50, 80])
def test_nothing_of_the_data_commands_the_terminal(width: int) -> None:
    text = shown(hostile(), width)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    joined = re.sub(r"[\s│]", "", text)
    assert "[red]red[/red]" in joined and "⟨U+001B⟩[31m" in joined


def test_colour_only_where_it_can_be_seen() -> None:
    assert "\x1b[" in shown(fine_tune(), 80, terminal=True)
    assert "\x1b[" not in shown(fine_tune(), 80)
    plain = shown(fine_tune(), 80, terminal=True, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)


def test_bars_share_one_scale() -> None:
    lines = shown(fine_tune(), 100).splitlines()
    points = {x.split()[0]: x.index("●") for x in lines if "●" in x}
    assert points["zero_shot"] < points["classifier"] < points["few_shot"] < points["fine_tuned"]
    asked = {x.index("┊") for x in lines if "┊" in x and "●" in x}
    assert len(asked) == 1 and points["few_shot"] < asked.pop() < points["fine_tuned"]


def test_many_warnings_are_cut_with_a_count() -> None:
    verdict = invalid()
    verdict.warnings = [f"warning {i}" for i in range(40)]
    text = shown(verdict, 80)
    assert "warning 6" in text and "warning 7" not in text and "33 more" in text
