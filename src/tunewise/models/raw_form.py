"""Rows of a prompt and its completion as bare text: for models that are asked so.

A model of completions (``POST /v1/completions``) goes on from a text; it is not shown who speaks.
What is trained on such rows must be what is asked: the prompt as it stands, the completion after
it, and an end token. The form is a chat template like any other, so all that is known of templates
holds for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tunewise.data.chat import Message, text_of

Form = Literal["chat", "raw"]
"""``chat``: by the model's chat template. ``raw``: prompt and completion as they stand."""

RAW_STOP = ("\n###\n",)
"""Between the examples that a raw prompt shows; an untrained model goes on with the next one."""

_TEXT = """\
{%- for message in messages %}
{%- if message.role == "assistant" %}
{%- generation %}{{ message.content }}{% if loop.last %}{{ eos_token }}{% endif %}
{%- endgeneration %}
{%- if not loop.last %}{{ "\\n###\\n" }}{% endif %}
{%- else %}{{ message.content }}
{%- if not loop.last and (message.role == "system" or messages[loop.index].role != "assistant") %}
{{- "\\n\\n" }}{% endif %}
{%- endif %}
{%- endfor %}"""

_SYSTEM = ("system", "developer")
_COMPLETIONS = re.compile(
    r"(?:(?:code|text)-)?(?:ada|babbage|curie|davinci)(?:-\d{3})?|gpt-3\.5-turbo-instruct(?:-\d{4})?"
)


def raw_template(tokenizer: Any) -> str:
    """The form as a chat template: with what the tokenizer puts before a text of its own accord."""
    first = tokenizer("a")["input_ids"][:1]
    begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    return ("{{- bos_token }}" if begins else "") + _TEXT


def raw_text(messages: Sequence[Message]) -> str:
    """A conversation in this form for a server, whose tokenizer is not known here.

    It is what ``raw_template`` makes of it, without what a tokenizer adds.
    """
    out: list[str] = []
    for number, message in enumerate(messages, start=1):
        out.append(text_of(message))
        if number == len(messages):
            break
        if message.get("role") == "assistant":
            out += RAW_STOP
        elif message.get("role") in _SYSTEM or messages[number].get("role") != "assistant":
            out.append("\n\n")
    return "".join(out)


def is_completions_name(name: str) -> bool:
    """Whether a model's name is that of a hosted model of completions, such as babbage-002."""
    return _COMPLETIONS.fullmatch(name) is not None


def has_chat_template(folder: Path) -> bool:
    """Whether a model's folder brings a chat template; the model is not loaded for that."""
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    if any(folder.glob("additional_chat_templates/*.jinja")):
        return True
    try:
        value = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(isinstance(value, dict) and value.get("chat_template"))
