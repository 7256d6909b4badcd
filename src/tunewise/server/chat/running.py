"""One generation from request to outcome: its first event awaited, its caller watched.

A failure before the first piece becomes an HTTP status; a caller who goes away ends the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tunewise.server.database import reading
from tunewise.server.errors import ApiError, database_is_away, disk_is_full
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import (
    Done,
    Failed,
    Generate,
    ModelRef,
    Piece,
    TokenLogprob,
)
from tunewise.server.jobs.resolve import resolve
from tunewise.server.metrics import TOKENS

if TYPE_CHECKING:
    from starlette.requests import Request

    from tunewise.server.access import Caller
    from tunewise.server.inference.client import InferenceClient
    from tunewise.server.state import ServerState

T = TypeVar("T")
Event = Piece | Done

log = logging.getLogger("tunewise.server")

NOT_STORED = "the server's disk is full: the answer is not stored"
"""The warning of an answer that was to be stored and is not."""
RETRY_AFTER_S = 2
"""What a client is told to wait when too many requests wait already."""

_BLAMED = {
    "context_length_exceeded": "messages",
    "invalid_schema": "response_format",
    "invalid_request": None,
    "model_not_loadable": "model",
}


def warned(*warnings: str) -> dict[str, str]:
    """The header that says what of a request has no effect, or went wrong; none for nothing."""
    told = "; ".join(filter(None, warnings))
    # A client's own words may stand in it, and a header holds printable ASCII only.
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in told)
    return {"x-tunewise-warning": plain} if plain else {}


def refusal(
    failed: Failed, *, prompt: str = "messages", schema: str = "response_format"
) -> ApiError:
    """What the engine says, as an HTTP error.

    Args:
        failed: from the engine.
        prompt, schema: what this endpoint calls its input and its JSON Schema.
    """
    if failed.code in _BLAMED:
        param = {"messages": prompt, "response_format": schema}.get(
            _BLAMED[failed.code] or "", _BLAMED[failed.code]
        )
        return ApiError(400, failed.message, code=failed.code, param=param)
    if failed.code == "overloaded":
        return ApiError(
            503,
            failed.message,
            code="overloaded",
            type="server_error",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    return ApiError(500, failed.message, code=failed.code, type="server_error")


def kept(keep: Callable[[], None]) -> bool:
    """Store an answer that is computed already; whether there was a place for it.

    An answer that cannot be kept is sent all the same: it has cost its tokens.
    """
    try:
        keep()
    except Exception as error:
        if disk_is_full(error):
            log.error("the disk is full: an answer was sent and not stored")
        elif database_is_away(error):
            log.error("the database does not answer: an answer was sent and not stored")
        else:
            raise
        return False
    return True


class EngineFailure(Exception):
    """The engine could not answer; ``failed`` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


def model_of(state: ServerState, caller: Caller, name: str) -> ModelRef:
    """The weights behind a public name; waits for the database.

    Raises:
        ApiError: 404 ``model_not_found``.
    """
    with reading(state.sessions) as session:
        return resolve(session, caller, name)


def engine_of(state: ServerState) -> InferenceClient:
    """The engine.

    Raises:
        ApiError: 503, the server runs without one.
    """
    if state.inference is None:
        raise ApiError(
            503, "This server runs without models.", type="server_error", code="no_models"
        )
    return state.inference


def count(state: ServerState, caller: Caller, done: Done) -> None:
    """Add an answer's tokens to its key's account and to the metrics."""
    state.usage.add(
        caller, prompt_tokens=done.prompt_tokens, completion_tokens=done.completion_tokens
    )
    TOKENS.labels("prompt").inc(done.prompt_tokens)
    TOKENS.labels("completion").inc(done.completion_tokens)
    TOKENS.labels("cached").inc(done.cached_tokens)


async def events(client: InferenceClient, request: Generate) -> AsyncGenerator[Event]:
    """The pieces of an answer and the count at its end; closing it early cancels the request.

    Raises:
        EngineFailure: what the engine's ``Failed`` says.
    """
    ended = False
    try:
        async for event in client.generate(request):
            ended = not isinstance(event, Piece)
            if isinstance(event, Failed):
                raise EngineFailure(event)
            if isinstance(event, Piece) and event.tool_calls:
                event = replace(event, tool_calls=tuple(map(_own_id, event.tool_calls)))
            yield event
    finally:
        if not ended:
            client.cancel(request.id)


def _own_id(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call under an id that no other call of the conversation has."""
    return {"id": new_id("call_"), "type": "function", "function": dict(call["function"])}


async def with_first(source: AsyncGenerator[Event]) -> tuple[AsyncGenerator[Event], str]:
    """Wait for the first event; then all of them, and the warning that the first one carries.

    Raises:
        EngineFailure: the engine refuses the request; nothing was sent yet.
    """
    first = await anext(source)

    async def all_of_them() -> AsyncGenerator[Event]:
        try:
            yield first
            async for event in source:
                yield event
        finally:
            await source.aclose()

    return all_of_them(), first.warning if isinstance(first, Piece) else ""


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The outcome of ``work``, which is cancelled when the client closes its connection.

    Raises:
        ApiError: 499, which nobody reads.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client closed the connection", code="client_closed")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@dataclass(slots=True)
class Choice:
    """One answer, as far as it is known.

    Attributes:
        text: joined from its pieces.
        thoughts: those that the model marks by channels.
        logprobs: of all its tokens, where they were asked for.
        tool_calls: in OpenAI's form.
        finish_reason: None while it grows.
    """

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    thoughts: str = ""


class Answer:
    """All choices of one request, put together from events.

    Attributes:
        warning: what of the request has no effect, as the engine has found.
    """

    def __init__(self, choices: int) -> None:
        self.choices = [Choice() for _ in range(choices)]
        self.done = Done(0, 0, 0)
        self.warning = ""

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Done):
            self.done = event
            return
        self.warning = self.warning or event.warning
        choice = self.choices[event.choice]
        choice.text += event.text
        choice.thoughts += event.thoughts
        choice.logprobs.extend(event.logprobs)
        choice.tool_calls.extend(event.tool_calls)
        choice.finish_reason = event.finish_reason or choice.finish_reason

    @classmethod
    async def collect(cls, source: AsyncIterator[Event], choices: int) -> Answer:
        """The whole answer."""
        answer = cls(choices)
        async for event in source:
            answer.add(event)
        return answer
