"""``POST /v1/chat/completions``, streamed and not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from tunewise.server.access import CallerDep
from tunewise.server.chat import stored
from tunewise.server.chat.bodies import ChatBody
from tunewise.server.chat.conversation import engine_messages, offered_tools
from tunewise.server.chat.running import (
    NOT_STORED,
    Answer,
    Choice,
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
from tunewise.server.chat.sse import DONE, EventStream, sse
from tunewise.server.chat.words import fingerprint, token_logprob, usage
from tunewise.server.database import now
from tunewise.server.errors import Json, as_api_error
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import Generate, ModelRef, Piece
from tunewise.server.state import StateDep

if TYPE_CHECKING:
    from tunewise.server.access import Caller
    from tunewise.server.state import ServerState

router = APIRouter()
router.include_router(stored.router)


@router.post("/v1/chat/completions")
async def create(body: ChatBody, request: Request, caller: CallerDep, state: StateDep) -> Response:
    """Answer a conversation."""
    model = await run_in_threadpool(model_of, state, caller, body.model)
    chat = _Chat(body, model, caller.project)
    source = events(engine_of(state), chat.generate())
    try:
        if body.stream:
            begun, warning = await while_connected(request, with_first(source))
            headers = warned(body.without_effect, warning)
            return EventStream(_stream(chat, begun, state, caller), begun, headers)
        answer = await while_connected(request, Answer.collect(source, body.n or 1))
    except EngineFailure as failure:
        raise refusal(failure.failed) from None
    completion = chat.completion(answer)
    whole = await run_in_threadpool(_finish, chat, answer, completion, state, caller)
    headers = warned(body.without_effect, answer.warning, "" if whole else NOT_STORED)
    tagged = {"metadata": body.metadata} if body.store and whole else {}
    return Json({**completion, **tagged}, headers=headers)


@dataclass(slots=True)
class _Chat:
    """One request, and the words of its answer."""

    body: ChatBody
    model: ModelRef
    project: str
    id: str = field(default_factory=lambda: new_id("chatcmpl"))
    created: int = field(default_factory=now)

    def generate(self) -> Generate:
        """The request for the engine."""
        body = self.body
        tools, choice = offered_tools(body)
        shape = body.response_format
        return Generate(
            id=self.id,
            model=self.model,
            scope=self.project,
            messages=engine_messages(body.messages),
            prompt=None,
            tools=tools,
            tool_choice=choice,
            max_tokens=body.budget,
            schema=shape.schema_asked if shape is not None else None,
            json_object=shape is not None and shape.any_object,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            template=body.chat_template_kwargs or {},
            effort=body.reasoning_effort,
            **body.sampling(),
        )

    @property
    def head(self) -> dict[str, Any]:
        """What a completion and each of its chunks begin with."""
        return {
            "id": self.id,
            "created": self.created,
            "model": self.body.model,
            "service_tier": "default",
            "system_fingerprint": fingerprint(self.model),
        }

    def completion(self, answer: Answer) -> dict[str, Any]:
        """The whole answer."""
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [self._choice(i, choice) for i, choice in enumerate(answer.choices)],
            "usage": usage(answer.done),
        }

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        calls = self.calls(choice.tool_calls)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.text if choice.text or not calls else None,
            "refusal": None,
            "annotations": [],
        }
        if choice.thoughts:
            message["reasoning_content"] = choice.thoughts
        if calls and self.body.functions is not None:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "logprobs": self.logprobs(choice.logprobs) if self.body.logprobs else None,
            "finish_reason": self.reason(choice.finish_reason or "stop"),
        }

    def calls(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tool calls for the caller: one alone where several at once were not wanted."""
        one = self.body.parallel_tool_calls is False or self.body.functions is not None
        return calls[:1] if one else calls

    def reason(self, reason: str | None) -> str | None:
        """Why an answer ended, in the words of who asked by ``functions`` or by ``tools``."""
        older = reason == "tool_calls" and self.body.functions is not None
        return "function_call" if older else reason

    def logprobs(self, tokens: Any) -> dict[str, Any]:
        """Log-probabilities of tokens, as a choice has them."""
        return {"content": [token_logprob(token) for token in tokens], "refusal": None}


async def _stream(
    chat: _Chat, source: AsyncGenerator[Event], state: ServerState, caller: Caller
) -> AsyncGenerator[bytes]:
    """The chunks of an answer, ``[DONE]`` or an error at their end."""
    head = {**chat.head, "object": "chat.completion.chunk"}
    if chat.body.usage_at_end:
        head["usage"] = None
    answer = Answer(chat.body.n or 1)
    begun: set[int] = set()
    try:
        async for event in source:
            answer.add(event)
            if isinstance(event, Piece):
                first = event.choice not in begun
                begun.add(event.choice)
                for choice in _chunks(chat, event, first):
                    yield sse({**head, "choices": [choice]})
        if chat.body.usage_at_end:
            yield sse({**head, "choices": [], "usage": usage(answer.done)})
        await run_in_threadpool(_finish, chat, answer, chat.completion(answer), state, caller)
        yield DONE
    except EngineFailure as failure:
        yield sse(refusal(failure.failed).envelope)
    except Exception as error:  # the status is sent; the stream must say that it is not whole
        yield sse(as_api_error(error).envelope)


def _chunks(chat: _Chat, piece: Piece, first: bool) -> Iterator[dict[str, Any]]:
    """A piece as the choices of one, two or three chunks: role, then text and calls, then end."""
    empty: dict[str, Any] = {
        "index": piece.choice,
        "delta": {},
        "logprobs": None,
        "finish_reason": None,
    }
    if first:
        delta = {"role": "assistant", "content": "", "refusal": None}
        yield {**empty, "delta": delta}
    if piece.thoughts:
        yield {**empty, "delta": {"reasoning_content": piece.thoughts}}
    if piece.text or piece.logprobs:
        logprobs = chat.logprobs(piece.logprobs) if chat.body.logprobs else None
        yield {**empty, "delta": {"content": piece.text}, "logprobs": logprobs}
    calls = chat.calls(list(piece.tool_calls))
    if calls and chat.body.functions is not None:
        yield {**empty, "delta": {"function_call": calls[0]["function"]}}
    elif calls:
        numbered = [{"index": index, **call} for index, call in enumerate(calls)]
        yield {**empty, "delta": {"tool_calls": numbered}}
    if piece.finish_reason is not None:
        yield {**empty, "finish_reason": chat.reason(piece.finish_reason)}


def _finish(
    chat: _Chat, answer: Answer, completion: dict[str, Any], state: ServerState, caller: Caller
) -> bool:
    """Count the tokens, and keep the chat where that was asked for; false where it has no place."""
    count(state, caller, answer.done)
    if not chat.body.store:
        return True
    return kept(lambda: stored.keep(state, caller, chat.body, completion))
