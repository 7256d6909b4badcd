"""The gate before all handlers: who asks, how much, how long; and an id and a count for each.

Keys are checked before a body is read, so that nobody without one can fill the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewise.server import metrics
from tunewise.server.access import (
    DEFAULT_PROJECT,
    Caller,
    authenticate,
    find_project,
    given_digest,
)
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError, as_api_error, render
from tunewise.server.ids import new_id
from tunewise.server.pools import Turns
from tunewise.server.request_log import RequestLog
from tunewise.server.state import ServerState

FROM_INSIDE = "tunewise.caller"
"""Of an ASGI scope: the caller of a request that the server sends to itself. No request from
outside can set it."""
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_ADMISSION_THREADS = 8
"""That look up keys and do nothing else, so that no handler keeps anybody from being let in."""
_KEYS_AT_ONCE = 2
"""Of those threads, the ones that look up one key: a thousand requests with it wait for these, and
others do not. A key that is guessed waits with itself, whosever it was meant to be."""
_SHORT_AT_ONCE = 4
"""Short requests of one project that are answered at once, of the 40 for which there are threads;
more wait for each other. Threads share one interpreter: more of them would be no quicker, and would
slow everybody else down."""
_LONG = (
    "/chat/completions", "/completions", "/embeddings", "/responses", "/graders/run",
    "/graders/validate", "/files", "/import", "/parts", "/complete",
)  # fmt: skip
"""Ends of paths that are posted to, and whose handlers wait elsewhere than in those threads."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_FORM_BYTES = 1024 * 1024  # of a multipart body around its file
_DRAIN_BYTES = 1 << 30
_DRAIN_SECONDS = 30.0
_DRAIN_PAUSE_SECONDS = 3.0  # of a client that sends no more and waits for its answer


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._state = state
        self._nobody: Caller | None = None
        self._admitting: anyio.CapacityLimiter | None = None
        self._busy: Counter[str] = Counter()
        self._short = Turns(_SHORT_AT_ONCE)
        self._keys = Turns(_KEYS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, receive, send, self._state)
        with metrics.IN_FLIGHT.track_inprogress():
            try:
                scope.setdefault("state", {})
                scope["state"]["caller"] = await self._admit(scope)
                passage.expect(scope)
                async with asyncio.timeout(self._state.settings.request_seconds) as limit:
                    passage.limit = limit
                    async with self._place(scope["state"]["caller"], scope):
                        await self._app(scope, passage.receive, passage.send)
                if passage.refusal is not None:
                    raise passage.refusal
            except Exception as error:
                await passage.fail(passage.refusal or _timed_out(error, passage))
        passage.count(self._state.requests)

    async def _admit(self, scope: Scope) -> Caller | None:
        inside = scope.get(FROM_INSIDE)
        if isinstance(inside, Caller):
            return inside
        headers = Headers(scope=scope)
        if not self._state.settings.auth:
            self._check_local(headers)
        if scope["path"] in OPEN_PATHS:
            return None
        if self._admitting is None:  # made here, since it belongs to the event loop
            self._admitting = anyio.CapacityLimiter(_ADMISSION_THREADS)
        async with self._keys.turn(given_digest(headers)):
            caller = await anyio.to_thread.run_sync(self._caller, headers, limiter=self._admitting)
        self._state.limiter.take(caller)
        self._state.usage.add(caller, requests=1)
        return caller

    @asynccontextmanager
    async def _place(self, caller: Caller | None, scope: Scope) -> AsyncIterator[None]:
        """One of the requests that a project may have open at once; short ones take turns."""
        if caller is None:
            yield
            return
        most = self._state.settings.max_requests_at_once
        if self._busy[caller.project] >= most:
            raise ApiError(
                429,
                f"{most} requests of this project are being answered already. Send fewer at once, "
                "or try again in a moment.",
                type="requests",
                code="too_many_at_once",
                headers={"Retry-After": "1"},
            )
        self._busy[caller.project] += 1
        try:
            if _long(scope):
                yield
            else:
                async with self._short.turn(caller.project):
                    yield
        finally:
            self._busy[caller.project] -= 1
            if not self._busy[caller.project]:
                del self._busy[caller.project]

    def _caller(self, headers: Headers) -> Caller:
        if self._state.settings.auth:
            with reading(self._state.sessions) as session:
                return authenticate(session, headers)
        if self._nobody is None:
            with writing(self._state.sessions) as session:
                self._nobody = Caller(find_project(session, DEFAULT_PROJECT).id, None, True)
        return self._nobody

    def _check_local(self, headers: Headers) -> None:
        """Without keys, a web page in the user's browser must not reach the server.

        A page of another origin sends an ``Origin``; one whose name was rebound to this machine
        sends its own name as ``Host``.
        """
        host = headers.get("host", "")
        if _hostname(host) not in _LOOPBACK:
            raise ApiError(
                403,
                f"The Host header '{host[:100]}' does not name this machine. A server without keys "
                "answers to 127.0.0.1 and localhost only.",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        allowed = {f"http://{host}", f"https://{host}", *self._state.settings.cors_origins}
        if origin is not None and origin not in allowed:
            raise ApiError(
                403,
                f"Web pages of '{origin[:100]}' may not call a server without keys. "
                "(Allow them with `cors_origins` in the settings file.)",
                code="origin_not_allowed",
            )


class _Passage:
    """One request on its way in and its answer on the way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, state: ServerState) -> None:
        self.limit: asyncio.Timeout | None = None
        self.started = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._settings = state.settings
        self._id = new_id("req_", 32)
        self._began = time.monotonic()
        self._status = 500
        self._latency: float | None = None
        self._read = 0
        self._most = state.settings.max_body_bytes
        self._body_ended = False
        self.refusal: ApiError | None = None
        self._hash = hashlib.sha256()

    def expect(self, scope: Scope) -> None:
        """Set the limit of the body by what is asked for, and refuse what announces more."""
        headers = Headers(scope=scope)
        path = scope["path"].rstrip("/")
        if headers.get("content-type", "").startswith("multipart/"):
            if path.endswith("/files"):
                self._most = self._settings.max_file_bytes + _FORM_BYTES
            elif path.endswith("/parts"):
                self._most = self._settings.max_part_bytes + _FORM_BYTES
        scope["state"]["body_hash"] = self._hash
        with suppress(ValueError):
            if int(headers.get("content-length", "0")) > self._most:
                raise self._over()

    def _over(self) -> ApiError:
        self.refusal = ApiError(
            413,
            f"The request is larger than this server takes here ({self._most:,} bytes).",
            code="request_too_large",
        )
        return self.refusal

    async def receive(self) -> Message:
        """The next piece of the body, counted and hashed."""
        try:
            async with asyncio.timeout(None if self._body_ended else self._settings.body_seconds):
                message = await self._receive()
        except TimeoutError:
            self.refusal = ApiError(
                408, "The rest of the request did not come in time.", code="request_timeout"
            )
            raise self.refusal from None
        if message["type"] == "http.request":
            body = message.get("body", b"")
            self._read += len(body)
            self._hash.update(body)
            self._body_ended = not message.get("more_body", False)
            if self._read > self._most:
                raise self._over()
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, with the request's id."""
        if self.refusal is not None and not self.started:
            return  # whatever the handlers made of it: the refusal itself is answered, by the gate
        if message["type"] == "http.response.start":
            self.started = True
            self._status = message["status"]
            self._latency = time.monotonic() - self._began
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._id
            headers["x-content-type-options"] = "nosniff"
            if self.limit is not None:
                self.limit.reschedule(None)
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with ``error``; an answer that has begun is cut off, so that it shows."""
        if self.started:
            return
        self.refusal = self.limit = None
        answer = render(error)
        # Closed before the body was read, the connection would be reset and the answer lost.
        await self.send(
            {"type": "http.response.start", "status": error.status, "headers": answer.raw_headers}
        )
        await self._send(
            {"type": "http.response.body", "body": bytes(answer.body), "more_body": True}
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._body_ended and self._read < self._most + _DRAIN_BYTES:
                    async with asyncio.timeout(_DRAIN_PAUSE_SECONDS):
                        message = await self._receive()
                    self._read += len(message.get("body", b""))
                    self._body_ended = not message.get("more_body", False)
        await self._send({"type": "http.response.body", "body": b""})

    def count(self, requests: RequestLog | None) -> None:
        """Let the request be seen in the metrics, under its route, and in the log of requests."""
        route: Any = self._scope.get("route")
        name = str(getattr(route, "path", "unknown"))
        metrics.REQUESTS.labels(self._scope["method"], name, str(self._status)).inc()
        if self._latency is not None:
            metrics.LATENCY.labels(self._scope["method"], name).observe(self._latency)
        if requests is not None:
            requests.add(
                self._id,
                self._scope["state"].get("caller"),
                self._scope["method"],
                self._scope["path"],
                self._status,
                time.monotonic() - self._began,
                self._latency,
            )


def _long(scope: Scope) -> bool:
    path = str(scope["path"]).rstrip("/")
    return path.endswith("/content") or (scope["method"] == "POST" and path.endswith(_LONG))


def _timed_out(error: Exception, passage: _Passage) -> ApiError:
    if isinstance(error, TimeoutError) and passage.limit is not None and passage.limit.expired():
        return ApiError(
            503, "The request took longer than this server allows.", type="server_error",
            code="timeout",
        )  # fmt: skip
    return as_api_error(error)


def _hostname(host: str) -> str:
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return f"[{name}]" if ":" in name else name
    return ""
