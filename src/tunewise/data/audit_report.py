"""What an audit found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tunewise.data.findings import Finding, FindingBook
from tunewise.data.leaks import Leaks
from tunewise.data.tokens import TokenStats


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        rows: rows that can be used, by split (``train`` where none is named).
        left_out: rows that cannot be used; each is counted in a finding with its line.
        findings: errors first.
        tokens: token counts of the rows.
        labels: how often each answer occurs, where the answers are a small set; else None.
        spellings: the label that each other spelling of it stands for.
        leaks: leaks into the test rows; None where the data name no test rows.
        near_duplicates_checked: False where that was switched off.
        seconds: how long it took.
    """

    rows: dict[str, int]
    left_out: int
    findings: tuple[Finding, ...]
    tokens: TokenStats
    labels: dict[str, int] | None
    spellings: dict[str, str]
    leaks: Leaks | None
    near_duplicates_checked: bool
    seconds: float

    @property
    def leave_out(self) -> tuple[str, ...]:
        """Ids of the test rows that the verdict must be shown without, too."""
        return self.leaks.leave_out if self.leaks else ()

    def count(self, code: str) -> int:
        """Rows with the finding ``code``."""
        return next((f.count for f in self.findings if f.code == code), 0)

    def with_findings(self, found: Iterable[Finding]) -> AuditReport:
        """The report with more findings; of one kind the first stands."""
        book = FindingBook()
        for finding in (*found, *self.findings):
            book.put(finding)
        return replace(self, findings=tuple(book.findings()))

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "rows": dict(self.rows),
            "left_out": self.left_out,
            "findings": [finding.as_dict() for finding in self.findings],
            "tokens": self.tokens.as_dict(),
            "labels": self.labels,
            "leaks": self.leaks.as_dict() if self.leaks else None,
            "near_duplicates_checked": self.near_duplicates_checked,
            "seconds": round(self.seconds, 3),
        }
