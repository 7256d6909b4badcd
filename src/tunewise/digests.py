"""Files held against the SHA-256 that was noted when they were written.

What nobody reads to its end before it is used (weights, files of rows) can change on disk without a
sign: by a failing disk, a copy that was cut short, somebody's mistake. It is then told, not used.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Literal

from tunewise.errors import WorkspaceError


class DamagedError(WorkspaceError):
    """A file or folder that is gone, or does not hold what was written there."""


def of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_folder(folder: Path) -> str:
    """SHA-256 (hex) over names and contents of all files of a folder, hidden ones left out.

    Raises:
        OSError: one of them cannot be read.
    """
    whole = hashlib.sha256()
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name, path in sorted(names.items()):
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            whole.update(f"{name}\0{of_file(path)}\n".encode())
    return whole.hexdigest()


def hold(path: Path, digest: str, what: str, hint: str | None = None) -> None:
    """Compare a file or a folder with the digest that was noted.

    Args:
        what: begins the sentence of the error, for instance ``the adapter``.

    Raises:
        DamagedError: it is gone, cannot be read, or has changed.
    """
    if not path.exists():
        raise DamagedError(f"{what} is not there any more", where=str(path), hint=hint)
    try:
        found = of_folder(path) if path.is_dir() else of_file(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise DamagedError(f"{what} cannot be read: {why}", where=str(path), hint=hint) from error
    if found != digest:
        raise DamagedError(f"{what} has changed since it was written", where=str(path), hint=hint)


def complaints(base: Path, check: Literal["quick_check", "integrity_check"]) -> list[str]:
    """What SQLite has against the pages of a database; empty for a whole one."""
    try:
        with closing(sqlite3.connect(base, timeout=30)) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for line in found if line != "ok"]


class Verifier:
    """Holds files against their digests, each once for as long as it looks the same from outside.

    Size, time of change and inode tell that; a disk that rots shows none of them, so that before
    something long is built on a file it is read anew (``again``).
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[str, int, int, int]] = {}
        self._lock = threading.Lock()

    def note(self, path: Path, digest: str) -> None:
        """Remember a file that was hashed while it was written."""
        stat = path.stat()
        self._remember(path, (digest, stat.st_size, stat.st_mtime_ns, stat.st_ino))

    def hold(self, path: Path, digest: str, what: str, *, again: bool = False) -> None:
        """As ``digests.hold``, of a file.

        Raises:
            DamagedError: see there.
        """
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise DamagedError(f"{what} is not there any more", where=str(path)) from None
        except OSError as error:
            raise DamagedError(
                f"{what} cannot be read: {error.strerror}", where=str(path)
            ) from error
        stamp = (digest, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with self._lock:
            if not again and self._seen.get(path) == stamp:
                return
        hold(path, digest, what)
        self._remember(path, stamp)

    def _remember(self, path: Path, stamp: tuple[str, int, int, int]) -> None:
        with self._lock:
            if len(self._seen) >= _MOST:
                self._seen.clear()
            self._seen[path] = stamp


_MOST = 100_000
