"""What a chat template keeps of a conversation, found by asking it, and how the rest is written.

Templates drop in silence what their family does not know: tool calls, tool results, names,
thoughts, system messages; some only under a condition (calls where there is no text), some fail on
values of another type (arguments as an object). So each tokenizer's template is shown small
conversations in which every field holds a word of its own, and the first way of writing a field
with which all words come back is used from then on, for prompts and answers alike. What no way
keeps is refused when a message holds it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from tunewise.data.chat import text_of
from tunewise.errors import ModelError

Render = Callable[[list[dict[str, Any]], list[Any] | None, bool], str]
"""``render(messages, tools, ask)`` by the template alone; raises whatever the template raises."""

Field = Literal["text", "system", "tool call", "tool result", "name", "thoughts", "tools"]

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


_known: WeakKeyDictionary[Any, tuple[str, Forms]] = WeakKeyDictionary()


def forms_of(tokenizer: Any, render: Render) -> Forms:
    """The forms for a tokenizer's chat template; found once and remembered.

    Args:
        render: applies the tokenizer's template.
    """
    template = str(tokenizer.chat_template)
    known = _known.get(tokenizer)
    if known is None or known[0] != template:
        known = _known[tokenizer] = (template, _find(render))
    return known[1]


def _find(render: Render) -> Forms:
    forms = Forms()
    for probe in (_system, _tools, _calls, _calls_beside_text, _results, _names, _thoughts):
        forms = probe(render, forms)
    return forms


# Words that no template holds and no filter of Jinja changes.
_WORDS = [f"zq{n}xv{n * n + 3}w" for n in range(1, 12)]
_ASKED, _SYSTEM, _FUNCTION, _KEY, _VALUE, _RESULT, _SAID, _NAME, _THOUGHT, _THEN, _PURPOSE = _WORDS

_USER: dict[str, Any] = {"role": "user", "content": _ASKED}
_TOOL = {
    "type": "function",
    "function": {
        "name": _FUNCTION,
        "description": _PURPOSE,
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string"}}},
    },
}
_CALL: dict[str, Any] = {
    "id": "call_0",
    "type": "function",
    "function": {"name": _FUNCTION, "arguments": json.dumps({_KEY: _VALUE})},
}


def _keeps(
    render: Render,
    forms: Forms,
    messages: Sequence[dict[str, Any]],
    words: Sequence[str],
    *,
    tools: bool = False,
    ask: bool = False,
) -> bool:
    """Whether all words come back, each at least once, in this form."""
    try:
        text = render(*written_in(forms, messages, [_TOOL] if tools else []), ask)
    except Exception:  # a template raises what it pleases for what it does not know
        return False
    return all(word in text for word in words)


def _first(candidates: Iterator[Forms], fits: Callable[[Forms], bool], otherwise: Forms) -> Forms:
    return next((forms for forms in candidates if fits(forms)), otherwise)


def _system(render: Render, forms: Forms) -> Forms:
    messages = [{"role": "system", "content": _SYSTEM}, _USER]
    merged = replace(forms, system="user")
    return _first(
        iter((forms, merged)),
        lambda f: _keeps(render, f, messages, [_SYSTEM, _ASKED], ask=True),
        merged,
    )


def _tools(render: Render, forms: Forms) -> Forms:
    native = _keeps(
        render, forms, [_USER], [_ASKED, _FUNCTION, _KEY, _PURPOSE], tools=True, ask=True
    )
    return forms if native else replace(forms, tools="system")


def _calls(render: Render, forms: Forms) -> Forms:
    last: list[dict[str, Any]] = [
        _USER,
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    ]
    words = [_ASKED, _FUNCTION, _KEY, _VALUE]

    def fits(forms: Forms) -> bool:
        middle = [*last, {"role": "tool", "tool_call_id": "call_0", "content": _RESULT}]
        # With and without tools on offer; as the answer, and before the result.
        return (
            _keeps(render, forms, last, words)
            and _keeps(render, forms, last, words, tools=True)
            and _keeps(render, replace(forms, results="user"), middle, words, tools=True, ask=True)
        )

    ways = (
        replace(forms, arguments=arguments, no_text=empty, short_ids=short)
        for arguments in ("object", "text")
        for empty in ("", None)
        for short in (False, True)
    )
    return _first(ways, fits, replace(forms, calls="text", calls_beside_text="text"))


def _calls_beside_text(render: Render, forms: Forms) -> Forms:
    message = {"role": "assistant", "content": _SAID, "tool_calls": [_CALL]}
    words = [_SAID, _FUNCTION, _KEY, _VALUE]
    if _keeps(render, forms, [_USER, message], words, tools=True):
        return forms
    return replace(forms, calls_beside_text="text")


def _results(render: Render, forms: Forms) -> Forms:
    messages: list[dict[str, Any]] = [
        _USER,
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_0", "name": _FUNCTION, "content": _RESULT},
    ]
    then = [*messages, {"role": "assistant", "content": _THEN}]
    natively = _keeps(render, forms, messages, [_RESULT], tools=True, ask=True) and _keeps(
        render, forms, then, [_RESULT, _THEN]
    )
    return forms if natively else replace(forms, results="user")


def _names(render: Render, forms: Forms) -> Forms:
    messages = [{**_USER, "name": _NAME}]
    native = _keeps(render, forms, messages, [_NAME, _ASKED], ask=True)
    return forms if native else replace(forms, names="text")


def _thoughts(render: Render, forms: Forms) -> Forms:
    answer = {"role": "assistant", "content": _SAID, "reasoning_content": _THOUGHT}
    for way in ("native", "text", None):
        found = replace(forms, thoughts=way)
        if way is None or _keeps(render, found, [_USER, answer], [_THOUGHT, _SAID]):
            break
    later = [_USER, answer, _USER, {"role": "assistant", "content": _THEN}]
    return replace(found, earlier_thoughts=_keeps(render, found, later, [_THOUGHT, _THEN]))


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
    made = {"name": function.get("name"), "arguments": _object(function.get("arguments"))}
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
        function["arguments"] = _object(arguments)
    elif not isinstance(arguments, str):
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    out = {**call, "type": call.get("type", "function"), "function": function}
    if forms.short_ids:
        out["id"] = _short_id(call.get("id"))
    return out


def _object(arguments: Any) -> Any:
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


def require_kept(forms: Forms, messages: Sequence[Mapping[str, Any]], text: str) -> None:
    """Refuse a rendered conversation in which something of a message is missing.

    White space does not count. What the forms of the template have proved to keep is looked for
    all the same, since a template may cut by content.

    Raises:
        ModelError: names the message and what of it is missing.
    """
    last = len(messages) - 1
    squeezed = _squeezed(text)
    for number, message in enumerate(messages):
        field = _missing(forms, message, squeezed, is_last=number == last)
        if field is not None:
            raise ModelError(
                f"message {number + 1} ({message.get('role')}): the model's chat template drops "
                f"or changes its {field}",
                hint="Use a model whose template knows it, or take it out of the row.",
            )


def missing_field(forms: Forms, answer: Mapping[str, Any], text: str) -> Field | None:
    """What of a conversation's last answer is not in ``text``, or None; white space is nothing.

    Args:
        answer: a message in OpenAI's form.
        text: read back from the tokens that are trained.
    """
    plain = {**answer, "content": text_of(answer)}
    return _missing(forms, plain, _squeezed(text), is_last=True)


def _missing(
    forms: Forms, message: Mapping[str, Any], squeezed: str, *, is_last: bool
) -> Field | None:
    for field, value in _fields(forms, message, is_last=is_last):
        if not any(_squeezed(way) in squeezed for way in _ways(value)):
            return field
    return None


def _squeezed(text: str) -> str:
    # Tokenizers of the sentencepiece kind may add or drop a space at a border; that is no change.
    return "".join(text.split())


def _fields(
    forms: Forms, message: Mapping[str, Any], *, is_last: bool
) -> Iterator[tuple[Field, str]]:
    content = message.get("content") or ""
    if content:
        # What an earlier answer thought is dropped by design where the family thinks.
        if message.get("role") == "assistant" and not is_last and not forms.earlier_thoughts:
            content = content.rpartition("</think>")[2]
        yield ("tool result" if message.get("role") == "tool" else "text"), content
    thoughts = message.get("reasoning_content")
    if thoughts and (is_last or forms.earlier_thoughts):
        yield "thoughts", thoughts
    if message.get("name") and message.get("role") != "tool":
        yield "name", str(message["name"])
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield "tool call", str(function.get("name") or "")
        for leaf in _strings(_object(function.get("arguments"))):
            yield "tool call", leaf


def _ways(value: str) -> Iterator[str]:
    """A text as it is, and as JSON writes it."""
    yield value
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield json.dumps(value)[1:-1]
    # Jinja's own `tojson` escapes what HTML would read.
    yield (
        json.dumps(value)[1:-1]
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("'", "\\u0027")
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
