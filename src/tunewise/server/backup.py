"""Everything a server keeps, in one tar: written while it runs, unpacked into an empty folder.

The archive holds ``backup.json``, then the files under the server's folder, and last the
database as it was when the backup began.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from sqlalchemy.engine import make_url

from tunewise import __version__
from tunewise.digests import complaints, of_file
from tunewise.errors import UsageError, WorkspaceError
from tunewise.server.blobs import CHUNK, digests_on_disk
from tunewise.server.database import now
from tunewise.server.settings import ServerSettings

_FORMAT = 1
_MANIFEST = "backup.json"
_DATABASE = "tunewise.db"
_LEFT_OUT = frozenset({"server.lock", "incoming"})


def write_backup(settings: ServerSettings, target: Path) -> tuple[int, int]:
    """Write a backup; the server may run meanwhile.

    Returns:
        How many files it holds, and its size in bytes.

    Raises:
        UsageError: ``target`` exists, there is nothing to back up, or the database is not SQLite.
    """
    database = _sqlite(settings)
    if not database.is_file():
        raise UsageError(
            "there is no server's database here", where=str(database),
            hint="Name its folder with --home.",
        )  # fmt: skip
    if target.exists():
        raise UsageError(
            "the file exists already", where=str(target), hint="Name another; none is overwritten."
        )
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.absolute().parent)
    archive = Path(name)
    try:
        with (
            os.fdopen(handle, "wb") as file,
            tempfile.TemporaryDirectory(dir=archive.parent, prefix=".tunewise-") as folder,
        ):
            snapshot = Path(folder) / _DATABASE
            _snapshot(database, snapshot)
            with tarfile.open(fileobj=file, mode="w|") as tar:
                count = _write_all(tar, settings, database, snapshot, {archive, snapshot})
            file.flush()
            os.fsync(file.fileno())
        size = archive.stat().st_size
        archive.rename(target)
    finally:
        archive.unlink(missing_ok=True)
    return count, size


def read_backup(settings: ServerSettings, source: Path) -> int:
    """Unpack a backup into ``settings.home``, which must not exist or be empty.

    Returns:
        How many files were restored.

    Raises:
        UsageError: the folder holds something, or the file is missing.
        WorkspaceError: the file is no backup, is damaged, or holds what no backup does.
    """
    home = settings.home
    _sqlite(settings)
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise UsageError(
            "there is something here already, and nothing is overwritten",
            where=str(home),
            hint="Restore into a new folder: --home FOLDER",
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
    try:
        try:
            with source.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                count = _read_all(tar, made, source)
        except FileNotFoundError:
            raise UsageError("there is no such file", where=str(source)) from None
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise _damaged(source, str(error)) from error
        _check(made, source)
        if home.exists():
            home.rmdir()
        made.rename(home)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return count


def _sqlite(settings: ServerSettings) -> Path:
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise UsageError(
            "backups are made of SQLite databases only",
            where="database",
            hint=f"Back up PostgreSQL with pg_dump, and copy the folder {settings.home}.",
        )
    return Path(url.database)


def _snapshot(database: Path, target: Path) -> None:
    try:
        with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        raise WorkspaceError(
            f"the database cannot be read: {error}", where=str(database)
        ) from error


def _write_all(
    tar: tarfile.TarFile,
    settings: ServerSettings,
    database: Path,
    snapshot: Path,
    own: set[Path],
) -> int:
    manifest = {"format": _FORMAT, "version": __version__, "created_at": now()}
    _add(tar, _MANIFEST, io.BytesIO(json.dumps(manifest).encode()))
    count = 0
    written: set[str] = set()
    for path in _files(settings.home):
        if path in own or path.name.startswith(database.name):
            continue
        name = path.relative_to(settings.home)
        try:
            with path.open("rb") as file:
                _add(tar, str(name), file)
        except FileNotFoundError:
            continue  # deleted since; the database is told below
        written.add(path.name)
        count += 1
    with closing(sqlite3.connect(snapshot)) as connection, connection:
        needed = connection.execute("SELECT id, blob FROM files WHERE deleted_at IS NULL")
        gone = [(now(), file_id) for file_id, blob in needed if blob not in written]
        connection.executemany("UPDATE files SET deleted_at = ?, filename = '' WHERE id = ?", gone)
    with snapshot.open("rb") as file:
        _add(tar, _DATABASE, file)
    return count + 1


def _files(home: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(home):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        for name in sorted(set(names) - _LEFT_OUT):
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    """Add a file as long as it is now; one that grows meanwhile is cut, one that shrinks filled."""
    info = tarfile.TarInfo(name)
    info.size = file.seek(0, os.SEEK_END)
    info.mode, info.mtime = 0o600, now()
    file.seek(0)
    tar.addfile(info, _Exactly(file, info.size))  # type: ignore[arg-type]


class _Exactly:
    """Exactly as many bytes as were announced, whatever happens to the file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._file.read(wanted).ljust(wanted, b"\0")
        self._left -= wanted
        return data


def _read_all(tar: tarfile.TarFile, home: Path, source: Path) -> int:
    count = 0
    for member in tar:
        if count == 0 and member.name != _MANIFEST:
            raise WorkspaceError(
                "this is no backup of a server", where=str(source),
                hint="Backups are written by: tunewise server backup FILE",
            )  # fmt: skip
        name = PurePosixPath(member.name)
        # Only plain files are made, so that no link can lead out of the folder either.
        if not member.isfile() or name.is_absolute() or {"..", ""} & set(member.name.split("/")):
            raise WorkspaceError(
                f"the archive holds '{member.name[:100]}', which no backup does",
                where=str(source),
                hint="Nothing was restored. Do not trust this file.",
            )
        content = tar.extractfile(member)
        assert content is not None
        if member.name == _MANIFEST:
            _check_manifest(content.read(CHUNK), source)
        else:
            _extract(content, home / name, source)
        count += 1
    return count - 1


def _extract(content: IO[bytes], target: Path, source: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with target.open("xb") as file:
        target.chmod(0o600)
        shutil.copyfileobj(content, file, CHUNK)
        file.flush()
        os.fsync(file.fileno())


def _check_manifest(content: bytes, source: Path) -> None:
    manifest = json.loads(content)
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise WorkspaceError(
            "the backup was made by another version of Tunewise", where=str(source),
            hint="Restore it with that version.",
        )  # fmt: skip


def _check(home: Path, source: Path) -> None:
    """Compare the contents with their hashes, and let SQLite look at the database."""
    for digest, path in digests_on_disk(home / "files"):
        if of_file(path) != digest:
            raise _damaged(source, f"the content {digest[:12]}… has changed")
    if not (home / _DATABASE).is_file():
        raise _damaged(source, "its end, with the database, is missing")
    found = complaints(home / _DATABASE, "integrity_check")
    if found:
        raise _damaged(source, f"its database is broken: {found[0]}")


def _damaged(source: Path, why: str) -> WorkspaceError:
    return WorkspaceError(
        f"the backup is damaged ({why})", where=str(source), hint="Nothing was restored."
    )
