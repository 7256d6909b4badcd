"""What a long run tells whoever watches it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from tunewise.data.chat import Progress


class Reporter(Protocol):
    """Watches a run. The command line draws bars; tests and servers listen."""

    def gate(self, gate: str, title: str) -> None:
        """A gate (``G0`` … ``G5``) begins."""

    def task(self, label: str) -> contextlib.AbstractContextManager[Progress]:
        """Something long begins; call what it gives with (done, total, failed)."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something the user should know."""


class SilentReporter:
    """A reporter that says nothing; it keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def gate(self, gate: str, title: str) -> None:
        return None

    @contextlib.contextmanager
    def task(self, label: str) -> Iterator[Progress]:
        yield lambda done, total, failed=0: None

    def note(self, text: str) -> None:
        return None

    def warn(self, text: str) -> None:
        self.warnings.append(text)
