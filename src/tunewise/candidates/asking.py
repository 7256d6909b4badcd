"""Asking an engine on behalf of a candidate: what fits its context, and the fitted result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunewise.data.chat import Completion, Example, Progress, Request
from tunewise.errors import ModelError
from tunewise.models.engine import Engine


def fits(engine: Engine, request: Request) -> bool:
    """Whether prompt and answer fit the engine's context; True where that is unknown."""
    most = engine.context_length
    if most is None:
        return True
    try:
        prompt = engine.count_tokens([dict(message) for message in request.messages])
    except ModelError:
        # A conversation that the model's chat template refuses: asking will give it an error.
        return True
    return prompt + request.max_tokens <= most


def as_many_as_fit(
    engine: Engine, build: Callable[[int], Request], most: int
) -> tuple[Request, int]:
    """The request with the most shots or passages that fit, and their number.

    Args:
        build: makes the request with that many; more of them never make it shorter.
        most: how many there are at most.
    """
    request = build(most)
    if most == 0 or fits(engine, request):
        return request, most
    low, high = 0, most - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fits(engine, build(middle)):
            low = middle
        else:
            high = middle - 1
    return build(low), low


def ask(
    engine: Engine, requests: Sequence[Request], progress: Progress | None = None
) -> list[Completion]:
    """The engine's answers, one a request, with how much of the prompts is the same in all."""
    completions = engine.answer(requests, progress) if requests else []
    if len(completions) != len(requests):
        raise RuntimeError(f"{engine.model}: {len(requests)} requests, {len(completions)} answers")
    return with_static_tokens(requests, completions)


def with_static_tokens(
    requests: Sequence[Request], completions: Sequence[Completion]
) -> list[Completion]:
    """Completions with how many of their prompts' tokens all of these requests begin with."""
    shares = static_shares(requests)
    return [
        completion
        if completion.prompt_tokens is None
        else replace(completion, static_tokens=int(share * completion.prompt_tokens))
        for completion, share in zip(completions, shares, strict=True)
    ]


def static_shares(requests: Sequence[Request]) -> list[float]:
    """The share (0..1) of each prompt that all prompts have in common at their start.

    That is what a provider's prompt cache can hold: tools, instructions, shots that stand in every
    prompt. It is measured in characters, since a hosted model's tokens cannot be counted here. One
    request alone has nothing in common.
    """
    texts = [
        json.dumps([[dict(tool) for tool in r.tools], [dict(message) for message in r.messages]])
        for r in requests
    ]
    if len(texts) < 2:
        return [0.0] * len(texts)
    # What the first and the last in sorting order begin with, all others begin with too.
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    common = next((place for place, (a, b) in pairs if a != b), len(first))
    return [common / len(text) for text in texts]


class AskedFitted:
    """A fitted candidate whose answers come from an engine.

    Attributes:
        dev_completions: the answers to all dev rows, in order; None where dev was empty.
    """

    def __init__(
        self,
        engine: Engine,
        request_for: Callable[[Example], Request],
        chosen: Callable[[], Mapping[str, Any]],
        dev_completions: list[Completion] | None,
    ) -> None:
        self._engine = engine
        self._request_for = request_for
        self._chosen = chosen
        self.dev_completions = dev_completions

    def request(self, example: Example) -> Request:
        return self._request_for(example)

    def answer(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Completion]:
        return ask(self._engine, [self.request(e) for e in examples], progress)

    def chosen(self) -> Mapping[str, Any]:
        return self._chosen()
