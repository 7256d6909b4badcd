"""``/v1/responses`` for text and function tools: create, stream, go on from, read, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller, CallerDep
from tunewise.server.chat.bodies import no_effect
from tunewise.server.chat.response_bodies import (
    ResponseBody,
    conversation,
    input_items,
    response_tools,
)
from tunewise.server.chat.response_events import Growing, replayed
from tunewise.server.chat.response_history import items_before
from tunewise.server.chat.retention import owned
from tunewise.server.chat.running import (
    EngineFailure,
    Event,
    count,
    engine_of,
    events,
    kept,
    model_of,
    refusal,
    warned,
    while_connected,
    with_first,
)
from tunewise.server.chat.sse import EventStream, sse
from tunewise.server.chat.stored import Limit, cut
from tunewise.server.chat.tables import StoredResponse
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError, Json, as_api_error
from tunewise.server.inference.protocol import Generate, Piece
from tunewise.server.paging import Order
from tunewise.server.state import StateDep
from tunewise.study.keys import without_tokens

if TYPE_CHECKING:
    from tunewise.server.state import ServerState

router = APIRouter()


@router.post("/v1/responses")
async def create(
    body: ResponseBody, request: Request, caller: CallerDep, state: StateDep
) -> Response:
    """Answer, going on from an earlier response where one is named."""
    model = await run_in_threadpool(model_of, state, caller, body.model)
    growing = Growing(body, model, caller.project)
    own = input_items(body.input)
    before = await run_in_threadpool(items_before, state, caller, body.previous_response_id)
    source = events(engine_of(state), _generate(growing, [*before, *own]))
    try:
        if body.stream:
            begun, warning = await while_connected(request, with_first(source))
            headers = warned(no_effect(*body.without_effect), warning)
            return EventStream(_stream(growing, begun, own, state, caller), begun, headers)
        await while_connected(request, _whole(growing, source))
    except EngineFailure as failure:
        raise refusal(failure.failed, prompt="input", schema="text.format") from None
    response = growing.document()
    await run_in_threadpool(_finish, growing, response, own, state, caller)
    return Json(response, headers=warned(no_effect(*body.without_effect), growing.warning))


@router.get("/v1/responses/{response_id}")
def retrieve(
    response_id: str,
    caller: CallerDep,
    state: StateDep,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """One stored response; as a stream, the events that it was made with, from a number on."""
    with reading(state.sessions) as session:
        found = _find(session, response_id, caller, state)
        response, deltas = found.response, found.deltas
    if not stream:
        return Json(response)
    after = -1 if starting_after is None else starting_after
    told = (sse(event, event["type"]) for event in replayed(response, deltas))
    return StreamingResponse(islice(told, after + 1, None), media_type=EventStream.media_type)


@router.delete("/v1/responses/{response_id}")
def remove(response_id: str, caller: CallerDep, state: StateDep) -> dict[str, Any]:
    """Forget a stored response; those that went on from it cannot be gone on from any more."""
    with writing(state.sessions) as session:
        session.delete(_find(session, response_id, caller, state))
    return {"id": response_id, "object": "response.deleted", "deleted": True}


@router.post("/v1/responses/{response_id}/cancel")
def cancel(response_id: str, caller: CallerDep, state: StateDep) -> dict[str, Any]:
    """Refused: what is stored has ended already."""
    with reading(state.sessions) as session:
        _find(session, response_id, caller, state)
    raise ApiError(
        400,
        "Cannot cancel a synchronous response: close its connection instead",
        code="invalid_request",
        param="response_id",
    )


@router.get("/v1/responses/{response_id}/input_items")
def items(
    response_id: str,
    caller: CallerDep,
    state: StateDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Annotated[Order, Query()] = "desc",
) -> dict[str, Any]:
    """The input of a stored response."""
    with reading(state.sessions) as session:
        found = _find(session, response_id, caller, state).input
    return cut([_listed(item) for item in found], after=after, limit=limit, order=order)


def _generate(growing: Growing, items: list[dict[str, Any]]) -> Generate:
    body = growing.body
    tools, choice = response_tools(body)
    shape = body.format
    return Generate(
        id=growing.id,
        model=growing.model,
        scope=growing.project,
        messages=conversation(items, body.instructions),
        prompt=None,
        tools=tools,
        tool_choice=choice,
        max_tokens=body.max_output_tokens,
        effort=body.effort,
        temperature=1.0 if body.temperature is None else float(body.temperature),
        top_p=1.0 if body.top_p is None else float(body.top_p),
        schema=shape.schema_,
        json_object=shape.type == "json_object",
        logprobs=body.logprobs,
    )


async def _whole(growing: Growing, source: AsyncGenerator[Event]) -> None:
    async for event in source:
        for _ in growing.take(event) if isinstance(event, Piece) else growing.end(event):
            pass


async def _stream(
    growing: Growing,
    source: AsyncGenerator[Event],
    own: list[dict[str, Any]],
    state: ServerState,
    caller: Caller,
) -> AsyncGenerator[bytes]:
    """The events of a response; the last says how it ended."""
    try:
        for told in growing.begin():
            yield sse(told, told["type"])
        async for event in source:
            if isinstance(event, Piece):
                for told in growing.take(event):
                    yield sse(told, told["type"])
            else:
                last = list(growing.end(event))
                # Kept before it is told: what a client was promised can be gone on from.
                await run_in_threadpool(_finish, growing, last[-1]["response"], own, state, caller)
                for told in last:
                    yield sse(told, told["type"])
    except EngineFailure as failure:
        for told in growing.fail("server_error", failure.failed.message):
            yield sse(told, told["type"])
    except Exception as error:  # the status is sent; the stream must say that it is not whole
        for told in growing.fail("server_error", as_api_error(error).message):
            yield sse(told, told["type"])


def _finish(
    growing: Growing,
    response: dict[str, Any],
    own: list[dict[str, Any]],
    state: ServerState,
    caller: Caller,
) -> None:
    """Count the tokens; store the response unless that was refused.

    Where there is no place for it, ``store`` in the response is false.
    """
    if growing.done is not None:
        count(state, caller, growing.done)
    if growing.body.stored and not kept(lambda: _keep(growing, response, own, state, caller)):
        response["store"] = False


def _keep(
    growing: Growing,
    response: dict[str, Any],
    own: list[dict[str, Any]],
    state: ServerState,
    caller: Caller,
) -> None:
    shown = without_tokens(response)
    with writing(state.sessions) as session:
        session.add(
            StoredResponse(
                id=growing.id,
                project=caller.project,
                created_at=growing.created,
                previous=growing.body.previous_response_id,
                input=own,
                response=shown,
                # As it came, a key would stand there in pieces.
                deltas=growing.deltas if shown == response else None,
            )
        )


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    """An input item as its list has it: a message's content always in parts."""
    if item["type"] == "message" and isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        return {**item, "content": [{"type": kind, "text": item["content"]}]}
    return item


def _find(session: Session, id: str, caller: Caller, state: ServerState) -> StoredResponse:
    mine = owned(StoredResponse, caller, state.settings)
    found = session.scalar(select(StoredResponse).where(StoredResponse.id == id, *mine))
    if found is None:
        raise ApiError(
            404,
            f"Response with id '{id[:100]}' not found.",
            code="not_found",
            param="response_id",
        )
    return found
