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
class Growing:
    """One response, from its request to its end.

    Attributes:
        output: finished and unfinished items, in order.
        status: ``in_progress``, then ``completed``, ``incomplete`` or ``failed``.
    """

    body: ResponseBody
    model: ModelRef
    project: str
    id: str = field(default_factory=lambda: new_id("resp_", 48))
    created: int = field(default_factory=now)
    output: list[dict[str, Any]] = field(default_factory=list)
    status: str = "in_progress"
    done: Done | None = None
    error: Mapping[str, Any] | None = None
    _events: int = 0

    def begin(self) -> Iterator[dict[str, Any]]:
        """The events before the first piece."""
        yield self._event("response.created", response=self.document())
        yield self._event("response.in_progress", response=self.document())

    def take(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The events that a piece of the answer leads to."""
        calls = list(piece.tool_calls)
        if self.body.parallel_tool_calls is False:
            calls = calls[:1]
        logprobs = [] if self.body.logprobs is None else list(map(token_logprob, piece.logprobs))
        if (piece.text or logprobs) and not self.output:
            yield from self._open_message()
        if piece.text or logprobs:
            yield self._text(piece.text, logprobs)
        if piece.finish_reason is None:
            return
        if not self.output and not calls:
            yield from self._open_message()
        cut = piece.finish_reason == "length"
        if self.output:
            yield from self._close_message("incomplete" if cut else "completed")
        for call in calls:
            yield from self._call(call["id"], call["function"])
        self.status = "incomplete" if cut else "completed"

    def end(self, done: Done) -> Iterator[dict[str, Any]]:
        """The last event."""
        self.done = done
        yield self._event(f"response.{self.status}", response=self.document())

    def fail(self, code: str, message: str) -> Iterator[dict[str, Any]]:
        """The last event of a response that went wrong."""
        self.status = "failed"
        self.error = {"code": code, "message": message}
        yield self._event("response.failed", response=self.document())

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
            "output": [dict(item) for item in self.output],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": body.stored,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": body.format.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": _choice(choice),
            "tools": [{"strict": None, "parameters": None, **tool} for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": _usage(self.done) if self.done is not None else None,
            "user": body.user,
        }

    def _event(self, type: str, **content: Any) -> dict[str, Any]:
        event = {"type": type, "sequence_number": self._events, **content}
        self._events += 1
        return event

    def _open_message(self) -> Iterator[dict[str, Any]]:
        item = {
            "id": new_id("msg_", 48),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        yield self._event("response.output_item.added", output_index=0, item=item)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.output.append({**item, "content": [part]})
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield self._event("response.content_part.added", **place, part={**part, "logprobs": []})

    def _text(self, text: str, logprobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        part = self.output[0]["content"][0]
        part["text"] += text
        part["logprobs"].extend(logprobs)
        return self._event(
            "response.output_text.delta",
            item_id=self.output[0]["id"],
            output_index=0,
            content_index=0,
            delta=text,
            logprobs=logprobs,
        )

    def _close_message(self, status: str) -> Iterator[dict[str, Any]]:
        item = self.output[0]
        item["status"] = status
        part = item["content"][0]
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield self._event(
            "response.output_text.done", **place, text=part["text"], logprobs=part["logprobs"]
        )
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=item)

    def _call(self, call_id: str, function: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        index = len(self.output)
        item = {
            "id": new_id("fc_", 48),
            "type": "function_call",
            "status": "completed",
            "call_id": call_id,
            "name": function["name"],
            "arguments": function["arguments"],
        }
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        self.output.append(item)
        place = {"item_id": item["id"], "output_index": index}
        arguments = item["arguments"]
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event(
            "response.function_call_arguments.done",
            **place,
            name=item["name"],
            arguments=arguments,
        )
        yield self._event("response.output_item.done", output_index=index, item=item)


def _choice(choice: Any) -> Any:
    """The engine's ``tool_choice`` as responses give it."""
    if choice is None:
        return "auto"
    return choice if isinstance(choice, str) else {"type": "function", **choice["function"]}


def _usage(done: Done) -> dict[str, Any]:
    return {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {"cached_tokens": done.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": done.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }
