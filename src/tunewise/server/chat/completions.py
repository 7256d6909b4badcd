"""``POST /v1/completions``: text that goes on from a prompt, with or without a chat template."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from tunewise.server.access import CallerDep
from tunewise.server.chat.running import (
    Answer,
    Choice,
    EngineFailure,
    Event,
    count,
    engine_of,
    events,
    model_of,
    refusal,
    while_connected,
    with_first,
)
from tunewise.server.chat.sse import DONE, EventStream, sse
from tunewise.server.chat.text_bodies import CompletionBody
from tunewise.server.chat.words import fingerprint, finite, total, usage
from tunewise.server.database import now
from tunewise.server.errors import Json, as_api_error
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import Generate, ModelRef, Piece, TokenLogprob
from tunewise.server.state import StateDep

if TYPE_CHECKING:
    from tunewise.server.access import Caller
    from tunewise.server.inference.client import InferenceClient
    from tunewise.server.state import ServerState

router = APIRouter()

AT_ONCE = 32
"""Prompts of one request that the engine is given at once, so that others find a place, too."""

_DEFAULT_TOKENS = 16


@router.post("/v1/completions")
async def create(
    body: CompletionBody, request: Request, caller: CallerDep, state: StateDep
) -> Response:
    """Go on from each prompt."""
    model = await run_in_threadpool(model_of, state, caller, body.model)
    asked = _Completion(body, model, caller.project)
    try:
        if body.stream:
            begun, _ = await while_connected(request, with_first(asked.events(engine_of(state))))
            return EventStream(_stream(asked, begun, state, caller), begun)
        answers = await while_connected(request, asked.answers(engine_of(state)))
    except EngineFailure as failure:
        raise refusal(failure.failed, prompt="prompt") from None
    counted = total([answer.done for answer in answers])
    count(state, caller, counted)
    choices = [choice for answer in answers for choice in _best(answer.choices, body.n or 1)]
    shown = [asked.choice(index, choice) for index, choice in enumerate(choices)]
    return Json({**asked.head, "choices": shown, "usage": usage(counted)})


@dataclass(slots=True)
class _Completion:
    """One request: a generation for each of its prompts."""

    body: CompletionBody
    model: ModelRef
    project: str
    id: str = field(default_factory=lambda: new_id("cmpl"))
    created: int = field(default_factory=now)

    def requests(self) -> list[Generate]:
        """One request to the engine for each prompt."""
        body = self.body
        drawn = max(body.n or 1, body.best_of or 1)
        ranked = drawn > (body.n or 1)
        return [
            Generate(
                id=f"{self.id}-{number}",
                model=self.model,
                scope=self.project,
                messages=None,
                prompt=prompt,
                max_tokens=_DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens,
                logprobs=0 if body.logprobs is None and ranked else body.logprobs,
                echo=bool(body.echo),
                **{**body.sampling(), "n": drawn},
            )
            for number, prompt in enumerate(body.prompts)
        ]

    async def answers(self, client: InferenceClient) -> list[Answer]:
        """The answers to all prompts, in their order; one failure ends all."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(request: Generate) -> Answer:
            async with places:
                return await Answer.collect(events(client, request), request.n)

        tasks = [asyncio.ensure_future(one(request)) for request in self.requests()]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def events(self, client: InferenceClient) -> AsyncGenerator[Event]:
        """The pieces of all prompts, one prompt after the other, with the choices counted on."""
        for number, request in enumerate(self.requests()):
            source = events(client, request)
            try:
                async for event in source:
                    if isinstance(event, Piece):
                        choice = number * request.n + event.choice
                        event = Piece(choice, event.text, event.logprobs, event.finish_reason)
                    yield event
            finally:
                await source.aclose()

    @property
    def head(self) -> dict[str, Any]:
        """What a completion and each of its chunks begin with."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": fingerprint(self.model),
        }

    def choice(self, index: int, choice: Choice, offset: int = 0) -> dict[str, Any]:
        """A choice, or a piece of one that begins ``offset`` characters into its text."""
        wanted = self.body.logprobs
        return {
            "index": index,
            "text": choice.text,
            "logprobs": None if wanted is None else _logprobs(choice.logprobs, offset),
            "finish_reason": choice.finish_reason,
        }


async def _stream(
    asked: _Completion, source: AsyncGenerator[Event], state: ServerState, caller: Caller
) -> AsyncGenerator[bytes]:
    """The chunks of all choices, ``[DONE]`` or an error at their end."""
    head = asked.head
    if asked.body.usage_at_end:
        head["usage"] = None
    offsets: dict[int, int] = {}
    counts = []
    try:
        async for event in source:
            if not isinstance(event, Piece):
                counts.append(event)
                continue
            piece = Choice(event.text, list(event.logprobs), [], event.finish_reason)
            offset = offsets.get(event.choice, 0)
            offsets[event.choice] = offset + sum(len(token.token) for token in event.logprobs)
            yield sse({**head, "choices": [asked.choice(event.choice, piece, offset)]})
        counted = total(counts)
        if asked.body.usage_at_end:
            yield sse({**head, "choices": [], "usage": usage(counted)})
        count(state, caller, counted)
        yield DONE
    except EngineFailure as failure:
        yield sse(refusal(failure.failed, prompt="prompt").envelope)
    except Exception as error:  # the status is sent; the stream must say that it is not whole
        yield sse(as_api_error(error).envelope)


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """Four parallel lists; null for the first token of a prompt, which nothing predicts."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    unknown = [math.isnan(token.logprob) for token in tokens]
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [
            None if first else finite(token.logprob)
            for token, first in zip(tokens, unknown, strict=True)
        ],
        "top_logprobs": [
            None if first else {text: finite(logprob) for text, _, logprob in token.top}
            for token, first in zip(tokens, unknown, strict=True)
        ],
        "text_offset": offsets,
    }


def _best(choices: Sequence[Choice], wanted: int) -> list[Choice]:
    """The ``wanted`` choices with the highest mean log-probability of a token."""
    if len(choices) == wanted:
        return list(choices)

    def mean(choice: Choice) -> float:
        known = [finite(t.logprob) for t in choice.logprobs if not math.isnan(t.logprob)]
        return sum(known) / len(known) if known else -math.inf

    return sorted(choices, key=mean, reverse=True)[:wanted]
