"""A request from the server to itself: through the whole application, without a socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from tunewise.server.access import Caller
from tunewise.server.gate import FROM_INSIDE


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer.

    Attributes:
        body: as JSON.
        request_id: under which it stands in the log of requests.
    """

    status: int
    request_id: str
    body: Any


async def ask(app: ASGIApp, caller: Caller, path: str, body: bytes) -> Answered:
    """``POST`` a JSON body with the rights of ``caller``, who has been let in already."""
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode("ascii"), "root_path": "",
        "query_string": b"", "headers": headers, "client": None, "server": ("localhost", 0),
        "state": {}, FROM_INSIDE: caller,
    }  # fmt: skip
    sent = [{"type": "http.request", "body": body, "more_body": False}]
    start: Message = {}
    pieces: list[bytes] = []

    async def receive() -> Message:
        if sent:
            return sent.pop()
        await asyncio.Event().wait()  # nobody hangs up
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    named = Headers(raw=start["headers"])
    return Answered(start["status"], named.get("x-request-id", ""), json.loads(b"".join(pieces)))
