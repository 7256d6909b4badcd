"""Output whose reader may leave (`tunewise … | head`): the command ends as if it had been read."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

from rich.console import Console


class Output(Console):
    """A console that falls silent when nobody reads it any more; rich's own ends the program."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # In a notebook rich would show HTML beside the stream, and what is printed would be lost
        # to whoever reads it.
        super().__init__(*args, **{"force_jupyter": False, **options})

    def on_broken_pipe(self) -> None:
        self.quiet = True
        drop(sys.stderr if self.stderr else sys.stdout)


def put(text: str) -> None:
    """Write to stdout."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)


def drop(stream: TextIO) -> None:
    """Send what is still to be printed nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
