"""A rendered conversation read back: is everything in it that its messages hold?

What a template has proved to keep (``template_probe.py``) is looked for all the same, since a
template may cut by content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tunewise.data.chat import text_of
from tunewise.errors import ModelError
from tunewise.models.template_forms import Forms, arguments_of

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
        for leaf in _strings(arguments_of(function.get("arguments"))):
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
