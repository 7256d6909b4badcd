"""gpt-oss' channels in the server: thoughts apart from the answer, with tools and without."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models_support import make_tokenizer
from tunewise.data.thoughts import split_thoughts
from tunewise.server.chat.bodies import ChatBody
from tunewise.server.chat.chat import _Chat, _chunks
from tunewise.server.chat.running import Answer
from tunewise.server.inference.channels import Channels
from tunewise.server.inference.protocol import Done, ModelRef, Piece
from tunewise.server.inference.text import TextStream
from tunewise.server.inference.wire import pack_event, unpack_event

MARKS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"]
SAID = "<|channel|>analysis<|message|>Two and two.<|end|><|start|>assistant"
FINAL = SAID + "<|channel|>final<|message|>It is four, {not} five."
CALL = SAID + '<|channel|>commentary to=functions.find json<|message|>{"number": 7}<|call|>'
ROLE = SAID + ' to=functions.find<|channel|>commentary json<|message|>{"number": 7}<|call|>'
TOOLS: Any = ({"type": "function", "function": {"name": "find", "parameters": {}}},)


def streamed(text: str, tools: Any = (), **options: Any) -> tuple[str, str, str, list[Any]]:
    """What was given out while it came, all of the answer, the thoughts, the calls."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    stream = TextStream(tokenizer, (), tools, **options)
    given = thoughts = ""
    for token in tokenizer.encode(text, add_special_tokens=False):
        given += stream.add(token)
        thoughts += stream.take_thoughts()
    rest, calls = stream.finish()
    found = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]
    return given, given + rest, thoughts + stream.take_thoughts(), found


@pytest.mark.parametrize("tools", ((), TOOLS), ids=("alone", "tools"))
def test_thoughts_and_answer_are_split(tools: Any) -> None:
    given, answer, thoughts, calls = streamed(FINAL, tools)
    assert (answer, thoughts, calls) == ("It is four, {not} five.", "Two and two.", [])
    assert given.startswith("It is")  # while it comes, not at the end
    said = split_thoughts(FINAL)
    assert (answer, thoughts) == (said.answer, said.thoughts)  # as in a study
    assert streamed("Plain <b>text</b>.", tools)[1:3] == ("Plain <b>text</b>.", "")
    assert streamed(SAID + "<|channel|>final", tools)[1:3] == ("", "Two and two.")
    assert streamed("<|channel|>analysis<|message|>Two", tools)[1:3] == ("", "Two")


@pytest.mark.parametrize("text", (CALL, ROLE))
def test_calls_are_read_behind_thoughts(text: str) -> None:
    given, answer, thoughts, calls = streamed(text, TOOLS)
    assert (given, answer, thoughts) == ("", "", "Two and two.")
    assert calls == [("find", {"number": 7})]
    assert streamed(text)[1:] == ('{"number": 7}', "Two and two.", [])  # nobody offered a tool


def test_a_raw_prompt_is_gone_on_with_as_it_is() -> None:
    assert streamed(FINAL, chat=False)[1:3] == (
        "analysisTwo and two.assistantfinalIt is four, {not} five.", "",
    )  # fmt: skip


@pytest.mark.parametrize("text", (FINAL, CALL, "a <|en b", "<", "to the point", "", "<|start|>"))
@pytest.mark.parametrize("size", (1, 3, 1000))
def test_pieces_of_any_size_give_the_same(text: str, size: int) -> None:
    def split(size: int) -> tuple[str, str]:
        channels = Channels()
        parts = [channels.add(text[i : i + size]) for i in range(0, len(text), size)]
        return "".join([*parts, channels.add("", last=True)]), channels.take_thoughts()

    assert split(size) == split(10_000)
    if "<|" not in text:
        assert split(size) == (text, "")


def test_they_reach_the_caller_as_reasoning_content() -> None:
    piece = Piece(0, "four", thoughts="Two and two.", finish_reason="stop")
    assert unpack_event(pack_event(piece)) == piece
    body = ChatBody(model="m", messages=[{"role": "user", "content": "?"}])  # type: ignore[list-item]
    chat = _Chat(body, ModelRef("m", None, "m"), "p")
    answer = Answer(1)
    answer.add(piece)
    answer.add(Done(1, 2, 0))
    message = chat.completion(answer)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("four", "Two and two.")
    deltas = [chunk["delta"] for chunk in _chunks(chat, piece, False)]
    assert deltas == [{"reasoning_content": "Two and two."}, {"content": "four"}, {}]
