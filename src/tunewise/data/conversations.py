"""One reader for each row format: it finds the conversation, the tools and the preference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from tunewise.data.findings import RowError
from tunewise.data.messages import (
    Warn,
    is_message,
    message_of,
    messages_of,
    messages_or_text,
    parsed,
    text,
    tools_of,
)

Row = Mapping[str, Any]
Format = Literal[
    "chat", "pair", "alpaca", "openai_preference", "preference", "desirability", "text"
]

PAIRS: tuple[tuple[str, str], ...] = (
    ("input", "output"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("text", "label"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
    ("sentence", "label"),
    ("source", "target"),
)
"""Column names of a question and its answer, in the order in which they are tried."""

EXPECTED = (
    "Expected `messages`; or `conversations`; or a pair such as "
    + ", ".join(f"`{a}`/`{b}`" for a, b in PAIRS[:5])
    + "; or `prompt`, `chosen` and `rejected`; or "
    "`input`, `preferred_output` and `non_preferred_output`; or a question and `answers` as SQuAD "
    "has them. "
    "Where yours are called otherwise, say so under `data.columns` "
    "(`input: my_question`, `output: my_answer`)."
)


Conversation = tuple[
    list[dict[str, Any]], tuple[Mapping[str, Any], ...], dict[str, Any] | None, bool | None
]
"""Messages with the wanted answer last, tools, the unwanted answer, the answer's label."""

Reader = Callable[[Row, set[str], Warn], Conversation]


def _chat(row: Row, used: set[str], warn: Warn) -> Conversation:
    key = "messages" if row.get("messages") is not None else "conversations"
    if row.get(key) is None:
        raise RowError("missing_messages_list", "the row has no `messages`", EXPECTED)
    used |= {"messages", "conversations", "system"}
    messages = messages_of(row[key], warn, key)
    return _with_system(row, messages), _tools(row, used), None, None


def _pair(row: Row, used: set[str], warn: Warn) -> Conversation:
    pair = pair_of(row)
    if pair is None:
        raise RowError("missing_column", f"no question and answer in {names(row)}", EXPECTED)
    used |= {*pair, "system"}
    return (
        [*_prompt(row, row[pair[0]], pair[0], warn), message_of(row[pair[1]], warn, pair[1])],
        _tools(row, used),
        None,
        None,
    )


def _alpaca(row: Row, used: set[str], warn: Warn) -> Conversation:
    if "instruction" not in row or "output" not in row:
        raise RowError("missing_column", f"no `instruction` and `output` in {names(row)}")
    used.add("output")
    return (
        [*_alpaca_prompt(row, used), message_of(row["output"], warn, "output")],
        _tools(row, used),
        None,
        None,
    )


def _openai_preference(row: Row, used: set[str], warn: Warn) -> Conversation:
    given = parsed(row.get("input"), "input")
    if not isinstance(given, Mapping) or "preferred_output" not in row:
        raise RowError("bad_preference", "`input` or `preferred_output` is missing")
    used |= {"input", "preferred_output", "non_preferred_output"}
    messages = messages_of(given.get("messages"), warn, "input.messages")
    chosen = message_of(row["preferred_output"], warn, "preferred_output")
    rejected = message_of(row.get("non_preferred_output"), warn, "non_preferred_output")
    return [*messages, chosen], tools_of(given.get("tools")), rejected, None


def _preference(row: Row, used: set[str], warn: Warn) -> Conversation:
    better = "chosen" if row.get("chosen") is not None else "output"
    if row.get(better) is None or row.get("rejected") is None:
        raise RowError("bad_preference", "`chosen` or `rejected` is missing")
    used |= {better, "rejected", "system"}
    chosen, rejected = messages_or_text(row[better]), messages_or_text(row["rejected"])
    if _whole(chosen) and _whole(rejected):
        used |= {"prompt", "input"}  # which both conversations begin with
        return _implicit_prompt(row, used, chosen, rejected, warn)
    if row.get("conversations") is not None or row.get("messages") is not None:
        prompt = _chat(row, used, warn)[0]
    elif "prompt" in row:
        used.add("prompt")
        prompt = _prompt(row, row["prompt"], "prompt", warn)
    elif "instruction" in row:
        prompt = _alpaca_prompt(row, used)
    elif row.get("input") is not None:
        used.add("input")
        prompt = _prompt(row, row["input"], "input", warn)
    else:
        return _implicit_prompt(row, used, chosen, rejected, warn)
    good, bad = message_of(chosen, warn, "chosen"), message_of(rejected, warn, "rejected")
    return [*prompt, good], _tools(row, used), bad, None


def _implicit_prompt(
    row: Row, used: set[str], chosen: object, rejected: object, warn: Warn
) -> Conversation:
    """Both answers as whole conversations: what they share at the start is the prompt."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = _turns(chosen), _turns(rejected)
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise RowError("bad_preference", "the row has no `prompt`", EXPECTED)
    good, bad = messages_of(chosen, warn, "chosen"), messages_of(rejected, warn, "rejected")
    if good[:-1] != bad[:-1] or len(good) < 2:
        raise RowError("bad_preference", "`chosen` and `rejected` differ before the last message")
    answers = message_of(good[-1], warn, "chosen"), message_of(bad[-1], warn, "rejected")
    return [*_with_system(row, good[:-1]), answers[0]], _tools(row, used), answers[1], None


def _whole(answer: object) -> bool:
    """Whether an answer is given with the conversation that it ends."""
    return isinstance(answer, list) and len(answer) > 1 and all(map(is_message, answer))


_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def _turns(said: str) -> object:
    """A conversation written as text, as in HH-RLHF: each turn begins with who speaks."""
    parts = _TURN.split(said)
    if len(parts) < 5 or parts[0].strip():
        return said
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": text.strip()}
        for who, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _desirability(row: Row, used: set[str], warn: Warn) -> Conversation:
    key = "kto_tag" if "kto_tag" in row else "label"
    used.add(key)
    label = row.get(key)
    if isinstance(label, str) and label.strip().casefold() in ("true", "false", "1", "0"):
        label = label.strip().casefold() in ("true", "1")
    if label not in (True, False):
        raise RowError("bad_preference", f"`{key}` is neither true nor false")
    if row.get("messages") is not None or row.get("conversations") is not None:
        conversation = _chat(row, used, warn)
    elif "instruction" in row:
        conversation = _alpaca(row, used, warn)
    else:
        conversation = _pair(row, used, warn)
    return (*conversation[:3], bool(label))


def _text(row: Row, used: set[str], warn: Warn) -> Conversation:
    """A text of which nothing is asked, as ``pretrain`` learns it."""
    used.add("text")
    said = text(row.get("text"), "text")
    if not said.strip():
        raise RowError("empty_text", "the text is empty", "Leave the row out.")
    return [{"role": "assistant", "content": said}], (), None, None


READERS: Mapping[Format, Reader] = {
    "chat": _chat,
    "pair": _pair,
    "alpaca": _alpaca,
    "openai_preference": _openai_preference,
    "preference": _preference,
    "desirability": _desirability,
    "text": _text,
}


def answer_cell(row: Row, format: Format) -> object:
    """What stands in the row's column of answers, where the format has one; else None."""
    if format == "alpaca" or (format == "desirability" and "instruction" in row):
        return row.get("output")
    if format in ("pair", "desirability") and (pair := pair_of(row)):
        return row[pair[1]]
    return None


def pair_of(row: Row) -> tuple[str, str] | None:
    """The columns of the question and of the answer, where the row has a usual pair."""
    for pair in PAIRS:
        if pair[0] in row and pair[1] in row:
            return pair
    return None


def _prompt(row: Row, value: object, what: str, warn: Warn) -> list[dict[str, Any]]:
    given = messages_or_text(value)
    if isinstance(given, list) and given and all(is_message(m) for m in given):
        return _with_system(row, messages_of(given, warn, what))
    return _with_system(row, [{"role": "user", "content": text(value, what)}])


def _alpaca_prompt(row: Row, used: set[str]) -> list[dict[str, Any]]:
    used |= {"instruction", "input", "history", "system"}
    messages: list[dict[str, Any]] = []
    history = parsed(row.get("history"), "history") or []
    if not isinstance(history, list):
        raise RowError("data_type", "`history` is not a list of [question, answer] pairs")
    for turn in history:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise RowError("data_type", "`history` is not a list of [question, answer] pairs")
        messages.append({"role": "user", "content": text(turn[0], "history")})
        messages.append({"role": "assistant", "content": text(turn[1], "history")})
    parts = [text(row["instruction"], "instruction"), text(row.get("input"), "input")]
    messages.append({"role": "user", "content": "\n".join(part for part in parts if part)})
    return _with_system(row, messages)


def _with_system(row: Row, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system = row.get("system")
    if isinstance(system, str) and system:
        return [{"role": "system", "content": system}, *messages]
    return messages


def _tools(row: Row, used: set[str]) -> tuple[Mapping[str, Any], ...]:
    used |= {"tools", "functions"}
    if row.get("tools") is not None:
        return tools_of(row["tools"])
    return tools_of(row.get("functions"), "functions")


def check_conversation(messages: list[dict[str, Any]]) -> None:
    """Refuse a conversation that does not end with an answer to something."""
    if not any(m["role"] == "assistant" for m in messages):
        raise RowError(
            "example_missing_assistant_message",
            "no message is from the assistant: there is no answer to learn or to test",
        )
    if messages[-1]["role"] != "assistant":
        raise RowError(
            "last_message_is_no_answer",
            f"the last message is from {messages[-1]['role']!r}, so no answer to it is wanted",
            "End the conversation with the assistant's answer.",
        )
    if len(messages) == 1:
        raise RowError("no_question", "the row has an answer but nothing that it answers")


def names(row: object) -> str:
    """The column names of a row, for messages to the user."""
    keys = [str(k) for k in row] if isinstance(row, Mapping) else []
    shown = ", ".join(repr(k[:40].encode("utf-8", "replace").decode()) for k in keys[:12])
    return (shown + (", …" if len(keys) > 12 else "")) or "(none)"
