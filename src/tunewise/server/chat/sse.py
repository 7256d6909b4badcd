"""Server-sent events, as the OpenAI clients read them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


def sse(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One event, named where ``event`` is given."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {text}\n\n".encode("utf-8", "replace")


class EventStream(StreamingResponse):
    """A stream that is closed whatever ends it, a client that went away included.

    Args:
        chunks: what is sent.
        origin: what the chunks are made from; closed even where no chunk was asked for.
        headers: beside those of every stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes],
        origin: AsyncGenerator[Any],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        own = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, headers={**own, **(headers or {})})
        self._open = (chunks, origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A generator that waits inside `yield` does not see the cancellation by itself.
            for generator in self._open:
                await generator.aclose()
