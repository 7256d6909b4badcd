"""A response as it grows: its items, and the events that tell of each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewise.server.chat.response_bodies import ResponseBody, response_tools
from tunewise.server.chat.words import token_logprob
from tunewise.server.database import now
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import Done, ModelRef, Piece


@dataclass(slots=True)
class Output:
    """The items of a response, and the events that tell of them.

    Attributes:
        items: finished and unfinished, in order.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    _events: int = 0

    def event(self, type: str, **content: Any) -> dict[str, Any]:
        """An event under the next number."""
        event = {"type": type, "sequence_number": self._events, **content}
        self._events += 1
        return event

    def open_message(self, id: str) -> Iterator[dict[str, Any]]:
        """A message begins; it is the first item."""
        item = {
            "id": id,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        yield self.event("response.output_item.added", output_index=0, item=item)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.items.append({**item, "content": [part]})
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield self.event("response.content_part.added", **place, part={**part, "logprobs": []})

    def text(self, text: str, logprobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """More of the message."""
        part = self.items[0]["content"][0]
        part["text"] += text
        part["logprobs"].extend(logprobs)
        return self.event(
            "response.output_text.delta",
            item_id=self.items[0]["id"],
            output_index=0,
            content_index=0,
            delta=text,
            logprobs=logprobs,
        )

    def close_message(self, status: str) -> Iterator[dict[str, Any]]:
        """The message is at its end."""
        item = self.items[0]
        item["status"] = status
        part = item["content"][0]
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield self.event(
            "response.output_text.done", **place, text=part["text"], logprobs=part["logprobs"]
        )
        yield self.event("response.content_part.done", **place, part=part)
        yield self.event("response.output_item.done", output_index=0, item=item)

    def call(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A call, from its beginning to its end."""
        index = len(self.items)
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield self.event("response.output_item.added", output_index=index, item=begun)
        self.items.append(item)
        place = {"item_id": item["id"], "output_index": index}
        arguments = item["arguments"]
        yield self.event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self.event(
            "response.function_call_arguments.done",
            **place,
            name=item["name"],
            arguments=arguments,
        )
        yield self.event("response.output_item.done", output_index=index, item=item)


def replayed(
    response: Mapping[str, Any], deltas: Sequence[tuple[int, int]] | None
) -> Iterator[dict[str, Any]]:
    """The events of a response that is at its end, as they were told when it was made.

    Args:
        response: as it is stored.
        deltas: of its text (``Growing.deltas``); None tells the text at once.
    """
    output = Output()
    begun = {
        **response,
        "status": "in_progress",
        "output": [],
        "completed_at": None,
        "incomplete_details": None,
        "usage": None,
    }
    yield output.event("response.created", response=begun)
    yield output.event("response.in_progress", response=begun)
    for item in response["output"]:
        if item["type"] != "message":
            yield from output.call(item)
            continue
        part = item["content"][0]
        yield from output.open_message(item["id"])
        told = told_probabilities = 0
        for characters, probabilities in deltas or [(len(part["text"]), len(part["logprobs"]))]:
            text = part["text"][told : told + characters]
            told += characters
            last = told_probabilities + probabilities
            if text or probabilities:
                yield output.text(text, part["logprobs"][told_probabilities:last])
            told_probabilities = last
        yield from output.close_message(item["status"])
    yield output.event(f"response.{response['status']}", response=response)


@dataclass(slots=True)
class Growing:
    """One response, from its request to its end.

    Attributes:
        deltas: of the text's pieces, in order: characters and log-probabilities.
        status: ``in_progress``, then ``completed``, ``incomplete`` or ``failed``.
    """

    body: ResponseBody
    model: ModelRef
    project: str
    id: str = field(default_factory=lambda: new_id("resp_", 48))
    created: int = field(default_factory=now)
    output: Output = field(default_factory=Output)
    deltas: list[tuple[int, int]] = field(default_factory=list)
    status: str = "in_progress"
    done: Done | None = None
    error: Mapping[str, Any] | None = None
    warning: str = ""

    def begin(self) -> Iterator[dict[str, Any]]:
        """The events before the first piece."""
        yield self.output.event("response.created", response=self.document())
        yield self.output.event("response.in_progress", response=self.document())

    def take(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The events that a piece of the answer leads to."""
        calls = list(piece.tool_calls)
        if self.body.parallel_tool_calls is False:
            calls = calls[:1]
        logprobs = [] if self.body.logprobs is None else list(map(token_logprob, piece.logprobs))
        self.warning = self.warning or piece.warning
        output = self.output
        if (piece.text or logprobs) and not output.items:
            yield from output.open_message(new_id("msg_", 48))
        if piece.text or logprobs:
            self.deltas.append((len(piece.text), len(logprobs)))
            yield output.text(piece.text, logprobs)
        if piece.finish_reason is None:
            return
        if not output.items and not calls:
            yield from output.open_message(new_id("msg_", 48))
        self.status = "incomplete" if piece.finish_reason == "length" else "completed"
        if output.items:
            yield from output.close_message("completed" if calls else self.status)
        for number, call in enumerate(piece.tool_calls):
            if number >= len(calls):
                break
            last = number == len(piece.tool_calls) - 1
            yield from output.call(
                {
                    "id": new_id("fc_", 48),
                    "type": "function_call",
                    "status": self.status if last else "completed",
                    "call_id": call["id"],
                    "name": call["function"]["name"],
                    "arguments": call["function"]["arguments"],
                }
            )

    def end(self, done: Done) -> Iterator[dict[str, Any]]:
        """The last event."""
        self.done = done
        yield self.output.event(f"response.{self.status}", response=self.document())

    def fail(self, code: str, message: str) -> Iterator[dict[str, Any]]:
        """The last event of a response that went wrong."""
        self.status = "failed"
        self.error = {"code": code, "message": message}
        yield self.output.event("response.failed", response=self.document())

    def document(self) -> dict[str, Any]:
        """The response as the API gives it."""
        body = self.body
        _, choice = response_tools(body)
        cut = self.status == "incomplete"
        ended = self.status in ("completed", "incomplete")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": now() if ended else None,
            "status": self.status,
            "background": False,
            "error": self.error,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": body.model,
            "output": [dict(item) for item in self.output.items],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.effort, "summary": None},
            "service_tier": "default",
            "store": body.stored,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": body.format.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": _choice(choice),
            "tools": [{"strict": None, "parameters": None, **tool} for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": response_usage(self.done) if self.done is not None else None,
            "user": body.user,
        }


def _choice(choice: Any) -> Any:
    """The engine's ``tool_choice`` as responses give it."""
    if choice is None:
        return "auto"
    return choice if isinstance(choice, str) else {"type": "function", **choice["function"]}


def response_usage(done: Done) -> dict[str, Any]:
    """Token counts as responses give them."""
    return {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {"cached_tokens": done.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": done.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }
