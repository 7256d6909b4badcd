"""Metrics of plain text, labels and numbers, by tables of cases worked out by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError
from tunewise.scoring.base import ItemScore, Scorer
from tunewise.scoring.normalize import normalize, words
from tunewise.scoring.numbers import last_number
from tunewise.scoring.registry import get_scorer

TEXT_METRICS: list[tuple[str, dict[str, Any]]] = [
    ("exact_match", {}),
    ("normalized_match", {}),
    ("accuracy", {}),
    ("macro_f1", {}),
    ("numeric", {}),
    ("numeric", {"decimal": ","}),
    ("token_f1", {}),
    ("list_f1", {}),
    ("list_f1", {"duplicates": "ignore"}),
    ("json_fields", {}),
    ("json_fields", {"lists": "ordered", "strings": "exact", "null_is_absent": False}),
    ("tool_calls", {}),
    ("contains", {}),
    ("contains", {"whole_words": False, "match": "any"}),
    ("bleu", {}),
    ("chrf", {"word_order": 2}),
    ("rouge_l", {}),
]


def example(gold: str | None, **fields: Any) -> Example:
    messages: tuple[dict[str, Any], ...] = ({"role": "user", "content": "question"},)
    if gold is not None:
        messages += ({"role": "assistant", "content": gold},)
    return Example(id="row", messages=messages, **fields)


def score(name: str, gold: str, answer: str, **options: Any) -> ItemScore:
    return get_scorer(name, options).score(example(gold), Completion(answer))


@pytest.mark.parametrize(
    ("name", "gold", "answer", "value"),
    [
        ("exact_match", "Paris", " Paris\n", 1),
        ("exact_match", "Paris", "paris", 0),
        ("exact_match", "", "", 1),
        ("normalized_match", "The Eiffel Tower!", "eiffel tower", 1),
        ("normalized_match", "a cat", "an  CAT.", 1),
        ("normalized_match", "cats", "cat", 0),
        ("normalized_match", "ﬁne “words”", "FINE WORDS", 1),
        ("normalized_match", "Straße", "STRASSE", 1),
        ("normalized_match", "-", "the", 0),
        ("normalized_match", "the", "the", 1),
        ("normalized_match", "the", "", 0),
        ("token_f1", "the quick brown fox", "quick fox jumps", 2 * (2 / 3) * (2 / 3) / (4 / 3)),
        ("token_f1", "cat cat dog", "cat", 0.5),
        ("token_f1", "cat", "", 0),
        ("token_f1", "", "", 1),
        ("token_f1", "日本語", "日本", 0.8),
        ("rouge_l", "the cat sat on the mat", "the cat on a mat", 2 * 4 / (6 + 5)),
        ("rouge_l", "a b c", "c b a", 1 / 3),
        ("rouge_l", "abc", "xyz", 0),
        ("rouge_l", "!!!", "!!!", 1),
        ("contains", "forty two", "It is Forty-two? No: forty two.", 1),
        ("contains", "art", "a party", 0),
        ("contains", '["milk", "eggs"]', "eggs, then milk", 1),
        ("contains", '["milk", "eggs"]', "only eggs", 0),
        ("contains", "x", "", 0),
        ("contains", "", "something", 0),
        ("contains", "C++", "in c today", 1),
        ("contains", "?", "why?", 1),
        ("accuracy", "card_arrival", "Card_Arrival.", 1),
        ("accuracy", "card_arrival", '"card_arrival"', 1),
        ("accuracy", "card_arrival", "**card_arrival**\n", 1),
        ("accuracy", "card_arrival", "card arrival", 0),
        ("accuracy", "card_arrival", "card_arrival because", 0),
        ("accuracy", "+", "+", 1),
        ("accuracy", "-", "+", 0),
        ("accuracy", "C++", "c", 0),
    ],
)
def test_cases(name: str, gold: str, answer: str, value: float) -> None:
    assert score(name, gold, answer).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value", "percent"),
    [
        ("#### 72", "72", False),
        ("so 3 + 4 = 7.", "7", False),
        ("It costs $1,234.50 in all", "1234.50", False),
        ("1,23,456 rupees", "123456", False),
        ("12 500", "12500", False),
        ("-9 500 in all", "-9500", False),
        ("12 345 678.5", "12345678.5", False),
        (r"\boxed{9{,}500}", "9500", False),
        (r"$9\,500$", "9500", False),
        (r"9\;500 or 9~500", "9500", False),
        ("9\u2009500", "9500", False),
        ("9\u00a0500", "9500", False),
        ("12 34", "34", False),
        ("in 2024 500 came", "500", False),
        ("1 100/200", "1.5", False),
        (r"0{,}5 \, 7", "7", False),
        ("12\u202f500", "12500", False),
        ("Switzerland: 1'000'000", "1000000", False),
        ("minus: -5", "-5", False),
        ("−5 °C", "-5", False),
        ("-$5", "-5", False),
        ("$-5", "-5", False),
        ("between 10-20", "20", False),
        ("grew by 45 %", "45", True),
        ("3/4", "0.75", False),
        ("1 3/4 cups", "1.75", False),
        ("1½", "1.5", False),
        (".5", "0.5", False),
        ("1e-4", "0.0001", False),
        ("2.5E3", "2500", False),
        ("答案是42", "42", False),
        ("GPT4 says nothing", None, False),
        ("none", None, False),
        ("3/0", None, False),
        ("٤٢", "42", False),
        ("12345678901234567890", "12345678901234567890", False),
    ],
)
def test_last_number(text: str, value: str | None, percent: bool) -> None:
    number = last_number(text)
    if value is None:
        assert number is None
    else:
        assert number is not None
        assert float(number.value) == pytest.approx(float(value))
        assert number.percent is percent


@pytest.mark.parametrize(
    ("gold", "answer", "value", "options"),
    [
        ("72", "The answer is 72", 1, {}),
        ("#### 1,200", "1200.00", 1, {}),
        ("0.45", "45%", 1, {}),
        ("45", "45 %", 1, {}),
        ("45%", "44%", 0, {}),
        ("3.14159", "3.14", 0, {}),
        ("3.14159", "3.14", 1, {"tolerance": 0.01}),
        ("1000", "1009", 1, {"relative": 0.01}),
        ("1000", "1011", 0, {"relative": 0.01}),
        ("1.234,5", "1234,5", 1, {"decimal": ","}),
        ("12345678901234567890", "12345678901234567891", 0, {"relative": 0.0}),
        ("yes", "Yes.", 1, {}),
        ("7", "seven", 0, {}),
        ("0", "-0.0", 1, {}),
    ],
)
def test_numeric(gold: str, answer: str, value: int, options: dict[str, Any]) -> None:
    assert score("numeric", gold, answer, **options).value == value


def test_numbers_that_are_too_large_do_not_raise() -> None:
    for text in ("1e9999", "9" * 6000, "1/" + "3" * 5000, "-" * 500 + "1e-9999"):
        assert score("numeric", "5", text).value == 0
        assert score("numeric", text, text).value == 1


@pytest.mark.parametrize(
    ("options", "gold", "answer", "value"),
    [
        ({"pattern": r"answer is (\d+)"}, "42", "The answer is 42.", 1),
        ({"pattern": r"answer is (\d+)"}, "42", "The answer is 43.", 0),
        ({"pattern": r"answer is (\d+)"}, "the answer is 42", "So the answer is 42", 1),
        ({"pattern": r"answer is (\d+)"}, "42", "42", 0),
        ({"pattern": r"^\d{3}$"}, "anything", "123", 1),
        ({"pattern": r"\d{3}", "full": True}, "anything", "1234", 0),
        ({"pattern": "YES", "ignore_case": True}, "", "yes", 1),
        ({"pattern": r"(a)|(b)"}, "", "b", 1),
    ],
)
def test_regex(options: dict[str, Any], gold: str, answer: str, value: int) -> None:
    assert score("regex", gold, answer, **options).value == value


def test_a_pattern_that_never_ends_is_zero_and_does_not_hang() -> None:
    scorer = get_scorer("regex", {"pattern": r"^(a|aa)+$"})
    start = time.process_time()
    items = [scorer.score(example("x"), Completion("a" * 200 + "b")) for _ in range(3)]
    assert time.process_time() - start < 5
    assert [item.value for item in items] == [0, 0, 0]
    assert "ran out of time" in items[0].details["reason"]
    assert scorer.score(example("aa"), Completion("aa")).value == 1


def test_a_pattern_that_never_ends_on_every_row_has_a_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunewise.scoring.text._REGEX_BUDGET", 0.6)
    scorer = get_scorer("regex", {"pattern": r"^(a|aa)+$"})
    start = time.process_time()
    for _ in range(40):
        assert scorer.score(example("x"), Completion("a" * 200 + "b")).value == 0
    assert time.process_time() - start < 8


@pytest.mark.parametrize("pattern", ["(", "[", "(?P<x>a)(?P<x", "a{99999999999999}"])
def test_a_broken_pattern_is_an_error_at_once(pattern: str) -> None:
    try:
        get_scorer("regex", {"pattern": pattern})
    except StudyError as error:
        assert error.where == "metric.options.pattern"
    else:
        # The package reads some odd quantifiers as plain text; then the pattern must work.
        assert score("regex", "", "b", pattern=pattern).value in (0, 1)


def test_rouge_l_is_that_of_the_rouge_package() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"])
    pairs = [
        ("The cat sat on the mat.", "A cat was sitting on the mat, today."),
        ("one two three four five", "five four three two one"),
        ("x " * 70 + "y z", "z " + "x " * 65),
        ("I'd like 3.5 kg (three and a half)!", "I would like 3.5 kg"),
    ]
    for gold, answer in pairs:
        item = score("rouge_l", gold, answer)
        expected = theirs.score(gold, answer)["rougeL"]
        assert item.value == pytest.approx(expected.fmeasure)
        assert item.details["precision"] == pytest.approx(expected.precision)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=90),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=90),
)
def test_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    expected = 2 * table[-1][-1] / (len(one) + len(other))
    assert score("rouge_l", " ".join(one), " ".join(other)).value == pytest.approx(expected)


def test_normalisation_is_that_of_squad_on_plain_ascii() -> None:
    assert normalize("The  U.S.A. isn't an island") == "usa isnt island"
    assert words("It's 3.5% of A_B") == ["it", "s", "3", "5", "of", "a", "b"]


anything = st.one_of(
    st.text(max_size=60),
    st.text(alphabet='[]{}",:0123456789.-+eE%/ \n\\u', max_size=60),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=12,
    ).map(lambda value: __import__("json").dumps(value)),
)


@pytest.mark.parametrize(("name", "options"), TEXT_METRICS)
@settings(max_examples=30, deadline=None)
@given(gold=anything, answer=anything)
def test_any_text_gives_a_score_in_0_to_1(
    name: str, options: dict[str, Any], gold: str, answer: str
) -> None:
    scorer = get_scorer(name, options)
    item = scorer.score(example(gold), Completion(answer))
    assert 0.0 <= item.value <= 1.0
    assert not scorer.binary or item.value in (0.0, 1.0)
    assert scorer.score(example(gold), Completion(gold)).value == 1.0
    assert 0.0 <= scorer.aggregate([item, item]) <= 1.0


@pytest.mark.parametrize(("name", "options"), TEXT_METRICS)
def test_what_goes_wrong_is_zero_with_the_reason(name: str, options: dict[str, Any]) -> None:
    scorer = get_scorer(name, options)
    failed = scorer.score(example(""), Completion(error="rate limit"))
    assert failed.value == 0
    assert "rate limit" in failed.details["reason"]
    unanswerable = scorer.score(example(None), Completion("x"))
    assert unanswerable.value == 0
    assert "no wanted answer" in unanswerable.details["reason"]
    items = [failed, unanswerable, scorer.score(example("7 cats ran home"), Completion("7 cats"))]
    assert 0 <= scorer.aggregate(items) <= 1


@pytest.mark.parametrize(("name", "options"), TEXT_METRICS)
@pytest.mark.parametrize(
    "answer",
    [
        "[" * 20_000,
        '{"a":' * 20_000,
        "\ud800",
        '"\\ud800"',
        "\0",
        "1" * 20_000,
        "-" * 20_000,
        "1,11" * 9_000,
        "1/" * 20_000,
        "`" * 20_000,
        "<tool_call>" * 5_000,
    ],
)
def test_hostile_answers_are_scored_quickly(
    name: str, options: dict[str, Any], answer: str
) -> None:
    start = time.process_time()
    item = get_scorer(name, options).score(example('{"a": [1, "x"]}'), Completion(answer))
    assert 0 <= item.value <= 1
    assert time.process_time() - start < 3


def test_a_recorded_score_stands_where_no_answer_does() -> None:
    only_score = Completion(score=0.5)
    assert get_scorer("token_f1").score(example("x"), only_score).value == 0.5
    both = Completion(text="x", score=0.25)
    assert get_scorer("exact_match").score(example("x"), both).value == 1
    with pytest.raises(StudyError, match="only a score is recorded"):
        get_scorer("macro_f1").score(example("x"), only_score)


def test_recorded() -> None:
    plain: Scorer = get_scorer("recorded")
    assert plain.score(example("x"), Completion(score=0.5)).value == 0.5
    assert plain.score(example("x"), Completion(text="y", score=0.5)).value == 0.5
    assert plain.score(example("x"), Completion(text="x")).value == 0
    assert plain.score(example("x"), Completion(score=0.5, error="lost")).value == 0
    assert "0..1" in plain.score(example("x"), Completion(score=7.0)).details["reason"]
    mixed = get_scorer("recorded", {"scorer": "exact_match"})
    assert mixed.score(example("x"), Completion(text="x")).value == 1
    assert mixed.score(example("x"), Completion(text="x", score=0.0)).value == 0
    for bad in ("bleu", "recorded"):
        with pytest.raises(StudyError, match="cannot be mixed"):
            get_scorer("recorded", {"scorer": bad})


def test_tool_calls_are_text_for_metrics_of_text() -> None:
    call = {"function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}
    wanted = Example("1", ({"role": "assistant", "content": None, "tool_calls": [call]},))
    same = {"function": {"name": "f", "arguments": '{"a": 2, "b": 1}'}}
    scorer = get_scorer("exact_match")
    assert scorer.score(wanted, Completion(tool_calls=(same,))).value == 1
    assert scorer.score(wanted, Completion("")).value == 0
