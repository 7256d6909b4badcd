"""`tunewise audit`: data files alone, without a study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tunewise.data.audit import AuditReport, audit
from tunewise.data.fix import Fixes, fix_file
from tunewise.data.read import read_examples
from tunewise.errors import DataError, UsageError, WorkspaceError
from tunewise.pipeline.judge import GUESSED_DISCORDANCE
from tunewise.pipeline.reporter import Reporter
from tunewise.study.yaml_source import near_names
from tunewise.training.job import local_model
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
    fixes = fix_file(data, fix, spellings=report.spellings) if fix else None
    rows = report.rows.get("test", 0)
    mde = mde_from_discordance(GUESSED_DISCORDANCE, rows) if rows else None
    return AuditOutcome(report, mde, fixes)


@dataclass(frozen=True)
class RowTokens:
    """One row as the trainer sees it.

    Attributes:
        id: of the row.
        source: ``file:line``.
        answers: what each is called, and the text and loss weight (0: not trained) of each token
            of the conversation with it. Preference data have two.
    """

    id: str
    source: str | None
    answers: list[tuple[str, list[tuple[str, float]]]]

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        answers = [
            {"answer": name, "tokens": [{"text": t, "weight": w} for t, w in tokens]}
            for name, tokens in self.answers
        ]
        return {"id": self.id, "source": self.source, "answers": answers}


def row_tokens(data: str, row: str, model: str, trained_rows: str = "answers") -> RowTokens:
    """The tokens of one row with their loss weights.

    Args:
        row: its number (from 1), or its id.
        trained_rows: as ``fine_tune.trained_rows``.

    Raises:
        UsageError: there is no such row, or ``trained_rows`` is unknown.
        ModelError, DataError: the model or the data cannot be read.
    """
    from tunewise.models.loading import load_local
    from tunewise.training.encode import Encoder, Trained
    from tunewise.training.label_audit import show_tokens

    known: dict[str, Trained] = {t: t for t in get_args(Trained)}
    if trained_rows not in known:
        raise UsageError(
            f"there is no {trained_rows!r}",
            where="--trained-rows",
            hint=f"One of {', '.join(known)}.",
        )
    ref = local_model(model)
    check_there(data)
    count = 0
    for count, example in enumerate(read_examples(data), 1):
        if row not in (str(count), example.id):
            continue
        loaded = load_local(ref)
        encoder = Encoder(
            loaded.tokenizer,
            loaded.end_ids,
            trained=known[trained_rows],
            embedded=loaded.embedded,
        )
        shown = {"wanted": example}
        if example.rejected is not None:
            shown["not wanted"] = replace(example, messages=(*example.prompt, example.rejected))
        answers = [
            (name, [(t.text, t.weight) for t in show_tokens(encoder, one)])
            for name, one in shown.items()
        ]
        return RowTokens(example.id, example.source, answers)
    raise UsageError(
        f"there is no row {row}", where=data, hint=f"Give a number from 1 to {count}, or an id."
    )


def write_token_page(row: RowTokens, model: str, path: Path) -> None:
    """Write the tokens as a page that holds all it needs.

    Raises:
        WorkspaceError: it cannot be written there.
    """
    from tunewise.report.token_page import render_tokens

    try:
        write_text_atomic(path, render_tokens(row.id, row.source, model, row.answers))
    except OSError as error:
        raise WorkspaceError(
            f"the page cannot be written: {error.strerror}", where=str(path)
        ) from error
