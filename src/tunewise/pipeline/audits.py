"""`tunewise audit`: data files alone, without a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewise.data.audit import AuditReport, audit
from tunewise.data.fix import Fixes, fix_file
from tunewise.data.read import read_examples
from tunewise.errors import DataError, UsageError
from tunewise.pipeline.judge import GUESSED_DISCORDANCE
from tunewise.pipeline.reporter import Reporter
from tunewise.study.yaml_source import near_names
from tunewise.verdict.planning import mde_from_discordance
from tunewise.workspace import write_text_atomic


def check_there(data: str) -> None:
    """Stop where a data file is missing and another one has nearly its name.

    Raises:
        DataError: with the near names. Names of hub data sets pass.
    """
    path = Path(data).expanduser()
    near = None if path.exists() else near_names(path)
    if near is not None and near.startswith("Did you mean"):
        raise DataError("there is no such file", where=data, hint=near)


@dataclass(frozen=True)
class AuditOutcome:
    """An audit of files.

    Attributes:
        mde: the smallest gain in points that a test on these test rows shows; None without any.
        fixes: what ``--fix`` did; None where it was not asked for.
    """

    report: AuditReport
    mde: float | None = None
    fixes: Fixes | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = self.report.as_dict()
        found["mde"] = self.mde
        found["fixes"] = self.fixes.as_dict() if self.fixes else None
        return found


def audit_files(
    data: str, *, test: str | None = None, fix: Path | None = None, reporter: Reporter
) -> AuditOutcome:
    """Audit a data set, alone or against test rows; write it mended where ``fix`` says.

    Raises:
        DataError: nothing can be read. Rows that are wrong become findings.
        UsageError: ``fix`` is no ``.jsonl`` file, or the source itself.
    """
    if fix is not None and test is not None and fix.resolve() == Path(test).resolve():
        raise UsageError("the mended file would overwrite the test rows", where=str(fix))
    for name in (data, test):
        if name is not None:
            check_there(name)
    source: Any = {"train": data, "test": test} if test else data
    with reporter.task("audit") as progress:
        report = audit(source, progress=progress)
    fixes = fix_file(data, fix) if fix else None
    rows = report.rows.get("test", 0)
    mde = mde_from_discordance(GUESSED_DISCORDANCE, rows) if rows else None
    return AuditOutcome(report, mde, fixes)


@dataclass(frozen=True)
class RowTokens:
    """One row as the trainer sees it.

    Attributes:
        id: of the row.
        tokens: each token's text with the weight of its loss (0: not trained).
    """

    id: str
    tokens: list[tuple[str, float]]


def row_tokens(data: str, row: int, model: str) -> RowTokens:
    """The tokens of row number ``row`` (from 1) with their loss weights.

    Raises:
        UsageError: there is no such row.
        ModelError, DataError: the model or the data cannot be read.
    """
    from tunewise.models.loading import load_local
    from tunewise.models.names import parse_model
    from tunewise.training.encode import Encoder
    from tunewise.training.label_audit import show_tokens

    for number, example in enumerate(read_examples(data), 1):
        if number == row:
            loaded = load_local(parse_model(model))
            encoder = Encoder(loaded.tokenizer, loaded.end_ids)
            shown = show_tokens(encoder, example)
            return RowTokens(example.id, [(t.text, t.weight) for t in shown])
    raise UsageError(f"there is no row {row}", where=data, hint="Rows are counted from 1.")


def write_token_page(row: RowTokens, model: str, path: Path) -> None:
    """Write the tokens as a page that holds all it needs.

    Raises:
        WorkspaceError: it cannot be written there.
    """
    from tunewise.report.token_page import render_tokens

    write_text_atomic(path, render_tokens(row.id, model, row.tokens))
