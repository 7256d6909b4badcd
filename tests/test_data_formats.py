"""Rows of every known format become the right examples, and broken rows say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunewise.data.chat import Example
from tunewise.data.findings import RowError
from tunewise.data.formats import detect, to_example, to_row
from tunewise.data.read import read_examples
from tunewise.errors import DataError
from tunewise.study.schema import Columns

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
OTHER = {"role": "assistant", "content": "b"}


def example(row: Mapping[str, Any], columns: Columns | None = None) -> Example:
    return to_example(row, detect([row], columns), columns)[0]


def said(made: Example) -> list[tuple[str, Any]]:
    return [(m["role"], m["content"]) for m in made.messages]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT]},
        {"messages": json.dumps([USER, ASSISTANT])},
        {"prompt": "q", "completion": "a"},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"input": "q", "output": "a"},
        {"question": "q", "answer": "a"},
        {"text": "q", "label": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "response": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": [USER, ASSISTANT]},
    ],
)
def test_one_question_and_answer_in_every_dialect(row: dict[str, Any]) -> None:
    assert said(example(row)) == [("user", "q"), ("assistant", "a")]


def test_alpaca_with_everything() -> None:
    row = {
        "instruction": "Translate.",
        "input": "chat",
        "output": "cat",
        "system": "Be brief.",
        "history": [["Hello", "Hi"]],
    }
    assert said(example(row)) == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi"),
        ("user", "Translate.\nchat"),
        ("assistant", "cat"),
    ]


def test_no_system_prompt_is_invented() -> None:
    assert [m["role"] for m in example({"input": "q", "output": "a"}).messages] == [
        "user",
        "assistant",
    ]


def test_openai_chat_with_tools_weights_and_parts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    row = {
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "tool_calls": [call], "weight": 0},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            ASSISTANT,
        ],
        "tools": [tool],
        "parallel_tool_calls": False,
    }
    made = example(row)
    assert made.tools == (tool,)
    assert made.metadata == {"parallel_tool_calls": False}
    assert made.messages[2]["tool_calls"] == [call] and made.messages[2]["weight"] == 0
    assert made.user_text == "q" and made.answer == "a"


def test_old_function_calls_become_tool_calls() -> None:
    row = {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": '{"x": 1}'},
            },
            {"role": "function", "name": "f", "content": "ok"},
            ASSISTANT,
        ],
        "functions": [{"name": "f", "parameters": {}}],
    }
    made = example(row)
    call = made.messages[1]["tool_calls"][0]
    assert call["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert made.messages[2]["role"] == "tool" and made.messages[2]["tool_call_id"] == call["id"]
    assert made.tools[0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    "row",
    [
        {
            "input": {"messages": [USER]},
            "preferred_output": [ASSISTANT],
            "non_preferred_output": [{"role": "assistant", "content": "bad"}],
        },
        {"prompt": "q", "chosen": "a", "rejected": "bad"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": "bad"},
        {
            "chosen": [USER, ASSISTANT],
            "rejected": [USER, {"role": "assistant", "content": "bad"}],
        },
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "bad"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
    ],
)
def test_preferences(row: dict[str, Any]) -> None:
    made = example(row)
    assert said(made) == [("user", "q"), ("assistant", "a")]
    assert made.rejected is not None and made.rejected["content"] == "bad"
    again = to_row(made)
    assert to_example(again, detect([again]))[0] == made


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a", "label": False},
        {"messages": [USER, ASSISTANT], "label": False},
        {"messages": [USER, ASSISTANT], "kto_tag": False},
        {"instruction": "q", "input": "", "output": "a", "kto_tag": "false"},
    ],
)
def test_labelled_single_answers(row: dict[str, Any]) -> None:
    made = example(row)
    assert made.desirable is False and said(made) == [("user", "q"), ("assistant", "a")]


def test_column_map_and_optional_fields() -> None:
    row = {"Frage": "q", "Antwort": 7, "key": 12, "user": "u1", "when": "2026-01-02", "output": "x"}
    columns = Columns(input="Frage", output="Antwort", id="key", group="user", time="when")
    made = example(row, columns)
    assert said(made) == [("user", "q"), ("assistant", "7")]
    assert (made.id, made.group, made.time) == ("12", "u1", "2026-01-02")
    assert made.metadata == {"original_output": "x"}


def test_documents_and_split() -> None:
    made = example({"input": "q", "output": "a", "doc_id": 0, "split": "validation"})
    assert made.documents == ("0",) and made.split == "dev" and made.metadata == {}
    made = example({"input": "q", "output": "a", "doc_ids": ["x", "y"], "split": "fold 3"})
    assert made.documents == ("x", "y") and made.split is None
    assert made.metadata == {"split": "fold 3"}


def test_answers_that_are_json_values() -> None:
    assert example({"input": "q", "output": ["ä", 1]}).answer == '["ä", 1]'
    assert example({"input": "q", "output": {"k": None}}).answer == '{"k": null}'
    assert example({"prompt": "q", "chosen": "[link](x) it", "rejected": "{"}).answer.startswith(
        "["
    )


def test_ids_depend_on_content_only() -> None:
    one, given = to_example({"input": "q", "output": "a", "note": 1}, "pair")
    other, _ = to_example({"prompt": "q", "completion": "a"}, "pair")
    assert one.id == other.id and len(one.id) == 12 and not given
    assert to_example({"input": "q", "output": "b"}, "pair")[0].id != one.id


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (["not", "an", "object"], "data_type"),
        ({"note": 1}, "missing_messages_list"),
        ({"messages": []}, "missing_messages_list"),
        ({"messages": "hello"}, "missing_messages_list"),
        ({"messages": ["hello"]}, "data_type"),
        ({"messages": [{"content": "q"}, ASSISTANT]}, "message_missing_key"),
        ({"messages": [{"role": "user"}, ASSISTANT]}, "message_missing_key"),
        ({"messages": [{"role": "narrator", "content": "q"}, ASSISTANT]}, "unrecognized_role"),
        ({"messages": [{"role": "user", "content": None}, ASSISTANT]}, "missing_content"),
        ({"messages": [{"role": "user", "content": 5}, ASSISTANT]}, "missing_content"),
        ({"messages": [USER]}, "example_missing_assistant_message"),
        ({"messages": [USER, ASSISTANT, USER]}, "last_message_is_no_answer"),
        ({"messages": [ASSISTANT]}, "no_question"),
        ({"messages": [USER, {**ASSISTANT, "weight": 3}]}, "bad_weight"),
        ({"messages": [USER, {**ASSISTANT, "tool_calls": [{}]}]}, "bad_tool_call"),
        ({"messages": [USER, ASSISTANT], "tools": "x"}, "bad_tools"),
        ({"messages": [USER, {**ASSISTANT, "content": "\ud800"}]}, "broken_text"),
        ({"messages": [USER, ASSISTANT], "time": "last week"}, "bad_time"),
    ],
)
def test_what_is_wrong_has_a_code(row: Any, code: str) -> None:
    with pytest.raises(RowError) as caught:
        to_example(row, "chat")
    assert caught.value.code == code


def test_unknown_keys_and_empty_questions_are_warnings() -> None:
    warned: list[str] = []
    row = {"messages": [{**USER, "mood": "good", "content": ""}, ASSISTANT]}
    made, _ = to_example(row, "chat", warn=lambda code, message: warned.append(code))
    assert warned == ["message_unrecognized_key", "missing_content"]
    assert made.messages[0] == {"role": "user", "content": ""}


def test_an_unknown_format_names_columns_found_and_expected() -> None:
    with pytest.raises(DataError) as caught:
        detect([{"Frage": "q", "Antwort": "a"}])
    assert "'Frage', 'Antwort'" in str(caught.value) and "data.columns" in str(caught.value)
    with pytest.raises(DataError, match="'Fragen'"):
        detect([{"Frage": "q"}], Columns(input="Fragen", output="Antwort"))


def test_real_files_of_the_field(shared: Path) -> None:
    raw = shared / "data" / "llamafactory_demos" / "raw"
    counts = {"alpaca_en": 999, "dpo_en": 300, "kto_en": 300, "glaive_toolcall_en": 300}
    read = {name: list(read_examples(raw / f"{name}_demo.json")) for name in counts}
    assert {name: len(rows) for name, rows in read.items()} == counts
    assert all(row.rejected for row in read["dpo_en"])
    assert {row.desirable for row in read["kto_en"]} == {True, False}
    calls = [m for row in read["glaive_toolcall_en"] for m in row.messages if "tool_calls" in m]
    assert calls and all(json.loads(c["tool_calls"][0]["function"]["arguments"]) for c in calls[:9])
    assert sum(bool(row.tools) for row in read["glaive_toolcall_en"]) > 100
    assert len(list(read_examples(shared / "data" / "bfcl" / "parallel.jsonl"))) == 200


def test_a_column_of_texts_is_one_whatever_stands_beside_it() -> None:
    row = {"body": "a text", "stars": 3, "title": "t"}
    made = example(row, Columns(text="body"))
    assert said(made) == [("assistant", "a text")]
    assert made.is_text
    assert said(example({"text": "x", "label": "y"}, Columns(text="text"))) == [("assistant", "x")]


def test_a_cell_may_hold_messages_as_python_writes_them() -> None:
    assert said(example({"messages": str([USER, ASSISTANT])})) == [
        ("user", "q"),
        ("assistant", "a"),
    ]
    with pytest.raises(RowError, match="not valid JSON"):
        to_example({"messages": "[{'role': open('x')}]"}, "chat")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"output": [USER, ASSISTANT], "rejected": [USER, OTHER]},
    ],
)
def test_answers_may_come_with_the_conversation_that_they_end(row: dict[str, Any]) -> None:
    made = example(row)
    assert said(made) == [("user", "q"), ("assistant", "a")]
    assert made.rejected is not None and made.rejected["content"] == "b"


def test_answers_as_texts_without_a_prompt_are_still_refused() -> None:
    with pytest.raises(RowError, match="no `prompt`"):
        to_example({"chosen": "a", "rejected": "b"}, "preference")
