"""How an example becomes a request, and what the training answers look like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from candidates_kit import LIMITS, LookingEngine, jsonl, row
from tunewise.candidates.answers import shape_of
from tunewise.candidates.passages import Passage
from tunewise.candidates.prompting import (
    Limits,
    Prompting,
    answer_limit,
    text_counter,
)
from tunewise.data.chat import Example

SHARED = [row(f"r{i}", f"question {i}", "a", system="Be a helper.") for i in range(20)]
OWN = [row(f"o{i}", f"question {i}", "a", system=f"You know fact {i}.") for i in range(20)]


def _roles(messages: object) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in messages]  # type: ignore[attr-defined]


def test_without_instructions_the_rows_own_system_message_stays() -> None:
    prompting = Prompting.from_rows(SHARED, LIMITS)
    assert _roles(prompting.messages(SHARED[3])) == [
        ("system", "Be a helper."),
        ("user", "question 3"),
    ]


def test_instructions_replace_a_shared_system_message() -> None:
    prompting = Prompting.from_rows(SHARED, LIMITS, "Answer well.")
    assert prompting.system(SHARED[0]) == "Answer well."
    assert prompting.system(row("new", "q", None)) == "Answer well."


def test_instructions_precede_a_system_message_of_the_rows_own() -> None:
    prompting = Prompting.from_rows([*SHARED, *OWN], LIMITS, "Answer well.")
    assert prompting.system(OWN[4]) == "Answer well.\n\nYou know fact 4."
    assert prompting.system(SHARED[0]) == "Answer well."


def test_note_comes_last_and_stands_alone_where_there_is_no_system_message() -> None:
    prompting = Prompting.from_rows(SHARED, LIMITS).wording(instructions=None, note="One word.")
    assert prompting.system(SHARED[0]) == "Be a helper.\n\nOne word."
    assert prompting.system(row("x", "q", "a")) == "One word."
    bare = Prompting.from_rows([], LIMITS)
    assert _roles(bare.messages(row("x", "q", "a"))) == [("user", "q")]


def test_the_wanted_answer_never_stands_in_the_request() -> None:
    example = row("x", "question", "SECRET", system="Sys")
    request = Prompting.from_rows([example], LIMITS).request(example)
    assert "SECRET" not in json.dumps(request.as_dict())


def test_limits_tools_and_weight() -> None:
    tools = ({"type": "function", "function": {"name": "f"}},)
    messages = (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two", "weight": 0},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four", "weight": 1},
    )
    limits = Limits(max_tokens=7, json_schema={"type": "object"}, stop=("\n",))
    request = Prompting.from_rows([], limits).request(Example("x", messages, tools=tools))
    assert (request.max_tokens, request.stop, request.temperature) == (7, ("\n",), 0.0)
    assert request.json_schema == {"type": "object"}
    assert request.tools == tools
    assert [dict(m) for m in request.messages] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]


def test_shots_are_turns_between_system_message_and_row() -> None:
    prompting = Prompting.from_rows(SHARED, LIMITS, "Do it.")
    found = prompting.messages(SHARED[0], shots=[SHARED[1], OWN[2]])
    assert _roles(found) == [
        ("system", "Do it."),
        ("user", "question 1"),
        ("assistant", "a"),
        ("user", "You know fact 2.\n\nquestion 2"),
        ("assistant", "a"),
        ("user", "question 0"),
    ]


def test_a_shot_with_tool_calls_is_followed_by_a_tool_message() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    shot = Example(
        "s",
        (
            {"role": "user", "content": "do"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ),
    )
    found = Prompting.from_rows([], LIMITS).messages(row("x", "q", "a"), shots=[shot])
    assert [m["role"] for m in found] == ["user", "assistant", "tool", "user"]
    assert found[2]["tool_call_id"] == "c1"


def test_passages_stand_numbered_before_the_last_question() -> None:
    messages = (
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "done"},
    )
    passages = [Passage("d1", 0, "Text one.", "Title"), Passage("d2", 3, "Text two.")]
    found = Prompting.from_rows([], LIMITS).messages(Example("x", messages), passages=passages)
    assert found[0]["content"] == "first"
    assert found[2]["content"] == "[1] Title\nText one.\n\n[2] Text two.\n\nsecond"


def test_passages_beside_content_in_parts() -> None:
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    example = Example("x", ({"role": "user", "content": parts},))
    found = Prompting.from_rows([], LIMITS).messages(example, passages=[Passage("d", 0, "T.")])
    assert found[0]["content"] == [{"type": "text", "text": "[1] T.\n\n"}, *parts]


def test_training_example_is_the_request_with_its_answer() -> None:
    prompting = Prompting.from_rows(SHARED, LIMITS, "Do it.")
    trained = prompting.training_example(SHARED[0])
    assert trained.id == SHARED[0].id
    assert trained.prompt == prompting.request(SHARED[0]).messages
    assert trained.target == SHARED[0].target


@pytest.mark.parametrize(
    ("lengths", "limit"), [([1] * 200, 16), ([100] * 200, 133), ([10] * 199 + [900], 21)]
)
def test_answer_limit(lengths: list[int], limit: int) -> None:
    train = [row(f"r{i}", "q", "word " * n) for i, n in enumerate(lengths)]
    assert answer_limit(train, text_counter(LookingEngine().count_tokens)) == limit


def test_answer_limit_of_rows_without_answers() -> None:
    assert answer_limit([row("x", "q", None)], len) == 256


def _shape(answers: list[str]) -> object:
    shape = shape_of([row(f"r{i}", f"q{i}", a) for i, a in enumerate(answers)])
    return shape.kind, shape.note


def test_shapes_of_answers() -> None:
    assert _shape(["yes"] * 6 + ["no"] * 4) == ("labels", "Answer with one of: yes, no")
    assert _shape(['["a"]', "[]", '["b", "c"]']) == (
        "json_list",
        "Answer with a JSON list only.",
    )
    assert _shape(['{"a": 1, "b": 2}', '{"b": 1, "a": 3}', '{"b": 0, "a": 3, "c": 4}']) == (
        "json_object",
        'Answer with a JSON object with the keys "a", "b" only.',
    )
    assert _shape(["12", "-3.5", "1,000"]) == ("number", "Answer with a number only.")
    assert _shape(["Kawann Short", "four", "the Panthers"])[0] == "text"  # type: ignore[index]
    assert _shape([]) == ("text", "Give the answer only, without introduction or explanation.")


def test_labels_need_repetition() -> None:
    shape = shape_of([row(f"r{i}", "q", f"answer {i // 2}") for i in range(40)])
    assert shape.reason is not None and "20 values" in shape.reason
    one = shape_of([row(f"r{i}", "q", "same") for i in range(40)])
    assert one.reason == "all training rows have the same answer"


def test_known_labels_are_taken() -> None:
    assert shape_of([row("x", "q", "odd")], ["a", "b"]).labels == ("a", "b")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("recipes/train", "json_list"), ("snips/train", "json_object"), ("banking77/train", "labels")],
)
def test_shapes_of_real_answers(shared: Path, name: str, kind: str) -> None:
    values = jsonl(shared / "data" / f"{name}.jsonl")
    answers = [v["output"] if "output" in v else v["messages"][-1]["content"] for v in values]
    shape = shape_of([row(f"r{i}", "q", a) for i, a in enumerate(answers)])
    assert shape.kind == kind
    assert len(shape.labels) == (77 if kind == "labels" else 0)
