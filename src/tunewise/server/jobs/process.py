"""A job's worker as the queue sees it: started, watched, asked to stop, ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tunewise.processes import command, environment
from tunewise.server.jobs.worker import HEARTBEAT, LOCK, OUTCOME


class Worker:
    """The process of one job, whoever started it: this server, or one that was killed.

    It lives as long as the job's lock is held: the system frees it when the process ends, and a
    process number that belongs to somebody else by now cannot be mistaken for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self._asked_at: float | None = None
        self._beat: tuple[float, float] | None = None  # last seen beat, and when it was new

    def start(self) -> None:
        """Start the process; its words go to ``worker.log``."""
        self._asked_at = self._beat = None
        with (self._folder / "worker.log").open("ab") as log:
            self._child = subprocess.Popen(
                command("tunewise.server.jobs.worker", str(self._folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,  # it outlives the server, and the server's Ctrl-C
            )

    def alive(self) -> bool:
        """Whether a process works on the job, or is about to."""
        if self._child is not None:
            if self._child.poll() is None:
                return True
            self._child = None
        return self._locked()

    def ask_to_stop(self, patience: float) -> None:
        """Let it make a checkpoint and stop; end it where it has not done so in ``patience`` s."""
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self._signal(signal.SIGTERM)
        elif now - self._asked_at > patience:
            self.end()

    def end(self) -> None:
        """End the process at once; what it did since its last checkpoint is done again."""
        self._signal(signal.SIGKILL)

    def silent(self, patience: float) -> bool:
        """Whether there was no sign of life for ``patience`` seconds."""
        now = time.monotonic()  # stands still while the machine sleeps, unlike the file's time
        try:
            beat = (self._folder / HEARTBEAT).stat().st_mtime
        except OSError:
            beat = 0.0
        if self._beat is None or self._beat[0] != beat:
            self._beat = (beat, now)
        return now - self._beat[1] > patience

    def outcome(self) -> dict[str, Any] | None:
        """What it said at its end; None where it was killed."""
        try:
            value = json.loads((self._folder / OUTCOME).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _locked(self) -> bool:
        try:
            file = (self._folder / LOCK).open("r+")
        except OSError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)
            return
        if not self._locked():
            return
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self._folder / LOCK).read_text("ascii")), number)
