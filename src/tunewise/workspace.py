"""Every path on disk, locking and atomic writes. Nothing of a study lives anywhere else."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewise.errors import WorkspaceError

_SHARED = 0.01
"""A test that shares fewer of its rows with an earlier one is another test."""


def default_root() -> Path:
    """``$TUNEWISE_HOME``, or ``.tunewise`` in the current folder."""
    return Path(os.environ.get("TUNEWISE_HOME") or ".tunewise").expanduser().absolute()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceError(
                "the disk is full; what was finished before is intact",
                where=str(path.parent),
                hint="Free some space (`tunewise clean` lists what can go) and run again.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WorkspaceError(
                "no permission to write here",
                where=str(path.parent),
                hint="Set TUNEWISE_HOME to a folder that you can write to.",
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise WorkspaceError(
                "results cannot be written here: a file stands where a folder is needed",
                where=str(error.filename or path.parent),
                hint="Move the file away, or set TUNEWISE_HOME to another folder.",
            ) from error
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader or a crash sees the old file or the new one, never a part.

    Raises:
        WorkspaceError: when the disk is full or the folder cannot be written.
    """
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path, text: str) -> None:
    """``write_bytes_atomic`` for text, as UTF-8."""
    write_bytes_atomic(path, text.encode("utf-8", "surrogatepass"))


def write_json_atomic(path: Path, value: Any) -> None:
    """``write_bytes_atomic`` for JSON."""
    write_text_atomic(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in ``path``.

    Raises:
        WorkspaceError: when the file is not JSON (it was changed by something else).
    """
    try:
        return json.loads(path.read_text("utf-8", "surrogatepass"))
    except json.JSONDecodeError as error:
        raise WorkspaceError(
            "not valid JSON, so it was not written by Tunewise as it stands",
            where=str(path),
            hint="Delete the file; the stage that made it runs again.",
        ) from error


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study as resolved: ``studies/<name>/<hash>``."""

    root: Path

    @property
    def stages(self) -> Path:
        return self.root / "stages"

    @property
    def items(self) -> Path:
        return self.root / "items"

    @property
    def answers(self) -> Path:
        return self.root / "answers"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def verdict(self) -> Path:
        return self.root / "verdict.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


class Workspace:
    """The folder where everything of all studies lies; private to its owner (0700).

    It is made when the first study is locked. A folder that holds something else already keeps
    its mode and its files; only what Tunewise puts there is private.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_root()).absolute()

    def _make(self) -> None:
        with _disk_errors(self.root / "x"):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not any(self.root.iterdir()):
                self.root.chmod(0o700)
                (self.root / ".gitignore").write_text("*\n")
            for name in ("studies", "answers"):
                (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def study(self, name: str, digest: str) -> StudyFolder:
        """The folder of a study; its first file makes it, so that a failed start leaves none."""
        return StudyFolder(self.root / "studies" / name / digest[:12])

    def studies(self) -> list[StudyFolder]:
        """All studies that lie here as resolved, the newest last; no training runs."""
        found = [p for p in (self.root / "studies").glob("*/" + 12 * "[0-9a-f]") if p.is_dir()]
        return [StudyFolder(p) for p in sorted(found, key=lambda p: p.stat().st_mtime)]

    def names(self) -> list[str]:
        """The names of all studies that have left something here."""
        return sorted(p.name for p in (self.root / "studies").glob("*") if p.is_dir())

    def kept(self) -> list[Path]:
        """Folders that outlive a changed study: training runs of each, answers, unpacked models."""
        found = [p for p in sorted((self.root / "studies").glob("*/training")) if p.is_dir()]
        others = [p for p in (self.models, self.root / "answers") if p.is_dir()]
        return [*found, *(p for p in others if any(f.name[0] != "." for f in p.iterdir()))]

    @property
    def models(self) -> Path:
        """Where models lie that were unpacked from packages."""
        return self.root / "models"

    def study_date(self, name: str, rows: str) -> str | None:
        """The date (ISO 8601) that is kept for a study with these rows, or None.

        A study that was given another name keeps its date: that of the same rows, the earliest.

        Args:
            rows: identifies them.
        """
        own = self._kept_dates(name).get(rows)
        others = (self._kept_dates(other).get(rows) for other in self.names())
        return own or min((date for date in others if date is not None), default=None)

    def keep_study_date(self, name: str, rows: str, date: str) -> None:
        """Keep the date of a study with these rows; one that is kept already stays."""
        known = self._kept_dates(name)
        if rows not in known:
            write_json_atomic(self._dates(name), {**known, rows: date})

    def _kept_dates(self, name: str) -> dict[str, str]:
        path = self._dates(name)
        known = read_json(path) if path.exists() else {}
        return known if isinstance(known, dict) else {}

    def _dates(self, name: str) -> Path:
        return self.root / "studies" / name / "dates.json"

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the one lock of study ``name``; the system frees it when the process ends.

        Raises:
            WorkspaceError: when another process holds it.
        """
        folder = self.root / "studies" / name
        self._make()
        with _disk_errors(folder / ".lock"):
            folder.mkdir(exist_ok=True)
            opened = (folder / ".lock").open("a+")
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise WorkspaceError(
                    f"another run works on this study (process {owner})",
                    where=str(folder),
                    hint="Wait for it, stop it, or give the study another `name`.",
                ) from error
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield

    @property
    def _ledger(self) -> Path:
        return self.root / "test-ledger.jsonl"

    def open_test(
        self, rows: Sequence[str], study: str, look: str, *, all_rows: str | None = None
    ) -> int:
        """Record that a study looks at these test rows; return which look it is, 1 for the first.

        The ledger lies outside the studies and knows rows, so neither an edited study file nor
        rows added to a test set make it fresh again. The same look again, after a crash or to
        recompute, is counted once and stays the look that it was.

        Args:
            rows: a key of each row.
            look: identifies what can change answers or choices.
            all_rows: what ledgers of earlier releases knew this test by (``prepare.old_hash``).
        """
        known = [entry["look"] for entry in self.test_looks(rows, all_rows=all_rows)]
        if look not in known:
            self._add_to_ledger({"look": look, "study": study, "rows": sorted(set(rows))})
            known.append(look)
        return known.index(look) + 1

    def test_looks(
        self, rows: Sequence[str], *, all_rows: str | None = None
    ) -> list[dict[str, Any]]:
        """The recorded looks at these rows (``look``, ``study``, ``rows``), the oldest first.

        A look at other rows counts where at least a hundredth of these were among them; one that
        an earlier release recorded, where it was at the very same rows.
        """
        wanted = set(rows)
        found: dict[str, dict[str, Any]] = {}
        for entry in self._ledger_lines():
            if isinstance(entry.get("rows"), list):
                shared = len(wanted.intersection(entry["rows"]))
                seen = shared and shared >= _SHARED * len(wanted)
                look = str(entry.get("look"))
            else:
                seen = all_rows is not None and entry.get("rows") == all_rows
                look = str(entry.get("study_hash"))
            if seen:
                found.setdefault(look, {**entry, "look": look})
        return list(found.values())

    def untold_looks(self, all_rows: str) -> list[str]:
        """Names of studies whose looks cannot be compared with these rows; each is told once.

        Earlier releases knew a test by one hash of all its rows: whether another test shares some
        of them cannot be seen.

        Args:
            all_rows: as for ``open_test``.
        """
        told: set[str] = set()
        old: dict[str, str] = {}
        for entry in self._ledger_lines():
            told.update(map(str, entry.get("told", [])))
            if isinstance(entry.get("rows"), str) and entry["rows"] != all_rows:
                old[str(entry.get("study_hash"))] = str(entry.get("study"))
        new = {key: name for key, name in old.items() if key not in told}
        if new:
            self._add_to_ledger({"told": sorted(new)})
        return list(dict.fromkeys(new.values()))

    def _ledger_lines(self) -> Iterator[dict[str, Any]]:
        if not self._ledger.exists():
            return
        for line in self._ledger.read_text("utf-8", "replace").splitlines():
            # What is no JSON is the start of a line that a killed run wrote: it opened nothing.
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry

    def _add_to_ledger(self, entry: Mapping[str, Any]) -> None:
        with _disk_errors(self._ledger), self._ledger.open("a+b") as file:
            # A line that a killed run left unfinished must not swallow the next one.
            end = file.seek(0, os.SEEK_END)
            cut = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write(("\n" * cut + json.dumps(entry) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def folder_size(path: Path) -> int:
    """Bytes of all files below ``path``."""
    return sum(p.lstat().st_size for p in path.rglob("*") if not p.is_dir())


def remove_folder(path: Path) -> None:
    """Delete a folder of the workspace with everything in it."""
    shutil.rmtree(path)
