"""Bytes on disk under their hash: what an upload brings is never found by a name from outside."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.digests import Verifier
from tunewise.server.database import Sessions, writing
from tunewise.server.tables import File, UploadPart

CHUNK = 1024 * 1024
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Received:
    """A finished file that is not in the store yet.

    Attributes:
        path: where it lies, synced to disk; the store takes it over.
        bytes: its size.
        sha256, md5: of its content, hex.
    """

    path: Path
    bytes: int
    sha256: str
    md5: str


class Incoming:
    """A file being received: written beside the store, hashed on the way."""

    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.bytes = 0
        self._file = os.fdopen(handle, "wb")
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        self._file.write(data)
        self._sha256.update(data)
        self._md5.update(data)
        self.bytes += len(data)

    def finish(self) -> Received:
        """Bring everything to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Received(self.path, self.bytes, self._sha256.hexdigest(), self._md5.hexdigest())

    def drop(self) -> None:
        """Remove the file, unless the store took it over."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class BlobStore:
    """A folder of contents, each once, shared by all projects.

    Who may read a content is the database's business: no request reaches it but through a row
    of its own project. A content without a row is removed by :meth:`collect`.
    """

    def __init__(self, root: Path, sessions: Sessions) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._sessions = sessions
        self._verifier = Verifier()
        for folder in (root, self._incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def clear_incoming(self) -> None:
        """Remove what a killed server left half received."""
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)

    @contextmanager
    def receive(self) -> Iterator[Incoming]:
        """A place to write a new content; what was not stored is removed at the end."""
        incoming = Incoming(self._incoming)
        try:
            yield incoming
        finally:
            incoming.drop()

    def path(self, digest: str) -> Path:
        """Where the content with this SHA-256 (hex, from the database) lies."""
        return self._root / digest[:2] / digest

    def verified(self, digest: str, *, again: bool = False) -> Path:
        """Where a content lies, once it has been held against its digest.

        Args:
            again: it is read anew even if it looks as it did when it was last read.

        Raises:
            DamagedError: it is gone or has changed on disk.
        """
        path = self.path(digest)
        self._verifier.hold(path, digest, "the stored content", again=again)
        return path

    def store(self, received: Received) -> str:
        """Take a received file over and return its digest.

        Call it inside :func:`~tunewise.server.database.writing`, in the transaction that makes
        the row: there is one writer at a time, so that :meth:`collect` cannot come between.
        """
        target = self.path(received.sha256)
        new = not target.parent.exists()
        target.parent.mkdir(mode=0o700, exist_ok=True)
        received.path.replace(target)
        _sync(target.parent)
        if new:
            _sync(self._root)
        self._verifier.note(target, received.sha256)
        return received.sha256

    def collect(self, digests: set[str]) -> int:
        """Remove those of ``digests`` that no row refers to any more; how many they were."""
        if not digests:
            return 0
        removed = 0
        ordered = sorted(digests)
        for start in range(0, len(ordered), _AT_ONCE):
            some = set(ordered[start : start + _AT_ONCE])
            with writing(self._sessions) as session:
                for digest in some - referenced(session, some):
                    self.path(digest).unlink(missing_ok=True)
                    removed += 1
        return removed

    def collect_all(self) -> int:
        """Remove every content that has no row: a killed server may have left some."""
        return self.collect({digest for digest, _ in digests_on_disk(self._root)})


def digests_on_disk(root: Path) -> Iterator[tuple[str, Path]]:
    """All contents below a store's folder, with their paths."""
    for path in root.glob("??/*"):
        if len(path.name) == 64:
            yield path.name, path


def referenced(session: Session, digests: set[str]) -> set[str]:
    """Those of ``digests`` that a file or a part still needs."""
    files = select(File.blob).where(File.blob.in_(digests), File.deleted_at.is_(None))
    parts = select(UploadPart.blob).where(UploadPart.blob.in_(digests))
    return set(session.scalars(files.union(parts)))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
