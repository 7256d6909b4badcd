"""Rows that cannot be read: counted file by file, and too many of them stop what reads."""

from __future__ import annotations

import codecs
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunewise.data.chat import Example
from tunewise.data.columns import written
from tunewise.data.findings import Finding, FindingBook, Problem
from tunewise.data.lines import MAX_LINE, likely_encoding
from tunewise.data.read import read_examples
from tunewise.errors import DataError
from tunewise.study.schema import Columns
from tunewise.words import plural, some_of

MOST_UNREADABLE = 0.01
"""A file of which a larger share of the rows cannot be read is not the file that was meant."""

_SHOWN = 5
_SAMPLE = 2**16
_MIXED = 0.1
_OTHERS = ("windows-1252", "cp850", "latin-1")


@dataclass(slots=True)
class _File:
    read: int = 0
    left_out: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, Problem] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


class Unreadable:
    """Watches the rows of files as they are read; it is also their collector of problems.

    Args:
        columns, encoding: with which they are read.

    Attributes:
        first: the first row that could not be read.
    """

    def __init__(self, columns: Columns | None = None, encoding: str | None = None) -> None:
        self._columns, self._encoding = columns, encoding
        self._files: dict[str, _File] = {}
        self._book = FindingBook()
        self.first: Problem | None = None

    def __call__(self, problem: Problem) -> None:
        """Take a problem of a reader."""
        self._book.add_problem(problem)
        if not problem.fatal:
            return
        self.first = self.first or problem
        name, _, line = problem.where.rpartition(":")
        file = self._files.setdefault(name, _File())
        file.left_out += 1
        file.kinds[problem.code] += 1
        file.first.setdefault(problem.code, problem)
        if len(file.lines) < _SHOWN:
            file.lines.append(line)

    def read(self, source: str | Path, *, texts: bool = False) -> Iterator[Example]:
        """The rows of a source that can be read; see ``read_examples``.

        Raises:
            DataError: at the end, as of ``check``; or nothing can be read at all.
        """
        for example in read_examples(
            source, columns=self._columns, encoding=self._encoding, on_problem=self, texts=texts
        ):
            name = (example.source or "").rpartition(":")[0]
            self._files.setdefault(name, _File()).read += 1
            yield example
        self.check()

    def findings(self) -> list[Finding]:
        """The problems by kind."""
        return self._book.findings()

    @property
    def count(self) -> int:
        """Rows that could not be read."""
        return sum(file.left_out for file in self._files.values())

    def check(self) -> None:
        """Stop where too many rows of a file cannot be read.

        Raises:
            DataError: with their number, lines, and what to do.
        """
        for name, file in self._files.items():
            if file.left_out > MOST_UNREADABLE * (file.left_out + file.read):
                raise self._error(name, file)

    def told(self) -> list[str]:
        """A sentence for each file of which rows were left out."""
        return [
            f"{self._count(file)} of {name} could not be read and "
            f"{'is' if file.left_out == 1 else 'are'} left out ({_lines(name, file)}): "
            f"{self._reason(file).message}."
            for name, file in self._files.items()
            if file.left_out
        ]

    def _count(self, file: _File) -> str:
        return some_of(file.left_out, file.left_out + file.read, "row")

    def _reason(self, file: _File) -> Problem:
        return file.first[file.kinds.most_common(1)[0][0]]

    def _error(self, name: str, file: _File) -> DataError:
        reason = self._reason(file)
        none = not file.read and file.left_out > 1
        who = f"none of {plural(file.left_out, 'row')}" if none else self._count(file)
        can = "can" if none else "cannot"
        where = f"{name}:{file.lines[0]}"
        message = f"{who} {can} be read ({_lines(name, file)}): {reason.message}"
        others = file.left_out - file.kinds[reason.code]
        if others:
            message += f"; {plural(others, 'row')} for other reasons"
        again = f"`{audit_command(name, self._columns, self._encoding)} --fix clean.jsonl`"
        if reason.code == "wrong_encoding":
            encoding = encoding_that_reads(Path(name))
            if encoding is not None:
                return DataError(
                    message,
                    where=where,
                    hint=f"Set `data.encoding: {encoding}`, which reads all of it, or save the "
                    "file as UTF-8.",
                    options={"--encoding": encoding},
                )
            hint = (
                "Some lines are UTF-8 and others are not, so no one encoding reads the file. "
                f"Export it anew as UTF-8; or {again} writes the rows that can be read."
            )
            return DataError(message, where=where, hint=hint)
        hint = f"{reason.hint or 'Correct the rows.'}"
        if file.read:
            hint += f" Or without them: {again} writes the rows that can be read."
        return DataError(message, where=where, hint=hint)


def audit_command(
    file: str, columns: Columns | None = None, encoding: str | None = None, *, study: bool = False
) -> str:
    """What audits a file read in this way; a study says itself how."""
    parts = ["tunewise", "audit", file]
    if not study:
        said = written(columns) if columns else ""
        parts += ["--columns", said] if said else []
        parts += ["--encoding", encoding] if encoding else []
    return shlex.join(parts)


def encoding_that_reads(path: Path) -> str | None:
    """The encoding that probably was meant for a file that is not UTF-8, and reads all of it.

    None where many of its lines are UTF-8, since any other encoding would garble those.
    """
    good = bad = 0
    sample = bytearray()
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                bad += 1
                sample += line[: max(0, _SAMPLE - len(sample))]
    if not bad or good > _MIXED * bad:
        return None
    guess = likely_encoding(bytes(sample))
    return next((name for name in dict.fromkeys((guess, *_OTHERS)) if _reads(path, name)), None)


def _reads(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _lines(name: str, file: _File) -> str:
    more = file.left_out - len(file.lines)
    tables = name.endswith((".parquet", ".xlsx")) or name.startswith("hf://")
    place = "row" if tables else "line"
    named = f"{place if file.left_out == 1 else place + 's'} {', '.join(file.lines)}"
    return f"{named} and {more:,} more" if more > 0 else named
