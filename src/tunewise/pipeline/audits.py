"""`tunewise audit`: data files alone, without a study."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tunewise.data.audit import AuditReport, audit
from tunewise.data.chat import Progress
from tunewise.data.documents import stream_documents
from tunewise.data.findings import Finding, FindingBook, Problem
from tunewise.data.fix import Fixes, fix_file
from tunewise.errors import UsageError, WorkspaceError
from tunewise.pipeline.forms import form_of
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.sources import Sources
from tunewise.training.job import local_model
from tunewise.verdict.planning import GUESSED_DISCORDANCE, mde_from_discordance
from tunewise.workspace import write_text_atomic

if TYPE_CHECKING:
    from tunewise.training.encode import Encoder


@dataclass(frozen=True)
class AuditOutcome:
    """An audit of files.

    Attributes:
        mde: the smallest gain in points that a test on these test rows shows; None without any.
        fixes: what ``--fix`` did; None where it was not asked for.
        mending: the command that mends what can be mended safely.
    """

    report: AuditReport
    mde: float | None = None
    fixes: Fixes | None = None
    mending: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = self.report.as_dict()
        found["mde"] = self.mde
        found["fixes"] = self.fixes.as_dict() if self.fixes else None
        return found


def audit_files(sources: Sources, *, fix: Path | None = None, reporter: Reporter) -> AuditOutcome:
    """Audit rows, also for what a model's tokenizer and template make of them; mend them in a file.

    Args:
        sources: what is audited. With a model that has its weights here, rows are rendered and
            their trained tokens checked, as before a training.
        fix: write the rows, safely mended, to this ``.jsonl`` file.

    Raises:
        DataError: nothing can be read. Rows that are wrong become findings.
        ModelError: the model cannot be loaded.
        UsageError: ``fix`` is no ``.jsonl`` file, or one of the sources, or there are several.
    """
    files, ids = sources.files, None
    if fix is not None:
        if "test" in files and fix.resolve() == Path(files["test"]).resolve():
            raise UsageError("the mended file would overwrite the test rows", where=str(fix))
        mended = files["train"] if files.keys() == {"train", "test"} else sources.only
    if sources.documents is not None:
        ids = frozenset(document.id for document in stream_documents(sources.documents))
    with reporter.task("audit") as progress:
        report = audit(
            {**files},
            columns=sources.columns,
            encoding=sources.encoding,
            documents=ids,
            progress=progress,
        )
    if sources.renders and not report.count("text_alone"):
        with reporter.task("rendering rows") as progress:
            report = report.with_findings(_label_findings(sources, progress))
    fixes = None
    if fix is not None:
        fixes = fix_file(
            mended,
            fix,
            columns=sources.columns,
            encoding=sources.encoding,
            spellings=report.spellings,
        )
    rows = report.rows.get("test", 0)
    mde = mde_from_discordance(GUESSED_DISCORDANCE, rows) if rows else None
    one = len(files) == 1
    again = sources.command() if one else sources.command(next(iter(files.values())))
    return AuditOutcome(report, mde, fixes, f"{again} --fix clean.jsonl")


def _label_findings(sources: Sources, progress: Progress) -> list[Finding]:
    """What the trainer would find in the rows: left out for length, changed by the template…"""
    from tunewise.training.label_audit import audited_row

    encoder, limit = _encoder(sources)
    book = FindingBook()
    for count, row in enumerate(sources.rows(_ignore), start=1):
        if row.desirable is not False and row.split != "test":
            audited_row(encoder, replace(row, id=row.source or row.id), limit, book)
        if count % 100 == 0:
            progress(count, 0)
    return book.findings()


def _encoder(sources: Sources) -> tuple[Encoder, int]:
    """What turns rows into tokens as training does, and the model's context in tokens."""
    from tunewise.models.loading import load_local
    from tunewise.training.encode import Encoder, Trained

    known: dict[str, Trained] = {t: t for t in get_args(Trained)}
    if sources.trained_rows not in known:
        raise UsageError(
            f"there is no {sources.trained_rows!r}",
            where="--trained-rows",
            hint=f"One of {', '.join(known)}.",
        )
    ref = local_model(sources.tokenizer)
    first = itertools.islice(sources.rows(_ignore), 1)
    loaded = load_local(ref, form=form_of(sources.form, ref, lambda: list(first)))
    encoder = Encoder(
        loaded.tokenizer,
        loaded.end_ids,
        trained=known[sources.trained_rows],
        embedded=loaded.embedded,
    )
    return encoder, loaded.context_length


def _ignore(problem: Problem) -> None:
    del problem


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


def row_tokens(sources: Sources, row: str) -> RowTokens:
    """The tokens of one row with their loss weights, by the sources' model or ``tunewise/tiny``.

    Args:
        row: its number (from 1, over all files), or its id.

    Raises:
        UsageError: there is no such row, or ``trained_rows`` is unknown.
        ModelError, DataError: the model or the data cannot be read.
    """
    from tunewise.training.label_audit import show_tokens

    count = 0
    for count, example in enumerate(sources.rows(), 1):
        if row not in (str(count), example.id):
            continue
        encoder, _ = _encoder(sources)
        shown = {"wanted": example}
        if example.rejected is not None:
            shown["not wanted"] = replace(example, messages=(*example.prompt, example.rejected))
        answers = [
            (name, [(t.text, t.weight) for t in show_tokens(encoder, one)])
            for name, one in shown.items()
        ]
        return RowTokens(example.id, example.source, answers)
    raise UsageError(
        f"there is no row {row}",
        where=sources.named,
        hint=f"Give a number from 1 to {count}, or an id.",
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
