"""How numbers look, how axes are cut, and how unseen characters are shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_support import HOSTILE, fine_tune, undecided
from tunewise.report import format as fmt
from tunewise.report import words
from tunewise.report.document import Cost, Primary
from tunewise.report.scale import linear_axis, log_axis
from tunewise.report.text import visible, visible_copy
from tunewise.verdict.words import Because, Method
from tunewise.verdict.words import Verdict as VerdictWord

numbers = st.floats(-1e9, 1e9, allow_subnormal=False)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (fmt.points(67.34), "67.3"),
        (fmt.points(0), "0.0"),
        (fmt.points(100), "100.0"),
        (fmt.points(99.97), "99.97"),
        (fmt.points(0.04), "0.04"),
        (fmt.points(-0.0000001), "0.0"),
        (fmt.points(1.96, (2.0,)), "1.96"),
        (fmt.points(2.0, (2.0,)), "2.0"),
        (fmt.gain(4.62), "+4.6"),
        (fmt.gain(0.04), "+0.04"),
        (fmt.gain(-1.25), "−1.2"),
        (fmt.gain(0), "0.0"),
        (fmt.gain_interval((-1.12, 1.96), (2.0, -2.0)), "−1.1 to +1.96"),
        (fmt.interval(None), "–"),
        (fmt.money(0), "$0"),
        (fmt.money(0.00049), "$0.00049"),
        (fmt.money(0.5), "$0.50"),
        (fmt.money(4.2), "$4.20"),
        (fmt.money(-412.3), "−$412"),
        (fmt.money(99.996), "$100"),
        (fmt.money(1234567), "$1,234,567"),
        (fmt.money(1e-12), "under $0.00000001"),
        (fmt.count(12340), "12,340"),
        (fmt.compact(940), "940"),
        (fmt.compact(999.6), "1k"),
        (fmt.compact(12345), "12.3k"),
        (fmt.compact(999_960), "1M"),
        (fmt.tokens(4.21), "4.2"),
        (fmt.tokens(2304.4), "2,304"),
        (fmt.latency(0.4), "0.4 ms"),
        (fmt.latency(0.001), "<0.1 ms"),
        (fmt.latency(999.4), "999 ms"),
        (fmt.latency(1480), "1.5 s"),
        (fmt.duration(59.97), "1 min"),
        (fmt.duration(200), "3 min 20 s"),
        (fmt.duration(7500), "2 h 5 min"),
        (fmt.memory(2410), "2.4 GB"),
        (fmt.p_value(0.04904), "0.049"),
        (fmt.p_value(0.0), "<0.001"),
        (fmt.percent(0.2), "20.0 %"),
        (fmt.months(1.0), "1 month"),
        (fmt.plain(0.0002), "0.0002"),
        (fmt.plural(1, "row"), "1 row"),
        (fmt.plural(1204, "row"), "1,204 rows"),
    ],
)
def test_numbers(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_unknown_is_a_dash_and_never_a_zero(unknown: float | None) -> None:
    one = (fmt.points, fmt.gain, fmt.money, fmt.count, fmt.compact, fmt.tokens, fmt.latency)
    two = (fmt.duration, fmt.memory, fmt.percent, fmt.p_value, fmt.plain, fmt.months)
    assert {f(unknown) for f in one + two} == {"–"}


@given(numbers, numbers)
def test_a_limit_never_rounds_onto_the_other_side_of_the_bar(value: float, bar: float) -> None:
    value, bar = value % 100, bar % 100
    if abs(value - bar) < 0.002:
        return
    text = float(fmt.points(value, (bar,)))
    assert (text > round(bar, 3)) == (value > bar)


@given(st.lists(numbers, min_size=1), st.integers(3, 8))
def test_linear_axes_hold_their_values(values: list[float], most: int) -> None:
    axis = linear_axis(values, most_ticks=most)
    slack = 1e-6 * max(1.0, axis.high - axis.low, *map(abs, values))
    assert axis.low - slack <= min(values) and max(values) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= most + 1
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert all(0 <= axis.place(v) <= 1 for v in values)


@given(st.lists(st.floats(0, 100), min_size=1))
def test_score_axes_stay_between_0_and_100(values: list[float]) -> None:
    axis = linear_axis(values, least_span=5, bounds=(0, 100))
    assert axis.low >= 0 and axis.high <= 100 and axis.high - axis.low >= 5 - 1e-9


@given(st.lists(st.floats(1e-9, 1e12), min_size=1))
def test_log_axes_hold_their_values(values: list[float]) -> None:
    axis = log_axis(values)
    assert axis.low <= min(values) and max(values) <= axis.high
    assert len(axis.ticks) >= 1
    assert axis.place(axis.low) == 0 and axis.place(axis.high) == 1


@given(st.text())
def test_visible_text_keeps_what_can_be_seen(text: str) -> None:
    shown = visible(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not set(shown) & set("\x7f\x9b\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b\u200f")
    assert visible(shown) == shown


def test_visible_names_what_cannot_be_seen() -> None:
    assert visible("a\u202eb\x1b[31m\x00") == "a⟨U+202E⟩b⟨U+001B⟩[31m⟨U+0000⟩"
    assert visible("two\r\nlines\tand שלום 👩\u200d🔧") == "two\nlines\tand שלום 👩\u200d🔧"


def test_the_copy_reaches_every_string() -> None:
    verdict = fine_tune()
    verdict.audit.findings[0].rows = [HOSTILE]
    verdict.candidates[0].chosen = {HOSTILE: [HOSTILE]}
    text = visible_copy(verdict).to_json()
    assert "\\u001b" not in text and "\u202e" not in text
    assert text.count("U+202E") == 3
    assert verdict.audit.findings[0].rows == [HOSTILE]


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (2.1, 9.0, "beats that"),
        (-1.9, 2.0, "ruled out, and so is a loss"),
        (-1.9, 2.1, "neither shown nor ruled out"),
        (-3.0, 1.0, "a loss of that size is not"),
        (-9.0, -0.1, "it is worse"),
        (-9.0, 9.0, "too wide"),
    ],
)
def test_the_comparison_is_read_as_the_decision_table_reads_it(
    low: float, high: float, says: str
) -> None:
    primary = Primary(
        with_="a", without="b", gain=(low + high) / 2, interval=(low, high), minimal_gain=2.0
    )
    assert says in words.primary_sentences(primary)[1]


def test_too_few_groups_are_said_before_anything_is_read_from_the_interval() -> None:
    primary = Primary(gain=9.0, interval=(8.0, 10.0), minimal_gain=2.0, clusters=5)
    assert "fewer than 6 groups" in words.primary_sentences(primary)[1]


def test_every_code_of_the_verdict_has_words() -> None:
    verdict = fine_tune()
    for answer in VerdictWord:
        assert words.VERDICTS[answer]
        verdict.verdict = answer.value
        # An invalid test never gets as far as its costs.
        skipped = {Because.COST} if answer is VerdictWord.INVALID else set()
        verdict.because = [code.value for code in Because if code not in skipped]
        for reason in words.reasons(verdict):
            assert reason.hint, reason
    for method in Method:
        assert words.method(Primary(method=method.value)) != method.value
    verdict.because = ["a_new_code"]
    assert words.reasons(verdict) == [words.Reason("a_new_code", "A new code", "")]


def test_the_headline_does_not_repeat_the_word_above_it() -> None:
    verdict = fine_tune()
    verdict.headline = "Fine-tune: it scores 3 points more."
    assert words.headline(verdict) == "It scores 3 points more."


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        (Cost(break_even_kind="above", break_even_requests=4850), "above 4.85k requests"),
        (Cost(break_even_kind="below", break_even_requests=200), "below 200 requests"),
        (
            Cost(
                break_even_kind="above",
                break_even_requests=10,
                break_even_interval=(5, None),
            ),
            "interval 5 upwards",
        ),
        (Cost(break_even_kind="always"), "at any volume"),
        (Cost(break_even_kind="never"), "no break-even"),
        (Cost(break_even_kind="unbounded"), "No break-even can be named"),
        (Cost(break_even_kind="unbounded", break_even_requests=10), "without a bound"),
    ],
)
def test_break_even_in_words(cost: Cost, says: str) -> None:
    assert says in (words.break_even_sentence(cost) or "")


def test_what_would_make_costs_known() -> None:
    assert [x.partition(":")[0] for x in words.cost_unknowns(Cost())] == [
        "traffic.requests_per_month",
        "costs.prices",
    ]
    known = Cost(requests_per_month=1, usd_per_request_with=1, usd_per_request_without=1)
    assert words.cost_unknowns(known) == []


@pytest.mark.parametrize(
    ("rows", "count", "shown"),
    [
        (["rows.jsonl:3", "rows.jsonl:17"], 2, "rows.jsonl:3, 17"),
        (["a:3", "a:17", "b:2", "a:4"], 60, "a:3, 17, b:2, a:4 and 56 more"),
        (["row-1", "row-2"], 2, "row-1, row-2"),
        (["C:1", "x", "C:2"], 3, "C:1, x, C:2"),
        ([f"r.jsonl:{n}" for n in range(20)], 1_020, "r.jsonl:0, 1, 2, 3, 4, 5 and 1,014 more"),
    ],
)  # fmt: skip
def test_places_name_a_file_once(rows: list[str], count: int, shown: str) -> None:
    assert fmt.places(rows, count) == shown


def test_a_headline_s_numbers_have_a_minus_and_words_their_hyphens() -> None:
    verdict = undecided()
    verdict.headline = (
        "Undecided: few-shot loses 3-4 points (95 % interval -12.7 to -0.3; from -1)."
    )
    assert words.headline(verdict) == (
        "Few-shot loses 3-4 points (95 % interval −12.7 to −0.3; from −1)."
    )
