"""A rendered conversation read back: is everything in it that its messages hold?

What a template has proved to keep (``template_probe.py``) is looked for all the same, since a
template may cut by content.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tunewise.data.chat import text_of
from tunewise.errors import ModelError
from tunewise.models.template_forms import Forms, arguments_of

_AS_PYTHON = {"true": "True", "false": "False", "null": "None"}
Field = Literal["text", "tool call", "tool result", "name", "thoughts"]


def require_kept(forms: Forms, messages: Sequence[Mapping[str, Any]], text: str) -> None:
    """Refuse a rendered conversation in which something of a message is missing.

    White space does not count. What the forms of the template have proved to keep is looked for
    all the same, since a template may cut by content.

    Raises:
        ModelError: names the message and what of it is missing.
    """
    last = len(messages) - 1
    squeezed = _squeezed(text)
    wanted: Counter[str] = Counter()
    for number, message in enumerate(messages):
        field = _missing(forms, message, squeezed, wanted, is_last=number == last)
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
    return _missing(forms, plain, _squeezed(text), Counter(), is_last=True)


def _missing(
    forms: Forms,
    message: Mapping[str, Any],
    squeezed: str,
    wanted: Counter[str],
    *,
    is_last: bool,
) -> Field | None:
    """The first field that ``squeezed`` holds less often than messages up to this one need it.

    ``wanted`` counts those needs, by value. A text that is part of another one is found there too,
    so this may take a loss for none, and never the other way round.
    """
    for field, value in _fields(forms, message, squeezed, is_last=is_last):
        wanted[value] += 1
        ways = {_squeezed(way) for way in _ways(value)} - {""}
        # Mostly once: looking is quicker than counting.
        few = wanted[value] == 1 and any(way in squeezed for way in ways)
        if ways and not few and sum(map(squeezed.count, ways)) < wanted[value]:
            return field
    return None


def _squeezed(text: str) -> str:
    # Tokenizers of the sentencepiece kind may add or drop a space at a border; that is no change.
    return "".join(text.split())


def _fields(
    forms: Forms, message: Mapping[str, Any], squeezed: str, *, is_last: bool
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
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments and _squeezed(arguments) in squeezed:
            continue  # as it is: a number may be written in ways that JSON does not give back
        for leaf in _leaves(arguments_of(arguments)):
            yield "tool call", leaf


def _ways(value: str) -> Iterator[str]:
    """A text as it is, and as JSON writes it; of what is no text also as Python does."""
    yield value
    if value in _AS_PYTHON:
        yield _AS_PYTHON[value]
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


def _leaves(value: Any) -> Iterator[str]:
    """Keys and values of arguments, as JSON writes them; texts without quotation marks."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield json.dumps(value)
