"""Answers to some prompts, by one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.data.chat import Message, Request
from tunewise.errors import ModelError


def answers(
    model: str,
    prompts: Sequence[str | Sequence[Mapping[str, Any]]],
    *,
    adapter: Path | None,
    system: str | None,
    max_tokens: int,
    temperature: float,
    json_schema: Mapping[str, Any] | None,
) -> list[str]:
    """The text of each answer, in order.

    Raises:
        ModelError: no such model, or one of the prompts cannot be answered.
    """
    from tunewise.models.opening import open_engine
    from tunewise.study.keys import resolve_key

    requests = [
        Request(
            _messages(prompt, system),
            max_tokens=max_tokens,
            temperature=temperature,
            json_schema=json_schema,
        )
        for prompt in prompts
    ]
    engine = open_engine(model, adapter=adapter, key_resolver=resolve_key)
    try:
        found = engine.answer(requests)
    finally:
        engine.close()
    for number, completion in enumerate(found, start=1):
        if completion.error is not None:
            raise ModelError(f"prompt {number}: {completion.error}", where=model)
    return [completion.text for completion in found]


def _messages(prompt: str | Sequence[Mapping[str, Any]], system: str | None) -> tuple[Message, ...]:
    if not isinstance(prompt, str):
        return tuple(prompt)
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    return (*start, {"role": "user", "content": prompt})
