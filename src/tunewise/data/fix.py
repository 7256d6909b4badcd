"""What can be mended in a data set without asking, with a count of every change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunewise.data.chat import Example
from tunewise.data.content import content_hash, hash64, same_answer
from tunewise.data.findings import OnProblem, Problem
from tunewise.data.formats import to_row
from tunewise.data.read import read_examples
from tunewise.data.write import write_jsonl
from tunewise.errors import UsageError
from tunewise.study.schema import Columns


@dataclass(slots=True)
class Fixes:
    """What was done: ``counts`` by finding code, rows ``read`` and ``written``."""

    counts: Counter[str] = field(default_factory=Counter)
    read: int = 0
    written: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain JSON values."""
        return {"read": self.read, "written": self.written, "changes": dict(self.counts)}


def fix(
    examples: Iterable[Example], fixes: Fixes, spellings: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """The examples without exact repeats, empty answers and pairs of one answer.

    Answers are stripped at their end, and labels are written in one way.

    Repeats are looked for within a split: a test row that stands in train is a leak, and which of
    the two should go is for its owner to say.

    Args:
        examples: read with a problem collector, so that rows that cannot be used are out.
        fixes: counts what is done, by the audit's codes.
        spellings: of labels, as :attr:`tunewise.data.audit.AuditReport.spellings` has them.
    """
    spellings = spellings or {}
    seen: set[int] = set()
    for row in examples:
        fixes.read += 1
        target = row.target
        if not row.answer.strip() and not (target and target.get("tool_calls")):
            fixes.counts["empty_answer"] += 1
            continue
        if row.rejected is not None and same_answer(target, row.rejected):
            fixes.counts["same_answers"] += 1
            continue
        if target and isinstance(written := target["content"], str):
            mended = spellings.get(written, written.rstrip())
            if mended != written:
                code = "label_spelling" if written in spellings else "answer_whitespace"
                fixes.counts[code] += 1
                row = replace(row, messages=(*row.prompt, {**target, "content": mended}))
        key = hash64(f"{row.split or 'train'}:{content_hash(row):x}")
        if key in seen:
            fixes.counts["exact_duplicate"] += 1
            continue
        seen.add(key)
        fixes.written += 1
        yield row


def fix_file(
    source: str | Path,
    out: str | Path,
    *,
    columns: Columns | None = None,
    encoding: str | None = None,
    spellings: Mapping[str, str] | None = None,
    on_problem: OnProblem | None = None,
) -> Fixes:
    """Write ``source`` to ``out`` as JSON Lines (UTF-8 without a byte-order mark), mended.

    Raises:
        UsageError: ``out`` is no ``.jsonl`` file, or is the source itself.
        DataError: nothing can be read.
        WorkspaceError: ``out`` cannot be written.
    """
    out = Path(out)
    if out.suffix.casefold() != ".jsonl":
        raise UsageError(
            "the mended file is JSON Lines", where=str(out), hint="Call it NAME.jsonl."
        )
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UsageError("the mended file would overwrite its source", where=str(out))
    fixes = Fixes()

    def collect(problem: Problem) -> None:
        fixes.counts[problem.code] += 1
        fixes.read += problem.fatal
        if on_problem:
            on_problem(problem)

    rows = read_examples(source, columns=columns, encoding=encoding, on_problem=collect, texts=True)
    write_jsonl(out, (to_row(row) for row in fix(rows, fixes, spellings)))
    return fixes
