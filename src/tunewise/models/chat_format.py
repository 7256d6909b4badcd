"""Conversations as the text a model sees.

Training and scoring render through the same functions, so a model is asked in the form it learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewise.data.chat import TEXT_PARTS, Message, text_of
from tunewise.errors import ModelError
from tunewise.models.template_check import require_kept
from tunewise.models.template_date import asks_for_date, with_date
from tunewise.models.template_forms import Forms, written_in
from tunewise.models.template_probe import forms_of

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


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    ask: bool = True,
    date: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as one text, by the tokenizer's chat template (special tokens included).

    Everything that the messages hold is in the text, in the form that the template keeps
    (``template_forms.py``), or the conversation is refused.

    Args:
        tokenizer: with a ``chat_template`` (``load_local`` sees to that).
        messages: in OpenAI's form.
        tools: definitions in OpenAI's form.
        ask: end with the head of an assistant message, for the model to continue.
        date: ISO 8601, what a template that asks for today's date is given; None is today's.
        variables: what else the template is given, for instance ``enable_thinking``.

    Raises:
        ModelError: the template refuses the conversation, or something of a message would be lost;
            names the message.
    """
    plain = plain_messages(messages)
    forms = template_forms(tokenizer)
    try:
        text = _apply(tokenizer, *written_in(forms, plain, tools), ask, date, variables)
    except Exception as error:  # a template raises what it pleases for what it does not expect
        raise ModelError(
            f"the model's chat template refuses this conversation: {error}",
            hint="Check the order of roles: most templates want user and assistant in turn.",
        ) from error
    require_kept(forms, plain, text)
    return text


def template_forms(tokenizer: PreTrainedTokenizerBase) -> Forms:
    """How each field of a message is written for this tokenizer's chat template."""
    return forms_of(tokenizer, lambda messages, tools, ask: _apply(tokenizer, messages, tools, ask))


def _apply(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    tools: list[Any] | None,
    ask: bool,
    date: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    text = tokenizer.apply_chat_template(
        messages,
        tools=tools,
        chat_template=template_for(tokenizer, tools, date),
        add_generation_prompt=ask,
        tokenize=False,
        **(variables or {}),
    )
    return str(text)


def template_for(
    tokenizer: PreTrainedTokenizerBase, tools: list[Any] | None, date: str | None
) -> str | None:
    """The tokenizer's template with ``date`` as today's; None for its own as it is.

    Args:
        tools: those on offer; some tokenizers have a template of its own for them.
    """
    if date is None or not asks_for_date(tokenizer.chat_template):
        return None
    return with_date(tokenizer.get_chat_template(None, tools), date)


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages with one text as content, and what else templates read; no training marks.

    Raises:
        ModelError: a part of a message's content is no text.
    """
    return [_plain(message, number) for number, message in enumerate(messages, start=1)]


def _plain(message: Message, number: int) -> dict[str, Any]:
    content = message.get("content")
    for place, part in enumerate(content if isinstance(content, list) else (), start=1):
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        if kind not in TEXT_PARTS:
            raise ModelError(
                f"message {number} ({message.get('role')}): part {place} is of the type {kind!r}, "
                "and this model reads text alone",
                hint="Use a model that reads such parts, or take them out of the row.",
            )
    role = message.get("role")
    result: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": text_of(message),
    }
    for key in ("name", "tool_call_id", "reasoning_content", "tool_calls"):
        if message.get(key):
            result[key] = message[key]
    return result
