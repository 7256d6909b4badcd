"""Connections that are opened and not used: each holds one of the process's files."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_FILES = 65_536


def allow_many_files() -> None:
    """Let this process hold as many connections as the system allows without asking anybody."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def protocol(seconds: float) -> type[H11Protocol]:
    """Uvicorn's HTTP/1.1, but for a request's head to come ``seconds`` may pass and no more.

    Uvicorn itself waits for ever: a few thousand clients that never finish their first line would
    keep everybody else out. Bodies have their own limits, in the gate.
    """

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._unwatch()
            elif self._head is None:
                self._head = self.loop.call_later(seconds, self._too_late)

        def _unwatch(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _too_late(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Protocol
