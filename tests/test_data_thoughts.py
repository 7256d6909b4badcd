"""Thoughts taken out of answers, in the marks of the families' templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewise.data.thoughts import (
    closing_of,
    opens_thought,
    split_thoughts,
    thinks,
    without_thoughts,
)

TEMPLATES = Path(__file__).parent / "chat_templates"

CLOSED = [
    "<think>\nIt is odd.\n</think>\n\nno",
    "<think>It is odd.</think>no",
    "\n<think>\nIt is\n</think><think>odd.</think>\nno",
    "<seed:think>It is odd.</seed:think>no",
    "<mm:think>It is odd.</mm:think>no",
    "◁think▷It is odd.◁/think▷no",
    "<thought>\nIt is odd.\n</thought>\n\nno",
    "<reasoning>It is odd.</reasoning>\n<answer>\nno\n</answer>",
    "<think>It is odd.</think>\n<answer>\nno\n</answer>",
    "[THINK]It is odd.[/THINK]no",
    "<|START_THINKING|>It is odd.<|END_THINKING|><|START_RESPONSE|>no<|END_RESPONSE|>",
    "<|channel|>analysis<|message|>It is odd.<|end|><|start|>assistant<|channel|>final<|message|>no"
    "<|return|>",
    "<|channel|>commentary<|message|>no<|end|><|start|>assistant<|channel|>analysis<|message|>It "
    "is odd.",
    "analysisIt is odd.assistantfinalno",
    "<|channel>thought\nIt is odd.<channel|>no",
    "<|inner_prefix|>It is odd.<|inner_suffix|>no",
    "<|begin_of_thought|>It is odd.<|end_of_thought|><|begin_of_solution|>no<|end_of_solution|>",
    "Here is my thought process:\nIt is odd.\nHere is my response:\nno",
    # The template opened the thought (R1, QwQ, Qwen 3 Thinking): the answer only closes it.
    "It is odd.\n</think>\n\nno",
    "It is odd.[/THINK]no",
]


@pytest.mark.parametrize("text", CLOSED)
def test_the_thoughts_are_taken_out(text: str) -> None:
    said = split_thoughts(text)
    assert (said.answer, said.unfinished) == ("no", False)
    assert " ".join(said.thoughts.split()) == "It is odd."
    assert without_thoughts(text) == "no"


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nIs it yes or",
        "[THINK]Is it yes or",
        "<|START_THINKING|>Is it yes or",
        "<|channel|>analysis<|message|>Is it yes or",
        "<think>first</think><think>Is it yes or",
    ],
)
def test_an_open_thought_is_no_answer(text: str) -> None:
    said = split_thoughts(text)
    assert said.unfinished
    assert said.answer == ""
    assert said.thoughts.endswith("Is it yes or")


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "",
        "  no ",
        "I think so.",
        "Write <think> before a thought and </think> after it.",
        "analysis of the assistant",
        "<answer>no</answer>",
        "The assistant said: no",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    said = split_thoughts(text)
    assert (said.answer, said.thoughts, said.unfinished) == (text, "", False)


def test_a_thought_without_words_is_none() -> None:
    assert split_thoughts("<think>\n\n</think>\n\nno").thoughts == ""
    assert split_thoughts("<think>\n\n</think>\n\nno").answer == "no"


def test_what_the_prompt_opened_must_be_closed() -> None:
    said = split_thoughts("Is it yes or", opened=True)
    assert said.unfinished
    assert said.answer == ""
    assert split_thoughts("It is odd.</think>no", opened=True).answer == "no"
    assert split_thoughts("<think>It is odd.</think>no", opened=True).answer == "no"


def test_a_call_after_a_thought_stays_readable() -> None:
    from tunewise.data.tool_calls import parse_tool_calls

    head = "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant"
    text = f'{head}<|channel|>commentary to=functions.look json<|message|>{{"at": 1}}<|call|>'
    said = split_thoughts(text)
    assert said.thoughts == "I look."
    assert parse_tool_calls(said.answer)[1][0]["function"]["name"] == "look"


def test_a_wanted_answer_that_speaks_of_an_open_mark_stays() -> None:
    assert without_thoughts("<think> is the mark") == "<think> is the mark"


def test_heads_that_open_a_thought_are_known() -> None:
    assert opens_thought("<|Assistant|><think>\n")
    assert not opens_thought("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert closing_of("<|Assistant|><think>\n") == "</think>"
    assert closing_of("assistant\n") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("qwen3", True), ("deepseek_r1", True), ("gpt_oss", True), ("qwen2", False), ("phi", False)],
)
def test_templates_tell_whether_their_models_think(name: str, expected: bool) -> None:
    assert thinks((TEMPLATES / f"{name}.jinja").read_text()) is expected
