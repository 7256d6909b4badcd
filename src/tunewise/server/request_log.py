"""Who asked what, and how it ended: one line of JSON a request, written off the event loop.

No body, no query and no key is ever in it; paths pass through the same filter as all messages.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
from pathlib import Path

from tunewise.errors import UsageError
from tunewise.server.access import Caller
from tunewise.study.keys import redact

STDOUT = "-"
FILE_BYTES = 16 * 1024 * 1024
KEPT_FILES = 4
"""Older files beside the one that is written: ``requests.jsonl.1`` and so on."""
_LONGEST_PATH = 512
_WAITING = 10_000

log = logging.getLogger("tunewise.server")


class RequestLog:
    """Lines to a file that is rotated, or to stdout.

    Args:
        target: the file; ``-`` is stdout.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, target: str) -> None:
        try:
            handler = _handler(target)
        except OSError as error:
            raise UsageError(f"cannot be written: {error.strerror}", where=target) from error
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(_WAITING)
        self._listener = logging.handlers.QueueListener(self._queue, handler)
        self._handler = handler
        self.lost = 0

    def start(self) -> None:
        """Begin to write."""
        self._listener.start()

    def stop(self) -> None:
        """Write what is left."""
        self._listener.stop()
        self._handler.close()

    def add(
        self,
        request_id: str,
        caller: Caller | None,
        method: str,
        path: str,
        status: int,
        seconds: float,
        first: float | None,
    ) -> None:
        """Log one request; it never waits, and lines are lost rather than held without end.

        Args:
            seconds: until its answer ended.
            first: seconds until the answer began.
        """
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": request_id,
            "method": method,
            "path": redact(path)[:_LONGEST_PATH],
            "status": status,
            "seconds": round(seconds, 4),
            "first_seconds": None if first is None else round(first, 4),
            "key": caller and caller.key_id,
            "key_name": caller and caller.key_name,
            "project": caller and caller.project,
        }
        record = logging.LogRecord("requests", logging.INFO, "", 0, json.dumps(line), None, None)
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.lost += 1


class _File(logging.handlers.RotatingFileHandler):
    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._told:  # a full disk is no reason to fill the other log with tracebacks
            self._told = True
            log.error("the request log cannot be written: %s", sys.exc_info()[1])


def _handler(target: str) -> logging.Handler:
    if target == STDOUT:
        return logging.StreamHandler(sys.stdout)
    path = Path(target).expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = _File(path, maxBytes=FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    path.chmod(0o600)
    return handler
