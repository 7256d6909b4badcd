"""What a response would read: counted (``input_tokens``), and made short (``compact``)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from tunewise.server.access import CallerDep
from tunewise.server.chat.bodies import WholeBody, bad, no_effect
from tunewise.server.chat.compaction import (
    asking_for_summary,
    compacted,
    operator_words,
    summary_budget,
)
from tunewise.server.chat.response_bodies import (
    InputBody,
    conversation,
    input_items,
    response_tools,
)
from tunewise.server.chat.response_events import response_usage
from tunewise.server.chat.response_history import items_before
from tunewise.server.chat.running import (
    Answer,
    EngineFailure,
    count,
    engine_of,
    events,
    model_of,
    refusal,
    warned,
    while_connected,
)
from tunewise.server.database import now
from tunewise.server.errors import Json
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import Generate, ModelRef
from tunewise.server.state import StateDep

if TYPE_CHECKING:
    from tunewise.server.access import Caller
    from tunewise.server.state import ServerState

router = APIRouter()


class CompactBody(WholeBody):
    """``POST /v1/responses/compact``."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    # Hints that change no answer.
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None


@router.post("/v1/responses/input_tokens")
async def input_tokens(
    body: InputBody, request: Request, caller: CallerDep, state: StateDep
) -> Response:
    """How many tokens a response with this body would read; nothing is answered."""
    if body.model is None:
        raise bad(
            "model",
            "Name the `model`: each counts tokens in its own way",
            "missing_required_parameter",
        )
    model, items = await _items(body.model, body.input, body.previous_response_id, caller, state)
    tools, choice = response_tools(body)
    asked = Generate(
        id=new_id("count_"),
        model=model,
        scope=caller.project,
        messages=conversation(items, body.instructions),
        prompt=None,
        tools=tools,
        tool_choice=choice,
        effort=body.effort,
        count_only=True,
    )
    answer = await _answer(asked, request, state)
    return Json(
        {"object": "response.input_tokens", "input_tokens": answer.done.prompt_tokens},
        headers=warned(no_effect(*body.without_effect)),
    )


@router.post("/v1/responses/compact")
async def compact(
    body: CompactBody, request: Request, caller: CallerDep, state: StateDep
) -> Response:
    """A conversation as fewer items: what the user said, and a summary by the model."""
    model, items = await _items(body.model, body.input, body.previous_response_id, caller, state)
    asked = Generate(
        id=new_id("cmp_", 48),
        model=model,
        scope=caller.project,
        messages=asking_for_summary(conversation(items, body.instructions)),
        prompt=None,
        temperature=0.0,
        fitting=True,
    )
    counted = await _answer(replace(asked, count_only=True), request, state)
    budget = summary_budget(counted.done.prompt_tokens)
    answer = await _answer(replace(asked, max_tokens=budget), request, state)
    count(state, caller, answer.done)
    operator = operator_words(conversation(items, None))
    return Json(
        {
            "id": new_id("resp_", 48),
            "object": "response.compaction",
            "created_at": now(),
            "output": compacted(items, operator, answer.choices[0].text.strip()),
            "usage": response_usage(answer.done),
        }
    )


async def _items(
    name: str,
    given: str | list[dict[str, Any]] | None,
    previous: str | None,
    caller: Caller,
    state: ServerState,
) -> tuple[ModelRef, list[dict[str, Any]]]:
    """The model, and the items of the whole conversation."""
    model = await run_in_threadpool(model_of, state, caller, name)
    before = await run_in_threadpool(items_before, state, caller, previous)
    return model, [*before, *(input_items(given) if given is not None else ())]


async def _answer(asked: Generate, request: Request, state: ServerState) -> Answer:
    try:
        source = events(engine_of(state), asked)
        return await while_connected(request, Answer.collect(source, 1))
    except EngineFailure as failure:
        raise refusal(failure.failed, prompt="input") from None
