"""The server's folder: made private, and used by one server at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from tunewise.errors import WorkspaceError


def make_home(home: Path) -> None:
    """The server's folder, private to its owner.

    Raises:
        WorkspaceError: it cannot be made.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(home.iterdir()):
            home.chmod(0o700)
    except OSError as error:
        raise WorkspaceError(
            f"the server's folder cannot be made: {error.strerror}",
            where=str(home),
            hint="Choose another with --home.",
        ) from error


def lock_home(home: Path) -> IO[str]:
    """Take the folder for this process; the system frees it when the process ends.

    Raises:
        WorkspaceError: another server has it.
    """
    make_home(home)
    file = (home / "server.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise WorkspaceError(
            f"another server (process {owner}) works in this folder",
            where=str(home),
            hint="Stop it, or give this one another --home.",
        ) from None
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file
