"""How each field of a message is written for one chat template, and the writing.

Templates drop in silence what their family does not know: tool calls, tool results, names,
thoughts, system messages; some only under a condition (calls where there is no text), some fail on
values of another type (arguments as an object). ``template_probe.py`` finds the forms that a
template keeps; ``template_check.py`` proves for each conversation that it did.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

TOOLS_INTRODUCTION = (
    "You may call these functions. To call one, answer with only "
    '<tool_call>{"name": "NAME", "arguments": {…}}</tool_call>\n'
)


@dataclass(frozen=True, slots=True)
class Forms:
    """How each field of a message is written for one template.

    Attributes:
        system: ``native``; or ``user``: at the head of the first user message.
        tools: ``native``; or ``system``: as text in the system message.
        calls: ``native``; or ``text``: as ``<tool_call>{…}</tool_call>`` in the message's text,
            which is also what a model is asked for where its template has no place for tools.
        arguments: natively, as the ``object`` that they are or as JSON ``text``.
        no_text: what stands for the text of a message that has calls alone: ``""`` or None.
        calls_beside_text: ``calls`` for a message that has text too.
        short_ids: calls are known by nine letters and digits (Mistral's templates insist).
        results: ``native``; or ``user``: as ``<tool_response>`` in a user message.
        names: ``native``; or ``text``: ``NAME: `` before the text (not of the last answer).
        thoughts: of the last answer: ``native``; ``text``: between ``<think>`` tags before its
            text; None where no way keeps them.
        earlier_thoughts: whether those of earlier answers are kept too. Families whose models
            think drop them on purpose (Qwen 3, DeepSeek R1), so their loss is no damage.
    """

    system: Literal["native", "user"] = "native"
    tools: Literal["native", "system"] = "native"
    calls: Literal["native", "text"] = "native"
    arguments: Literal["object", "text"] = "object"
    no_text: str | None = ""
    calls_beside_text: Literal["native", "text"] = "native"
    short_ids: bool = False
    results: Literal["native", "user"] = "native"
    names: Literal["native", "text"] = "native"
    thoughts: Literal["native", "text"] | None = "native"
    earlier_thoughts: bool = True


def written_in(
    forms: Forms,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools as the template is given them, each field in its form.

    Args:
        messages: ``content`` is text or None; calls' arguments are JSON text or objects.
    """
    last = len(messages) - 1
    written = [_written(forms, m, is_last=i == last) for i, m in enumerate(messages)]
    if forms.results == "user":
        written = _results_as_user(written)
    offered = [dict(tool) for tool in tools]
    if offered and forms.tools == "system":
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in offered)
        written, offered = _with_system(written, TOOLS_INTRODUCTION + lines), []
    if forms.system == "user":
        written = _system_in_user(written)
    return written, offered or None


def call_as_text(call: Mapping[str, Any]) -> str:
    """A tool call as the product asks models for it, and reads it back (``tool_calls.py``)."""
    function = call.get("function") or {}
    made = {"name": function.get("name"), "arguments": arguments_of(function.get("arguments"))}
    return f"<tool_call>{json.dumps(made, ensure_ascii=False)}</tool_call>"


def _written(forms: Forms, message: Mapping[str, Any], *, is_last: bool) -> dict[str, Any]:
    out = dict(message)
    thoughts = out.pop("reasoning_content", None)
    if thoughts:
        if forms.thoughts == "native":
            out["reasoning_content"] = thoughts
        elif forms.thoughts == "text":
            out["content"] = f"<think>\n{thoughts}\n</think>\n\n{out.get('content') or ''}"
    # An answer's own name would be learnt as its text: it is refused (``require_kept``).
    answer = is_last and out.get("role") == "assistant"
    if "name" in out and forms.names == "text" and out.get("role") != "tool" and not answer:
        out["content"] = f"{out.pop('name')}: {out.get('content') or ''}"
    if forms.short_ids and "tool_call_id" in out:
        out["tool_call_id"] = _short_id(out["tool_call_id"])
    calls = out.pop("tool_calls", None)
    if calls:
        text = out.get("content") or ""
        way = forms.calls_beside_text if text else forms.calls
        if way == "text":
            out["content"] = "\n".join([*([text] if text else []), *map(call_as_text, calls)])
        else:
            out["tool_calls"] = [_native_call(forms, call) for call in calls]
            if not text:
                out["content"] = forms.no_text
                return out
    out["content"] = out.get("content") or ""
    return out


def _native_call(forms: Forms, call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    arguments = function.get("arguments")
    if forms.arguments == "object":
        function["arguments"] = arguments_of(arguments)
    elif not isinstance(arguments, str):
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    out = {**call, "type": call.get("type", "function"), "function": function}
    if forms.short_ids:
        out["id"] = _short_id(call.get("id"))
    return out


def arguments_of(arguments: Any) -> Any:
    """Arguments as what their JSON holds; text that is no JSON stays text."""
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _short_id(value: object) -> str:
    text = str(value)
    if len(text) == 9 and text.isalnum():
        return text
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):09d}"[-9:]


def _results_as_user(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tool results as user messages; one message for those that follow one another."""
    out: list[dict[str, Any]] = []
    after_result = False
    for message in messages:
        if message.get("role") != "tool":
            if after_result and message.get("role") == "user":
                out[-1]["content"] += f"\n{message['content']}"
            else:
                out.append(message)
            after_result = False
            continue
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        if after_result:
            out[-1]["content"] += f"\n{text}"
        else:
            out.append({"role": "user", "content": text})
        after_result = True
    return out


def _with_system(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _system_in_user(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """System messages at the head of the user message that follows them."""
    out: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            content = "\n\n".join([*waiting, message["content"]])
            out.append({**message, "content": content})
            waiting = []
        elif waiting:  # nobody asks before the answer: it stands as a turn of its own
            out += [{"role": "user", "content": "\n\n".join(waiting)}, message]
            waiting = []
        else:
            out.append(message)
    if waiting:
        out.append({"role": "user", "content": "\n\n".join(waiting)})
    return out
