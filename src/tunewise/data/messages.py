"""Chat messages of the field's dialects, checked and brought to OpenAI's form.

The checks and their codes are those of OpenAI's notebook *Data preparation and analysis for chat
model fine-tuning* (its seven format errors), widened to what came after it: ``tool_calls``,
``developer`` and ``tool`` roles, content in parts.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tunewise.data.findings import RowError
from tunewise.data.strict_json import loads

Warn = Callable[[str, str], None]
"""Called as ``warn(code, message)`` for what does not make the row useless."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_KEYS = frozenset(
    {
        "role",
        "content",
        "name",
        "weight",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "refusal",
        "reasoning_content",
    }
)
_TURN_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "function_call": "function_call",
    "tool_call": "function_call",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
    "tool_response": "tool",
}
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")


def messages_of(value: object, warn: Warn, what: str = "messages") -> list[dict[str, Any]]:
    """A list of chat messages, checked; ``from``/``value`` turns are translated.

    Raises:
        RowError: one of the fatal format errors.
    """
    value = parsed(value, what)
    if not isinstance(value, list) or not value:
        raise RowError(
            "missing_messages_list",
            f"`{what}` is {kind_of(value)}, not a list of messages",
            'Write [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}].',
        )
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise RowError("data_type", f"message {number} is {kind_of(message)}, not an object")
        if "from" in message and "role" not in message:
            messages.append(_turn(message, number, messages))
        else:
            messages.append(_message(message, number, messages, warn))
    return messages


def message_of(value: object, warn: Warn, what: str) -> dict[str, Any]:
    """One wanted or unwanted answer: text, a message, or a list of one message."""
    value = messages_or_text(value)
    if isinstance(value, list) and value and is_message(value[0]):
        if len(value) != 1:
            raise RowError(
                "several_answers", f"`{what}` has {len(value)} messages; exactly one is expected"
            )
        value = value[0]
    if is_message(value):
        message = messages_of([value], warn, what)[0]
        if message["role"] != "assistant":
            raise RowError(
                "unrecognized_role",
                f"`{what}` is an answer, but from {message['role']!r}",
                "Answers have the role 'assistant'.",
            )
        return message
    return {"role": "assistant", "content": text(value, what)}


def is_message(value: object) -> bool:
    """Whether a JSON value looks like a chat message or a ShareGPT turn."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


_ROLE = re.compile(r"""["'](?:role|from)["']""")
_LONGEST_LITERAL = 1_000_000


def _literal(value: str) -> object:
    """What a cell holds as Python writes it, as pandas puts it into a CSV; else None."""
    if len(value) > _LONGEST_LITERAL or value.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def messages_or_text(value: object) -> object:
    """A cell whose text is JSON of one or several messages as those; anything else unchanged."""
    if isinstance(value, str) and _ROLE.search(value):
        try:
            inner: Any = json.loads(value)
        except (ValueError, RecursionError):
            inner = _literal(value)
        first = inner[0] if isinstance(inner, list) and inner else inner
        if is_message(first):
            return inner
    return value


def text(value: object, what: str) -> str:
    """A cell as text: strings as they are, other JSON values as JSON, null as nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError("data_type", f"`{what}` cannot be written as text: {error}") from None


def parsed(value: object, what: str) -> object:
    """JSON text in a cell (CSV, and some JSON files) as the value it holds."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return loads(value)
        except (ValueError, RecursionError) as error:
            if isinstance(literal := _literal(value), list | dict):
                return literal
            raise RowError("data_type", f"`{what}` is not valid JSON: {error}") from None
    return value


def tools_of(value: object, what: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Tool definitions in OpenAI's form; bare functions are wrapped."""
    value = parsed(value, what)
    if value in (None, "", []):
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError("bad_tools", f"`{what}` is not a list of tool definitions")
    tools = [
        t if isinstance(t.get("function"), Mapping) else {"type": "function", "function": t}
        for t in value
    ]
    for tool in tools:
        if not isinstance(tool["function"].get("name"), str):
            raise RowError("bad_tools", f"a tool in `{what}` has no `name`")
    return tuple(tools)


def check_text(value: object) -> None:
    """Refuse text that no tokenizer can encode (half of a UTF-16 surrogate pair)."""
    if isinstance(value, str):
        if not value.isascii() and _HALF_SURROGATE.search(value):
            raise RowError(
                "broken_text",
                "the text holds half of a surrogate pair (\\ud800 to \\udfff)",
                "The row was cut in the middle of a character; export it anew.",
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_text(item)
    elif isinstance(value, list | tuple):
        for item in value:
            check_text(item)


def _message(
    message: Mapping[str, Any], number: int, before: list[dict[str, Any]], warn: Warn
) -> dict[str, Any]:
    role = message.get("role")
    calls = message.get("tool_calls")
    call = message.get("function_call")
    content = message.get("content")
    speaks_without_content = bool(calls or call or (role == "assistant" and message.get("refusal")))
    if role is None or ("content" not in message and not speaks_without_content):
        key = "role" if role is None else "content"
        raise RowError("message_missing_key", f"message {number} has no `{key}`")
    if not isinstance(role, str) or role not in ROLES:
        raise RowError(
            "unrecognized_role",
            f"message {number} has the role {_short(role)}",
            f"Use one of {', '.join(sorted(ROLES))}.",
        )
    if not _KEYS.issuperset(message):
        unknown = ", ".join(sorted(_short(key) for key in set(message) - _KEYS))
        warn(
            "message_unrecognized_key",
            f"message {number} has keys that hosted services refuse and Tunewise ignores: "
            f"{unknown}",
        )
    checked: dict[str, Any] = {"role": role}
    if isinstance(content, str):
        if not content and role != "assistant":
            warn("missing_content", f"message {number} ({role}) is empty")
        checked["content"] = content
    elif isinstance(content, list) and content:
        checked["content"] = [_part(part, number) for part in content]
    elif content is None and speaks_without_content:
        checked["content"] = None
    else:
        raise RowError(
            "missing_content",
            f"message {number} ({role}) has no text: `content` is {kind_of(content)}",
        )
    for key in ("name", "tool_call_id", "refusal", "reasoning_content"):
        if message.get(key) is not None:
            checked[key] = text(message[key], key)
    weight = message.get("weight")
    if weight is not None:
        if weight not in (0, 1):
            raise RowError("bad_weight", f"message {number}: `weight` is {_short(weight)}, not 0/1")
        checked["weight"] = int(weight)
    if calls:
        checked["tool_calls"] = _tool_calls(calls, number)
    elif call:
        checked["tool_calls"] = _tool_calls([call], number)
    if role == "function":
        checked["role"] = "tool"
    if checked["role"] == "tool" and "tool_call_id" not in checked:
        checked["tool_call_id"] = _last_call_id(before)
    return checked


def _part(part: object, number: int) -> Mapping[str, Any]:
    if not isinstance(part, Mapping) or not isinstance(part.get("type", "text"), str):
        raise RowError("missing_content", f"message {number}: a part of `content` is no object")
    if part.get("type", "text") in ("text", "input_text", "output_text"):
        if not isinstance(part.get("text"), str):
            raise RowError("missing_content", f"message {number}: a text part has no `text`")
        return {"type": "text", "text": part["text"]}
    return {str(k): v for k, v in part.items() if v is not None}


def _tool_calls(calls: object, number: int) -> list[dict[str, Any]]:
    calls = parsed(calls, "tool_calls")
    if isinstance(calls, Mapping):
        calls = [calls]
    if not isinstance(calls, list):
        raise RowError("bad_tool_call", f"message {number}: `tool_calls` is {kind_of(calls)}")
    made = []
    for index, call in enumerate(calls, start=1):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RowError("bad_tool_call", f"message {number}: a tool call has no function name")
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = text({} if arguments is None else arguments, "arguments")
        given = call.get("id") if isinstance(call, Mapping) else None
        made.append(
            {
                "id": given if isinstance(given, str) and given else f"call_{number}_{index}",
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
        )
    return made


def _turn(turn: Mapping[str, Any], number: int, before: list[dict[str, Any]]) -> dict[str, Any]:
    """A ShareGPT turn: ``{"from": "human" | "gpt" | …, "value": "…"}``."""
    speaker = turn.get("from")
    role = _TURN_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise RowError(
            "unrecognized_role",
            f"turn {number} is from {_short(speaker)}",
            f"Use one of {', '.join(sorted(_TURN_ROLES))}.",
        )
    if "value" not in turn or turn["value"] is None:
        raise RowError("message_missing_key", f"turn {number} has no `value`")
    if role == "function_call":
        calls = parsed(turn["value"], "value")
        if isinstance(calls, str):
            raise RowError("bad_tool_call", f"turn {number} is a function call but not JSON")
        return {"role": "assistant", "content": None, "tool_calls": _tool_calls(calls, number)}
    message = {"role": role, "content": text(turn["value"], "value")}
    if role == "tool":
        message["tool_call_id"] = _last_call_id(before)
    return message


def _last_call_id(before: list[dict[str, Any]]) -> str:
    """Older dialects do not say which call a result answers: the first still open one."""
    answered = {m.get("tool_call_id") for m in before if m["role"] == "tool"}
    for message in reversed(before):
        for call in message.get("tool_calls", ()):
            if call["id"] not in answered:
                return str(call["id"])
    return "call_0"


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    names: Mapping[type, str] = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}
    if value is None:
        return "missing"
    if isinstance(value, list) and not value:
        return "an empty list"
    return names.get(type(value), "a number")


def _short(value: object) -> str:
    shown = value if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= 40 else shown[:39] + "…"
    return repr(shown.encode("utf-8", "replace").decode())
