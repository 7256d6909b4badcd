"""How far a run is, in a notebook: one place that is written anew, without any widget library."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
import warnings
from collections.abc import Iterator
from html import escape
from typing import Any

from tunewise.data.chat import Progress
from tunewise.report.format import duration
from tunewise.report.text import visible

_SECONDS = 0.2
"""Between two drawings: a notebook is slower than a training."""


def in_notebook() -> bool:
    """Whether this process answers a notebook (Jupyter, VS Code, Colab)."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookReporter:
    """Draws a run as one HTML output: lines that were said, and bars of what goes on now."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._tasks: list[_Task] = []
        self._handle: Any = None
        self._drawn = 0.0
        self._started = time.monotonic()
        # Libraries' own bars ask for ipywidgets as soon as they are imported; ours need none.
        warnings.filterwarnings("ignore", "IProgress not found")

    def gate(self, gate: str, title: str) -> None:
        elapsed = duration(time.monotonic() - self._started)
        self._say(f"<b>{_text(gate)}</b> {_text(title)} <small>{_text(elapsed)}</small>")

    @contextlib.contextmanager
    def task(self, label: str) -> Iterator[Progress]:
        task = _Task(label)
        self._tasks.append(task)
        self.draw()

        def update(done: int, total: int, failed: int = 0) -> None:
            task.done, task.total, task.failed = done, total, failed
            if time.monotonic() - self._drawn >= _SECONDS:
                self.draw()

        try:
            yield update
        finally:
            self._tasks.remove(task)
            self._say(f"{_text(label)}: {_text(duration(time.monotonic() - task.began))}")

    def note(self, text: str) -> None:
        self._say(_text(text))

    def warn(self, text: str) -> None:
        self._say(f"<b>warning</b> {_text(text)}")

    def _say(self, line: str) -> None:
        self._said.append(line)
        self.draw()

    def draw(self) -> None:
        """Write the output anew, in its place."""
        shown = importlib.import_module("IPython.display")  # every notebook has it
        self._drawn = time.monotonic()
        page = shown.HTML(self.html())
        if self._handle is None:
            self._handle = shown.display(page, display_id=True)
        else:
            self._handle.update(page)

    def html(self) -> str:
        """What is shown now."""
        lines = [f"<div>{line}</div>" for line in self._said]
        lines += [f"<div>{task.html()}</div>" for task in self._tasks]
        return f'<div style="line-height:1.5;overflow-wrap:anywhere">{"".join(lines)}</div>'


class _Task:
    def __init__(self, label: str) -> None:
        self.label = label
        self.began = time.monotonic()
        self.done = self.total = self.failed = 0

    def html(self) -> str:
        if not self.total:
            return f"{_text(self.label)} …"
        left = ""
        if 0 < self.done < self.total:
            gone = time.monotonic() - self.began
            left = f", about {_text(duration(gone / self.done * (self.total - self.done)))} left"
        failed = f" ({self.failed:,} failed)" if self.failed else ""
        bar = f'<progress value="{self.done}" max="{self.total}" style="max-width:40%"></progress>'
        return f"{_text(self.label)} {bar} {self.done:,} of {self.total:,}{failed}{left}"


def _text(text: str) -> str:
    return escape(visible(text))
