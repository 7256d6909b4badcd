"""Answers kept on disk, so that a rerun asks nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from errno import EDQUOT, ENOSPC
from pathlib import Path

from tunewise.data.chat import Completion, Progress, Request, canonical_hash
from tunewise.errors import WorkspaceError
from tunewise.models.engine import Engine, Foreseeing

_FIELDS = {f.name for f in fields(Completion)}
_CHUNK = 32
_PATIENCE = 30.0  # seconds that another process may keep the file busy


class AnswerStore:
    """Completions by key, in one SQLite file.

    Each answer is a transaction of its own in a write-ahead log: killed at any moment, the process
    loses at most the answer that it was writing, and others may read meanwhile. The file is
    private (0600): answers can hold personal data.

    Raises:
        WorkspaceError: the file is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives its side files the mode of the file itself, so that must be right first.
            # A file that stands is not opened here: closing it would drop the locks that another
            # store of this process holds on it (POSIX locks belong to the process).
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            path.chmod(0o600)
            self._base = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
            self._keep_a_log()
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
                " WITHOUT ROWID"
            )

    def _keep_a_log(self) -> None:
        """Turn the write-ahead log on.

        Of two processes that do this to a new file at once one is told "locked" without a wait,
        whatever the timeout, since SQLite would be waiting for itself.
        """
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                self._base.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
            time.sleep(0.01)

    def get(self, key: str) -> Completion | None:
        with self._errors():
            row = self._base.execute("SELECT answer FROM answers WHERE key=?", (key,)).fetchone()
        return _completion(json.loads(row[0])) if row is not None else None

    def put(self, key: str, completion: Completion) -> None:
        text = json.dumps(asdict(completion), ensure_ascii=True)
        with self._errors():
            self._base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))

    def __len__(self) -> int:
        with self._errors():
            return int(self._base.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        with self._errors():
            self._base.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if "full" in str(error) or getattr(error, "errno", None) in (ENOSPC, EDQUOT):
                raise WorkspaceError(
                    "the disk is full; what was finished before is intact",
                    where=str(self._path),
                    hint="Free some space (`tunewise clean` lists what can go) and run again.",
                ) from error
            raise WorkspaceError(
                f"the kept answers cannot be used: {error}",
                where=str(self._path),
                hint="Delete the file if it is damaged; its answers are then asked for again.",
            ) from error


def _completion(value: Mapping[str, object]) -> Completion:
    known = {k: v for k, v in value.items() if k in _FIELDS}
    calls = known.get("tool_calls") or ()
    assert isinstance(calls, list | tuple)
    return Completion(**{**known, "tool_calls": tuple(calls)})  # type: ignore[arg-type]


class CachedEngine:
    """An engine that asks another one only what it has not answered before.

    Answers are kept by model, revision and request; failed ones are not, so that a rerun tries them
    again. Equal requests of one call are asked once.

    Args:
        engine: who answers; one with ``iterate`` has each answer kept as it comes.
        directory: where ``answers.sqlite`` lies.
        by_content: the revision alone says which model it is, wherever its files lie.
    """

    def __init__(self, engine: Engine, directory: Path, *, by_content: bool = False) -> None:
        self._engine = engine
        self._store = AnswerStore(directory / "answers.sqlite")
        self.model = engine.model
        self.revision = engine.revision
        self.context_length = engine.context_length
        self.thinks = bool(getattr(engine, "thinks", False))
        self.wraps = bool(getattr(engine, "wraps", False))
        self._name = "" if by_content else engine.model

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        """See ``Engine.answer``."""
        keys = [self._key(request) for request in requests]
        times = Counter(keys)
        found: dict[str, Completion] = {}
        waiting: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in found or key in waiting:
                continue
            kept = self._store.get(key)
            if kept is not None:
                found[key] = kept
            else:
                waiting[key] = request
        done = sum(times[key] for key in found)
        if progress is not None and keys:
            progress(done, len(keys))
        failed = 0
        names = list(waiting)
        for index, completion in self._ask(list(waiting.values())):
            key = names[index]
            found[key] = completion
            if completion.error is None:
                self._store.put(key, completion)
            else:
                failed += times[key]
            done += times[key]
            if progress is not None:
                progress(done, len(keys), failed)
        return [found[key] for key in keys]

    @property
    def notes(self) -> list[str]:
        """What the engine has had to do otherwise."""
        return list(getattr(self._engine, "notes", ()))

    def why_not(self, requests: Sequence[Request]) -> dict[int, str]:
        """See ``Foreseeing.why_not``; empty where the engine cannot foresee."""
        engine = self._engine
        return engine.why_not(requests) if isinstance(engine, Foreseeing) else {}

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        return self._engine.count_tokens(messages)

    def close(self) -> None:
        self._store.close()
        self._engine.close()

    def _key(self, request: Request) -> str:
        return canonical_hash([self._name, self.revision, request.key])

    def _ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        if not requests:
            return
        iterate = getattr(self._engine, "iterate", None)
        if iterate is not None:
            yield from iterate(requests)
            return
        for start in range(0, len(requests), _CHUNK):
            answers = self._engine.answer(requests[start : start + _CHUNK])
            yield from enumerate(answers, start)
