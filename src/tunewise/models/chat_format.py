"""Conversations as the text a model sees, and tool calls read back from what it wrote.

Training and scoring render through the same functions, so a model is asked in the form it learned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewise.data.chat import Message, text_of
from tunewise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == "system" %}{{ message.content }}
{%- elif message.role == "assistant" %}{{ "Assistant:\\n" }}
{%- generation %}{{ message.content }}{% if loop.last %}{{ eos_token }}{% endif %}
{%- endgeneration %}
{%- else %}{{ message.role | capitalize }}:\n{{ message.content }}
{%- endif %}
{%- if not loop.last %}{{ "\\n\\n" }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "\\n\\nAssistant:\\n" }}{% endif %}"""
"""For base models, which bring no chat template: paragraphs headed by who speaks.

A last assistant message ends with the end-of-sequence token, so that training teaches to stop.
"""

PLAIN_STOP = ("\nUser:", "\nAssistant:", "\nTool:")
"""An untrained base model goes on with the next turn by itself; the answer ends there."""

_TOOLS_INTRODUCTION = (
    "You may call these functions. To call one, answer with only "
    '<tool_call>{"name": "NAME", "arguments": {…}}</tool_call>\n'
)
_TAGGED_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    ask: bool = True,
) -> str:
    """The conversation as one text, by the tokenizer's chat template (special tokens included).

    A template without a place for tools gets them as text in the system message; one that refuses
    a system message gets it at the head of the first user message.

    Args:
        tokenizer: with a ``chat_template`` (``load_local`` sees to that).
        messages: in OpenAI's form.
        tools: definitions in OpenAI's form.
        ask: end with the head of an assistant message, for the model to continue.

    Raises:
        ModelError: when the template refuses the conversation.
    """
    from jinja2 import TemplateError

    plain = [_plain(message) for message in messages]
    offered = [dict(tool) for tool in tools] or None
    if offered and "tools" not in str(tokenizer.chat_template):
        text = _TOOLS_INTRODUCTION + "\n".join(json.dumps(t, ensure_ascii=False) for t in offered)
        plain, offered = _with_system(plain, text), None
    try:
        return _apply(tokenizer, plain, offered, ask)
    except TemplateError as error:
        merged = _without_system(plain)
        if merged is not None:
            try:
                return _apply(tokenizer, merged, offered, ask)
            except TemplateError:
                pass
        raise ModelError(
            f"the model's chat template refuses this conversation: {error}",
            hint="Check the order of roles: most templates want user and assistant in turn.",
        ) from error


def _apply(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    tools: list[Any] | None,
    ask: bool,
) -> str:
    text = tokenizer.apply_chat_template(
        messages, tools=tools, add_generation_prompt=ask, tokenize=False
    )
    return str(text)


def _plain(message: Message) -> dict[str, Any]:
    """Text content, arguments as objects (templates write them as JSON), no training marks."""
    role = message.get("role")
    result: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": text_of(message),
    }
    for key in ("name", "tool_call_id"):
        if key in message:
            result[key] = message[key]
    calls = message.get("tool_calls")
    if calls:
        result["tool_calls"] = [_call_with_object(call) for call in calls]
    return result


def _call_with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments)
        except json.JSONDecodeError:
            function["arguments"] = arguments
    return {**call, "type": call.get("type", "function"), "function": function}


def _with_system(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": content}, *messages[2:]]


def parse_tool_calls(text: str) -> tuple[str, tuple[dict[str, Any], ...]]:
    """Split an answer into its text and its tool calls.

    Read are ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, any number of them, or an
    answer that is one bare object of that form. Anything else stays text.

    Returns:
        The text around the calls, and the calls in OpenAI's form (arguments as a JSON string).
    """
    tagged = [_call_from(match.group(1)) for match in _TAGGED_CALL.finditer(text)]
    calls = [call for call in tagged if call is not None]
    if calls:
        rest = _TAGGED_CALL.sub(lambda m: "" if _call_from(m.group(1)) else m.group(0), text)
        return rest.strip(), _numbered(calls)
    bare = _call_from(text.strip())
    return ("", _numbered([bare])) if bare is not None else (text, ())


def _call_from(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"name": value["name"], "arguments": arguments} if isinstance(arguments, str) else None


def _numbered(calls: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"id": f"call_{number}", "type": "function", "function": call}
        for number, call in enumerate(calls)
    )
