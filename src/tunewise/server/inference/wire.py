"""Messages between the two processes: a length, then JSON.

JSON and not pickle: a pickle runs whatever it says, and then a fault in the engine's process, which
reads strangers' prompts and weights, would be one in the API's process, which holds the keys.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import fields
from typing import IO, Any

from tunewise.server.inference.protocol import (
    Done,
    Embed,
    Embedded,
    Event,
    Failed,
    Generate,
    LoadedInfo,
    ModelRef,
    Piece,
    TokenLogprob,
)

_LENGTH = struct.Struct(">I")
_MOST = 1 << 30

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def send(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Write one message.

    Raises:
        OSError: the other side is gone.
    """
    # A lone surrogate in somebody's JSON must not end the connection.
    body = _encode(message).encode("utf-8", "surrogatepass")
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """Read one message; None at the end of the stream, and where it breaks off."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _MOST:
        return None
    body = stream.read(length)
    if len(body) < length:
        return None
    message: dict[str, Any] = json.loads(body.decode("utf-8", "surrogatepass"))
    return message


def pack_request(request: Generate | Embed) -> dict[str, Any]:
    """The request as plain values."""
    values = {f.name: getattr(request, f.name) for f in fields(request)}
    model = request.model
    values["model"] = [model.base, model.adapter, model.name, model.sha256]
    if isinstance(request, Generate):
        # JSON's keys are strings.
        values["logit_bias"] = [[int(k), float(v)] for k, v in request.logit_bias.items()]
    return values


def unpack_generate(values: dict[str, Any]) -> Generate:
    """What ``pack_request`` made of a ``Generate``."""
    prompt = values["prompt"]
    return Generate(
        **{
            **values,
            "model": ModelRef(*values["model"]),
            "messages": None if values["messages"] is None else tuple(values["messages"]),
            "prompt": tuple(prompt) if isinstance(prompt, list) else prompt,
            "tools": tuple(values["tools"]),
            "stop": tuple(values["stop"]),
            "logit_bias": {int(k): float(v) for k, v in values["logit_bias"]},
        }
    )


def unpack_embed(values: dict[str, Any]) -> Embed:
    """What ``pack_request`` made of an ``Embed``."""
    inputs = tuple(tuple(i) if isinstance(i, list) else i for i in values["inputs"])
    return Embed(values["id"], ModelRef(*values["model"]), inputs)


def pack_event(event: Event | Embedded) -> list[Any]:
    """An event as a short list: a step sends one for each running row."""
    if isinstance(event, Piece):
        logprobs = [[t.token, t.bytes, t.logprob, t.top] for t in event.logprobs]
        head = ["p", event.choice, event.text, logprobs, event.finish_reason, event.tool_calls]
        more = [event.warning, event.thoughts]
        return [*head, *more] if any(more) else head
    if isinstance(event, Done):
        return ["d", event.prompt_tokens, event.completion_tokens, event.cached_tokens]
    if isinstance(event, Failed):
        return ["f", event.message, event.code]
    return ["e", event.vectors, event.tokens]


def unpack_event(values: list[Any]) -> Event | Embedded:
    """What ``pack_event`` made."""
    kind, *rest = values
    if kind == "p":
        choice, text, logprobs, finish, calls, *more = rest
        return Piece(choice, text, tuple(map(_logprob, logprobs)), finish, tuple(calls), *more)
    if kind == "d":
        return Done(*rest)
    if kind == "f":
        return Failed(*rest)
    vectors, tokens = rest
    return Embedded(tuple(map(tuple, vectors)), tokens)


def _logprob(values: list[Any]) -> TokenLogprob:
    token, raw, logprob, top = values
    return TokenLogprob(token, tuple(raw), logprob, tuple((t, tuple(b), v) for t, b, v in top))


def pack_loaded(info: LoadedInfo) -> list[Any]:
    """A model in memory as a list."""
    return [getattr(info, f.name) for f in fields(info)]


def unpack_loaded(values: list[Any]) -> LoadedInfo:
    """What ``pack_loaded`` made."""
    base, adapters, *rest = values
    return LoadedInfo(base, tuple(adapters), *rest)
