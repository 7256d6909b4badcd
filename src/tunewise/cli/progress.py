"""A run as seen in a terminal: gates, bars with the time left, notes and warnings, on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tunewise.data.chat import Progress as ProgressCall
from tunewise.report.format import duration

_LOG_SECONDS = 60.0
"""Between two lines on how far a task is, where there is no terminal."""


class TerminalReporter:
    """Draws a run with rich. When stderr is no terminal it prints plain lines instead."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._started = time.monotonic()
        self._live: Progress | None = None

    def gate(self, gate: str, title: str) -> None:
        if not self._quiet:
            so_far = duration(time.monotonic() - self._started)
            self._console.print(
                f"[bold]{gate}[/bold]  {title}  [dim]{so_far} so far[/dim]", highlight=False
            )

    @contextlib.contextmanager
    def task(self, label: str) -> Iterator[ProgressCall]:
        if self._quiet:
            yield lambda done, total, failed=0: None
            return
        if not self._console.is_terminal:
            began = time.monotonic()
            yield self._lines(label, began)
            self._console.print(f"    {label}: {time.monotonic() - began:.1f} s", highlight=False)
            return
        columns = (
            TextColumn("    {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        if self._live is not None:  # a task within a task: its own line under the same display
            with self._line(self._live, label) as update:
                yield update
            return
        with Progress(*columns, console=self._console, transient=True) as live:
            self._live = live
            try:
                with self._line(live, label) as update:
                    yield update
            finally:
                self._live = None

    def _lines(self, label: str, began: float) -> ProgressCall:
        """For a log: how far it is, now and then."""
        told = began

        def update(done: int, total: int, failed: int = 0) -> None:
            nonlocal told
            now = time.monotonic()
            if total and 0 < done < total and now - told >= _LOG_SECONDS:
                told = now
                left = duration((now - began) / done * (total - done))
                self._console.print(
                    f"    {label}: {done:,} of {total:,}{_failed(failed)}, about {left} left",
                    highlight=False,
                )

        return update

    @staticmethod
    @contextlib.contextmanager
    def _line(live: Progress, label: str) -> Iterator[ProgressCall]:
        task = live.add_task(label, total=None)

        def update(done: int, total: int, failed: int = 0) -> None:
            live.update(
                task, completed=done, total=total or None, description=label + _failed(failed)
            )

        try:
            yield update
        finally:
            live.remove_task(task)

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"    {text}", highlight=False, markup=False)

    def warn(self, text: str) -> None:
        self._console.print("    [yellow]warning[/yellow] ", end="", highlight=False)
        self._console.print(text, highlight=False, markup=False)


def _failed(count: int) -> str:
    return f" ({count:,} failed)" if count else ""
