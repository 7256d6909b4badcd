"""What is wrong with data: one problem of one row, and findings that sum up many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tunewise.errors import DataError

Severity = Literal["error", "warning", "info"]
SHOWN_ROWS = 20
"""A finding names this many rows; its count has them all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one row.

    Attributes:
        code: short and stable, for programs (``example_missing_assistant_message``).
        message: one sentence without a full stop.
        where: ``file:line`` (JSON arrays and tables without lines: the row's number).
        fatal: the row cannot be used and is left out.
        hint: what to do about it.
        options: as of :class:`tunewise.errors.DataError`.
    """

    code: str
    message: str
    where: str
    fatal: bool = True
    hint: str | None = None
    options: Mapping[str, str] | None = None

    def as_error(self) -> DataError:
        """The problem as an exception."""
        return DataError(self.message, where=self.where, hint=self.hint, options=self.options)


OnProblem = Callable[[Problem], None]


class RowError(DataError):
    """A row that cannot become an example; the reader adds where it stands."""

    def __init__(
        self,
        code: str,
        message: str,
        hint: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, options=options)
        self.code = code


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem in a data set.

    Attributes:
        code: short and stable.
        severity: ``error``: rows that cannot be used, or a test that proves nothing;
            ``warning``: look at it; ``info``: good to know.
        count: how many rows.
        rows: the first 20 of them, as ids or ``file:line``.
        message: what it is, with an instance; never holds personal data or keys.
        fix: what to do.
        safe_fix: ``tunewise audit --fix`` mends it.
    """

    code: str
    severity: Severity
    count: int
    rows: tuple[str, ...]
    message: str
    fix: str
    safe_fix: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "count": self.count,
            "rows": list(self.rows),
            "message": self.message,
            "fix": self.fix,
            "safe_fix": self.safe_fix,
        }


@dataclass(slots=True)
class _Entry:
    severity: Severity
    message: str
    fix: str
    safe_fix: bool
    count: int = 0
    rows: list[str] = field(default_factory=list)
    size: int = 0


class FindingBook:
    """Gathers findings row by row in memory that does not grow with the rows."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def add(
        self,
        code: str,
        row: str,
        severity: Severity,
        message: str,
        fix: str,
        *,
        safe_fix: bool = False,
        size: int = 0,
    ) -> None:
        """Count one row. Message and fix of the first, or of the largest, stand for the kind."""
        entry = self._entries.get(code)
        if entry is None:
            entry = self._entries[code] = _Entry(severity, message, fix, safe_fix)
        entry.count += 1
        if size > entry.size:
            entry.size, entry.message, entry.fix = size, message, fix
        if len(entry.rows) < SHOWN_ROWS:
            entry.rows.append(row)

    def add_problem(self, problem: Problem) -> None:
        """Count a reader's problem."""
        severity: Severity = "error" if problem.fatal else "warning"
        fix = problem.hint or "Correct the row, or leave it out."
        # Leaving out what another encoding would read is no mending.
        safe = problem.fatal and problem.code != "wrong_encoding"
        self.add(problem.code, problem.where, severity, problem.message, fix, safe_fix=safe)

    def put(self, finding: Finding) -> None:
        """Add a finding that is counted already, unless it is empty."""
        if finding.count:
            self._entries[finding.code] = _Entry(
                finding.severity,
                finding.message,
                finding.fix,
                finding.safe_fix,
                finding.count,
                list(finding.rows[:SHOWN_ROWS]),
            )

    def count(self, code: str) -> int:
        """Rows with the finding ``code`` so far."""
        entry = self._entries.get(code)
        return entry.count if entry else 0

    def findings(self) -> list[Finding]:
        """All findings, errors first, then by count."""
        order: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}
        found = [
            Finding(code, e.severity, e.count, tuple(e.rows), e.message, e.fix, e.safe_fix)
            for code, e in self._entries.items()
        ]
        return sorted(found, key=lambda f: (order[f.severity], -f.count, f.code))
