"""The joint to whoever answers: a local model or any server that speaks the OpenAI API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from tunewise.data.chat import Completion, Progress, Request


@runtime_checkable
class Engine(Protocol):
    """One inference stack with one model.

    Attributes:
        model: the name under which answers are recorded.
        revision: identifies the exact weights (hash or provider's revision); part of cache keys.
        context_length: tokens that prompt and answer may take together; None where unknown.
    """

    model: str
    revision: str
    context_length: int | None

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        """Answer all requests, in order. A request that fails gives a completion with ``error``.

        Raises:
            ModelError: when nothing can be answered at all (no such model, no access).
        """
        ...

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        """Tokens of the conversation as the model would see it."""
        ...

    def close(self) -> None:
        """Give back memory and connections."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """An engine that knows of a request, before it is asked, that it cannot be answered."""

    def why_not(self, requests: Sequence[Request]) -> dict[int, str]:
        """The requests that would fail, by their place, and why; nothing is computed."""
        ...


LONGER_CONTEXT = "Shorten these rows, leave them out, or take a model with a longer context."


THOUGHT_TOKENS = 1024
"""What a model that thinks may write before its answer, where nobody says how much."""


def room_for_thoughts(engine: Engine) -> int:
    """Tokens that an answer may take beyond its own, for what the model thinks before it."""
    if not getattr(engine, "thinks", False):
        return 0
    context = engine.context_length
    return THOUGHT_TOKENS if context is None else min(THOUGHT_TOKENS, context // 4)


def in_order(
    done: Iterable[tuple[int, Completion]], count: int, progress: Progress | None
) -> list[Completion]:
    """The ``count`` completions that come as ``(index, completion)`` in any order, in order."""
    if progress is not None and count:
        progress(0, count)
    answers: dict[int, Completion] = {}
    failed = 0
    for index, completion in done:
        answers[index] = completion
        failed += completion.error is not None
        if progress is not None:
            progress(len(answers), count, failed)
    return [answers[i] for i in range(count)]
