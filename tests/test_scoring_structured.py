"""Lists, JSON and tool calls, by cases worked out by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError
from tunewise.scoring.base import ItemScore, SetFigures
from tunewise.scoring.calls import calls_in
from tunewise.scoring.jsontext import find_json, json_values
from tunewise.scoring.registry import get_scorer
from tunewise.scoring.structured import list_items


def score(name: str, gold: str, answer: str, **options: Any) -> ItemScore:
    row = Example("row", ({"role": "assistant", "content": gold},))
    return get_scorer(name, options).score(row, Completion(answer))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["Brown Sugar", "milk."]', ["brown sugar", "milk"]),
        ('Sure!\n```json\n["milk"]\n```', ["milk"]),
        ('The list is ["milk", "eggs"] as asked', ["milk", "eggs"]),
        ('{"ingredients": ["milk"]}', ["milk"]),
        ("- milk\n* eggs\n3. 2 apples\n", ["milk", "eggs", "2 apples"]),
        ("milk, eggs; flour", ["milk", "eggs", "flour"]),
        ("苹果、牛奶", ["苹 果", "牛 奶"]),
        ("[1, 2.0, true, null]", ["1", "2.0", "true", "null"]),
        ('[{"b": "X", "a": 1}]', ['{"a": 1, "b": "x"}']),
        ("[]", []),
        ("", []),
        ('["", "  "]', []),
    ],
)
def test_list_items(text: str, items: list[str]) -> None:
    assert list_items(text) == items


@pytest.mark.parametrize(
    ("gold", "answer", "value", "options"),
    [
        ('["milk", "eggs"]', '["eggs", "Milk"]', 1, {}),
        ('["milk", "eggs"]', "milk", 2 * 1 * 0.5 / 1.5, {}),
        ('["milk"]', '["milk", "eggs", "tea"]', 2 * (1 / 3) * 1 / (4 / 3), {}),
        ('["milk"]', '["milk", "milk"]', 2 * 0.5 * 1 / 1.5, {}),
        ('["milk"]', '["milk", "milk"]', 1, {"duplicates": "ignore"}),
        ('["a", "a"]', '["a", "a"]', 1, {}),
        ("[]", "[]", 1, {}),
        ("[]", "milk", 0, {}),
        ('["milk"]', "", 0, {}),
        ('["milk"]', "I do not know", 0, {}),
    ],
)
def test_list_f1(gold: str, answer: str, value: float, options: dict[str, Any]) -> None:
    item = score("list_f1", gold, answer, **options)
    assert item.value == pytest.approx(value)
    assert {"precision", "recall", "missing", "extra"} <= set(item.details)


def test_list_f1_explains_itself() -> None:
    details = score("list_f1", '["milk", "eggs"]', '["eggs", "tea", "tea"]').details
    assert details["missing"] == ["milk"]
    assert details["extra"] == ["tea", "tea"]
    assert details["precision"] == pytest.approx(1 / 3)
    assert details["recall"] == 0.5


GOLD = {"intent": "Play", "slots": {"artist": "Bach", "year": 1720}}


@pytest.mark.parametrize(
    ("gold", "answer", "value", "options"),
    [
        (GOLD, GOLD, 1, {}),
        (GOLD, {"slots": {"year": 1720.0, "artist": " bach "}, "intent": "play"}, 1, {}),
        (GOLD, {"intent": "play", "slots": {}}, 2 * (1 / 2) * (1 / 3) / (5 / 6), {}),
        (GOLD, {"intent": "Play", "slots": {"artist": "Bach", "year": "1720"}}, 2 / 3, {}),
        (GOLD, {"intent": "Stop", "slots": {"song": "x", "mood": "y", "room": "z"}}, 0, {}),
        (GOLD, {"intent": "play", "slots": GOLD["slots"]}, 2 / 3, {"strings": "exact"}),
        ({"a": 1}, {"a": True}, 0, {}),
        ({"a": None, "b": 1}, {"b": 1}, 1, {}),
        ({"a": None, "b": 1}, {"b": 1}, 2 * 1 * 0.5 / 1.5, {"null_is_absent": False}),
        ({"a": None}, {"a": "invented"}, 0, {}),
        ({}, {}, 1, {}),
        ({}, {"a": 1}, 0, {}),
        ([], [], 1, {}),
        ([], [1], 0, {}),
        ({"a": []}, {"a": []}, 1, {}),
        ({"a": []}, {"a": [1, 2]}, 0, {}),
        ([3, 1, 2], [1, 2, 3], 1, {}),
        ([3, 1, 2], [1, 2, 3], 0, {"lists": "ordered"}),
        ([1, 2, 3], [1, 2, 4], 2 / 3, {"lists": "ordered"}),
        ([[1, 2], [3, 4]], [[3, 4], [1, 2]], 1, {}),
    ],
)
def test_json_fields(gold: Any, answer: Any, value: float, options: dict[str, Any]) -> None:
    item = score("json_fields", json.dumps(gold), json.dumps(answer), **options)
    assert item.value == pytest.approx(value)
    assert item.details["valid_json"] is True
    assert item.details["exact"] is (value == 1)


PEOPLE = [{"type": "person", "text": "Ada"}, {"type": "person", "text": "Bob"}]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (list(reversed(PEOPLE)), 1),
        # Right types with invented texts are no entities at all.
        ([{"type": "person", "text": "Eve"}, {"type": "person", "text": "Zoe"}], 0),
        # Fields that are right but belong to different items are not credited twice.
        ([{"type": "person", "text": "Ada"}], 2 * 1 * 0.5 / 1.5),
        ([*PEOPLE, {"type": "person", "text": "Eve"}], 2 * (2 / 3) * 1 / (5 / 3)),
    ],
)
def test_items_of_lists_are_paired_as_wholes(answer: Any, value: float) -> None:
    assert score("json_fields", json.dumps(PEOPLE), json.dumps(answer)).value == pytest.approx(
        value
    )


def test_swapped_fields_do_not_look_right() -> None:
    gold = [{"type": "person", "text": "Ada"}, {"type": "city", "text": "Rome"}]
    swapped = [{"type": "city", "text": "Ada"}, {"type": "person", "text": "Rome"}]
    assert score("json_fields", json.dumps(gold), json.dumps(swapped)).value == 0


def test_mostly_right_items_earn_their_fields() -> None:
    gold = [{"name": "milk", "unit": "l", "amount": 1}]
    answer = [{"name": "milk", "unit": "l", "amount": 2}]
    assert score("json_fields", json.dumps(gold), json.dumps(answer)).value == pytest.approx(2 / 3)


def test_validity_is_reported_apart_from_content() -> None:
    gold = json.dumps(GOLD)
    fenced = score("json_fields", gold, f"Here you are:\n```json\n{gold}\n```")
    assert (fenced.value, fenced.details["valid_json"]) == (1, False)
    assert score("json_fields", gold, f"So: {gold}.").value == 1
    assert score("json_fields", gold, f"So: {gold}.", strict=True).value == 0
    broken = score("json_fields", gold, gold[:-1])
    assert (broken.value, broken.details["valid_json"]) == (0, False)
    invented = score("json_fields", gold, '{"intent": "Stop", "slots": {"artist": "Liszt"}}')
    assert (invented.value, invented.details["valid_json"]) == (0, True)
    assert score("json_fields", '{"a": 1}', '{"a": NaN}').details["valid_json"] is False
    scorer = get_scorer("json_fields")
    assert isinstance(scorer, SetFigures)
    figures = scorer.figures([fenced, broken, invented])
    assert figures["valid_json"] == pytest.approx(1 / 3)
    assert figures["exact"] == pytest.approx(1 / 3)


def test_schema_validity(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^(x|xx)+$"}},
        "required": ["a"],
    }

    def valid(answer: Any, schema: Any = schema) -> bool:
        item = score("json_fields", '{"a": "x"}', json.dumps(answer), schema=schema)
        return bool(item.details["schema_valid"])

    assert valid({"a": "xx"})
    assert not valid({"a": 5})
    assert not valid({"b": "x"})
    # The pattern never ends on this text.
    assert not valid({"a": "x" * 300 + "y"})
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    assert valid({"a": "x"}, str(file))
    for bad in ({"type": "thing"}, {"patternProperties": {"(a|aa)+$": {}}}, str(tmp_path / "no")):
        with pytest.raises(StudyError) as error:
            valid({}, bad)
        assert error.value.where is not None
        assert error.value.where.startswith("metric.options.schema")
    with pytest.raises(StudyError, match="refers to what it does not hold"):
        valid({}, {"$ref": "https://example.com/schema.json"})


def test_finding_json() -> None:
    found = find_json('say [not json] then {"a": [1]} and {"b": 2}')
    assert found is not None
    assert (found.value, found.alone) == ({"a": [1]}, False)
    assert json_values('{"a": {"b": 1}} [2]') == [{"a": {"b": 1}}, [2]]
    assert find_json("no json") is None
    assert find_json("[" * 100 + "]" * 100) is None
    whole = find_json(" 5 ")
    assert whole is not None
    assert (whole.value, whole.alone) == (5, True)


CALL = '{"name": "area", "arguments": {"base": 10, "unit": "cm"}}'


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"[{CALL}]",
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"I will call it: <tool_call>{CALL}",
        f"```json\n{CALL}\n```",
        f"Let me see. {CALL} Done.",
        '{"name": "area", "parameters": {"base": 10, "unit": "cm"}}',
        '{"type": "function", "function": ' + CALL + "}",
        '{"tool_calls": [{"function": ' + CALL + "}]}",
        json.dumps({"name": "area", "arguments": '{"base": 10, "unit": "cm"}'}),
        '[{"area": {"base": 10, "unit": "cm"}}]',
    ],
)
def test_forms_of_a_call(text: str) -> None:
    calls = calls_in(text)
    assert [(c.name, dict(c.arguments)) for c in calls] == [("area", {"base": 10, "unit": "cm"})]
    assert score("tool_calls", CALL, text).value == 1


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"name": "area", "arguments": {"unit": "cm", "base": 10.0}}', 1),
        ('{"name": "area", "arguments": {"base": 10}}', 0),
        ('{"name": "area", "arguments": {"base": 10, "unit": "cm", "x": 1}}', 0),
        ('{"name": "area", "arguments": {"base": "10", "unit": "cm"}}', 0),
        ('{"name": "area", "arguments": {"base": 10, "unit": "CM"}}', 0),
        ('{"name": "volume", "arguments": {"base": 10, "unit": "cm"}}', 0),
        (f"{CALL} {CALL}", 0),
        ("The area is 25.", 0),
        ('{"name": "area", "arguments": "not json"}', 0),
        ('{"name": 5}', 0),
        ("", 0),
    ],
)
def test_tool_calls(answer: str, value: int) -> None:
    item = score("tool_calls", CALL, answer)
    assert item.value == value
    assert value or item.details["reason"]


def test_true_is_not_one() -> None:
    gold = '{"name": "f", "arguments": {"x": true}}'
    assert score("tool_calls", gold, '{"name": "f", "arguments": {"x": 1}}').value == 0
    assert score("tool_calls", gold, gold).value == 1


def test_parallel_calls_in_any_order() -> None:
    one, two = ('{"name": "f", "arguments": {"x": %d}}' % x for x in (1, 2))  # noqa: UP031
    assert score("tool_calls", f"[{one}, {two}]", f"[{two}, {one}]").value == 1
    assert score("tool_calls", f"[{one}, {two}]", f"[{two}, {one}]", ordered=True).value == 0
    assert score("tool_calls", f"[{one}, {two}]", f"[{one}, {one}]").value == 0
    # A greedy pairing would give f(1) to the call that also accepts 2.
    loose = '[{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}]'
    assert score("tool_calls", loose, f"[{one}, {two}]").value == 1


def test_openai_tool_calls() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"x": [1, {"y": "z"}]}'}}
    row = Example("1", ({"role": "assistant", "content": None, "tool_calls": [call]},))
    scorer = get_scorer("tool_calls")
    same = {"id": "other", "function": {"name": "f", "arguments": '{ "x": [1.0, {"y":"z"}] }'}}
    assert scorer.score(row, Completion(tool_calls=(same,))).value == 1
    assert scorer.score(row, Completion('<tool_call>{"name": "f"}</tool_call>')).value == 0
    assert scorer.score(row, Completion(error="timeout", tool_calls=(same,))).value == 0
    bad = {"function": {"name": "f", "arguments": "{"}}
    assert scorer.score(row, Completion(tool_calls=(bad,))).value == 0


def test_no_call_is_right_where_none_is_wanted() -> None:
    for gold in ("[]", "I cannot help with that."):
        assert score("tool_calls", gold, "Sorry, no tool fits.").value == 1
        assert score("tool_calls", gold, "[]").value == 1
        assert score("tool_calls", gold, CALL).value == 0


ACCEPTABLE = json.dumps(
    [
        {
            "math.area": {
                "base": [10],
                "unit": ["square feet", "sq. ft", ""],
                "corner": [{"x": [1, 2], "label": ["A", ""]}],
            }
        }
    ]
)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"base": 10, "unit": "square feet", "corner": {"x": 1}}, 1),
        ({"base": 10, "corner": {"x": 2, "label": "a"}}, 1),
        ({"base": 10, "unit": "SQ ft", "corner": {"x": 2}}, 1),
        ({"base": 10, "unit": "cm", "corner": {"x": 1}}, 0),
        ({"base": 10, "corner": {"x": 3}}, 0),
        ({"base": 10, "corner": {"label": "A"}}, 0),
        ({"base": 10, "corner": {"x": 1, "more": 1}}, 0),
        ({"unit": "square feet", "corner": {"x": 1}}, 0),
        ({"base": [10], "corner": {"x": 1}}, 0),
    ],
)
def test_several_acceptable_values(arguments: dict[str, Any], value: int) -> None:
    for name in ("math.area", "math_area"):
        answer = json.dumps({"name": name, "arguments": arguments})
        assert score("tool_calls", ACCEPTABLE, answer).value == value


BFCL = ("simple_python", "multiple", "parallel", "parallel_multiple", "live_simple", "irrelevance")


@pytest.mark.parametrize("file", [*BFCL, "live_multiple"])
def test_the_berkeley_leaderboard(shared: Path, file: str) -> None:
    """The ground truth is right in its own notation and as a call; any changed call is wrong."""
    scorer = get_scorer("tool_calls")
    rng = random.Random(0)
    lines = (shared / "data/bfcl" / f"{file}.jsonl").read_text("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    for row in rng.sample(rows, min(200, len(rows))):
        gold = row["output"]
        example = Example(row["id"], ({"role": "assistant", "content": gold},))
        assert scorer.score(example, Completion(gold)).value == 1, row["id"]
        calls = [
            {"name": name, "arguments": {k: _first(v) for k, v in args.items() if v}}
            for call in json.loads(gold)
            for name, args in call.items()
        ]
        rng.shuffle(calls)
        assert scorer.score(example, Completion(json.dumps(calls))).value == 1, row["id"]
        if calls:
            missing = json.dumps(calls[:-1])
            assert scorer.score(example, Completion(missing)).value == 0, row["id"]
            renamed = [{**calls[0], "name": "another"}, *calls[1:]]
            assert scorer.score(example, Completion(json.dumps(renamed))).value == 0, row["id"]
        else:
            invented = json.dumps([{"name": row["functions"][0]["name"], "arguments": {}}])
            assert scorer.score(example, Completion(invented)).value == 0, row["id"]


def _first(options: list[Any]) -> Any:
    """A value that the ground truth accepts; nested objects list acceptable values, too."""
    value = options[0]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(v, list) for v in value.values()):
        return {k: _plain(v[0]) for k, v in value.items() if v}
    return [_plain(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("file", "metric"),
    [
        ("recipes/validation", "list_f1"),
        ("snips/test", "json_fields"),
        ("wnut17/test", "json_fields"),
        ("wnut17/test", "list_f1"),
        ("banking77/test", "accuracy"),
        ("xquad_en/qa", "token_f1"),
        ("e2e_nlg/test", "chrf"),
    ],
)
def test_wanted_answers_of_real_data_score_one(shared: Path, file: str, metric: str) -> None:
    scorer = get_scorer(metric)
    lines = (shared / "data" / f"{file}.jsonl").read_text("utf-8").splitlines()
    items, others = [], []
    golds = []
    for line in lines[:400]:
        row = json.loads(line)
        golds.append(row["messages"][-1]["content"] if "messages" in row else row["output"])
    shuffled = random.Random(1).sample(golds, len(golds))
    for gold, other in zip(golds, shuffled, strict=True):
        example = Example("row", ({"role": "assistant", "content": gold},))
        items.append(scorer.score(example, Completion(gold)))
        others.append(scorer.score(example, Completion(other)))
    assert all(item.value == 1 for item in items)
    assert scorer.aggregate(items) == pytest.approx(1)
    # Answers to other rows have the right form and the wrong content.
    assert scorer.aggregate(others) < 0.55
