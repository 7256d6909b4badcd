"""What a server under attack acknowledged: its promises, which all must be kept in the end."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class PromisedJob:
    """A job that was acknowledged.

    Attributes:
        steps: that it must have made where it succeeds.
        events: of which the server told, by id.
        over: the last status, once it was told.
    """

    steps: int
    events: dict[str, str] = field(default_factory=dict)
    over: str | None = None


class Ledger:
    """Promises by kind; each is also a line of ``path``, with its moment, for whoever looks into a
    failure."""

    def __init__(self, path: Path) -> None:
        self.files: dict[str, str] = {}
        """Ids of files that must be there, with the SHA-256 of their contents."""
        self.deleted: set[str] = set()
        self.uploads: dict[str, str] = {}
        """Ids of uploads, with the last status that was told."""
        self.jobs: dict[str, PromisedJob] = {}
        self.chats: dict[str, str] = {}
        """Ids of stored chats, with their answers."""
        self.answers = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._file = path.open("w", encoding="utf-8")

    def note(self, what: str, **details: Any) -> None:
        """Write a line."""
        line = {"at": round(time.monotonic() - self._began, 3), "what": what, **details}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()
