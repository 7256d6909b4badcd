"""What a chat template keeps of a conversation, found by asking it.

Each tokenizer's template is shown small conversations in which every field holds a word of its
own, and the first way of writing a field with which all words come back is used from then on, for
prompts and answers alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from tunewise.models.template_forms import Forms, written_in

Render = Callable[[list[dict[str, Any]], list[Any] | None, bool], str]
"""``render(messages, tools, ask)`` by the template alone; raises whatever the template raises."""

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
