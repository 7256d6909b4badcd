"""What is in a data set and what is wrong with it, in one pass and in little memory.

A row costs about 100 bytes of memory, whatever its length: hashes and counts stay, texts do not.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.data.audit_report import AuditReport as AuditReport
from tunewise.data.chat import Example, Progress, parts_beside_text, text_of
from tunewise.data.content import SharedText, calls_text, question_words, same_answer
from tunewise.data.findings import Finding, FindingBook, Problem, Severity
from tunewise.data.labels import LabelCounts
from tunewise.data.leaks import SPLITS, LeakCheck
from tunewise.data.lines import head_of
from tunewise.data.near_duplicates import clusters
from tunewise.data.personal_data import KINDS, personal_data
from tunewise.data.read import parts_of, read_examples
from tunewise.data.repeats import Repeats, later
from tunewise.data.spool import Spool
from tunewise.data.tokens import CountTokens, TokenCounts
from tunewise.errors import DataError
from tunewise.study.schema import Columns
from tunewise.words import plural, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW_ROWS = 10
"""Hosted services take no training file with fewer rows."""
_SAMPLE = 500
_REPEATED = (
    "the row repeats an earlier one word for word",
    "Keep one of them; repeats weigh more in training and hide a small data set.",
)
_THOUGHTS = (
    "the wanted answer holds thoughts: metrics, labels and repeats go by what follows them, and "
    "training learns them as the chat template writes them",
    "Set `fine_tune.thoughts: drop` to train on the answers alone.",
)
Source = str | Path | Mapping[str, str | Path]


def audit(
    source: Source,
    *,
    columns: Columns | None = None,
    encoding: str | None = None,
    max_tokens: int | None = None,
    count_tokens: CountTokens | None = None,
    near_duplicates: bool = True,
    documents: Set[str] | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a data set.

    Args:
        source: as for :func:`tunewise.data.read.read_examples`, or ``{"train": …, "dev": …,
            "test": …}`` for files that are split already.
        columns, encoding: as for ``read_examples``.
        max_tokens: rows with more tokens than this are reported.
        count_tokens: a tokenizer's count; else :func:`tunewise.data.tokens.estimate_tokens`.
        near_duplicates: look for them; costs about 0.3 ms a row.
        documents: ids of those that can be searched; rows that name others are reported.
        progress: called with the rows so far, and 0 for their unknown total.

    Raises:
        DataError: nothing can be read. Rows that are wrong become findings instead.
    """
    sources = source if isinstance(source, Mapping) else {"": source}
    book = FindingBook()
    left_out = 0

    def on_problem(problem: Problem) -> None:
        nonlocal left_out
        left_out += problem.fatal
        book.add_problem(problem)

    def rows() -> Iterator[Example]:
        for split, part in sources.items():
            read = read_examples(
                part, columns=columns, encoding=encoding, on_problem=on_problem, texts=True
            )
            yield from (replace(row, split=split) for row in read) if split else read

    for part in sources.values():
        _byte_order_marks(part, book)
    report = audit_rows(
        rows(),
        book=book,
        max_tokens=max_tokens,
        count_tokens=count_tokens,
        near_duplicates=near_duplicates,
        documents=documents,
        progress=progress,
    )
    if not report.rows and not left_out:
        raise DataError("there are no rows", where=", ".join(map(str, sources.values())))
    return replace(report, left_out=left_out)


def audit_rows(
    rows: Iterable[Example],
    *,
    book: FindingBook | None = None,
    max_tokens: int | None = None,
    count_tokens: CountTokens | None = None,
    near_duplicates: bool = True,
    documents: Set[str] | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit examples that are read already; arguments as for :func:`audit`."""
    started = time.monotonic()
    stream = iter(rows)
    first = list(itertools.islice(stream, _SAMPLE))
    run = _Run(
        book=book or FindingBook(),
        tokens=TokenCounts(count_tokens),
        max_tokens=max_tokens,
        splits=any(row.split for row in first),
        near_duplicates=near_duplicates,
        documents=documents,
        shared=SharedText(map(question_words, first)) if near_duplicates else SharedText(),
    )
    for number, row in enumerate(itertools.chain(first, stream), start=1):
        run.add(row)
        if progress and number % 1000 == 0:
            progress(number, 0)
    return replace(run.report(), seconds=time.monotonic() - started)


@dataclass(slots=True)
class _Run:
    """One pass over the rows. What is counted stays; the rows do not."""

    book: FindingBook
    tokens: TokenCounts
    max_tokens: int | None
    splits: bool
    near_duplicates: bool
    documents: Set[str] | None
    shared: SharedText
    labels: LabelCounts = field(default_factory=LabelCounts)
    rows: Counter[str] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)
    without_system: int = 0
    wanted: int = 0
    texts: int = 0
    _text_hashes: set[int] = field(default_factory=set)
    _files: array[int] = field(default_factory=lambda: array("I"))
    _lines: array[int] = field(default_factory=lambda: array("I"))
    _names: dict[str, int] = field(default_factory=dict)
    _ids: Spool = field(default_factory=lambda: Spool("u1"))
    _check: LeakCheck | None = None

    def add(self, row: Example) -> None:
        split = row.split or "train"
        self.rows[split] += 1
        if row.is_text:
            self._add_text(row)
            return
        file, _, line = (row.source or row.id).rpartition(":")
        self._files.append(self._names.setdefault(file, len(self._names)))
        self._lines.append(int(line) if file and line.isdecimal() else len(self._lines) + 1)
        self._ids.append(row.id.encode("utf-8", "surrogatepass"))
        self.repeats.add(row, SPLITS.index(split))
        target = row.target
        answer = row.answer
        calls = (target.get("tool_calls") if target else None) or ()
        said = answer + (calls_text(calls) if calls else "")
        self.labels.add(said, row.source or row.id, is_text=not calls)
        if not answer or answer[-1].isspace():
            self._check_answer(row, answer)
        if target and (target.get("reasoning_content") or answer != text_of(target)):
            self.book.add("thoughts", row.source or row.id, "info", *_THOUGHTS)
        self._check_row(row)
        if self.splits or self.near_duplicates:
            if self._check is None:
                self._check = LeakCheck(self.shared, self.near_duplicates, overlap=self.splits)
            self._check.add(row, split)

    def _add_text(self, row: Example) -> None:
        """A text of which nothing is asked: it has no labels, leaks or contradictions."""
        self.texts += 1
        place, key = row.source or row.id, hash(row.answer)
        if key in self._text_hashes:
            self.book.add("exact_duplicate", place, "info", *_REPEATED, safe_fix=True)
        self._text_hashes.add(key)
        self.tokens.add(row)
        self._check_personal_data(row, place)

    def _check_answer(self, row: Example, answer: str) -> None:
        place = row.source or row.id
        if not answer.strip() and not (row.target and row.target.get("tool_calls")):
            self.book.add(
                "empty_answer",
                place,
                "error",
                "the wanted answer is empty or only space",
                "Leave the row out, or write the answer that is wanted.",
                safe_fix=True,
            )
        elif answer:
            self.book.add(
                "answer_whitespace",
                place,
                "info",
                "the wanted answer ends with spaces or line ends, which the model would learn",
                "Strip them.",
                safe_fix=True,
            )

    def _check_row(self, row: Example) -> None:
        place = row.source or row.id
        roles = [message["role"] for message in row.messages]
        if "system" not in roles and "developer" not in roles:
            self.without_system += 1
        if "user" not in roles:
            self.book.add(
                "missing_user",
                place,
                "warning",
                "no message is from the user",
                "Check that the question was exported too.",
            )
        for where, kind in parts_beside_text(row):
            self.book.add(
                "parts_beside_text",
                place,
                "warning",
                f"{where} is of the type {kind!r}; models of text alone, such "
                "as those that train here, refuse the row",
                "Use a hosted model that reads such parts, or take the rows out.",
            )
            break
        self._check_preference(row, place)
        self._check_documents(row, place)
        size = self.tokens.add(row)
        if self.max_tokens is not None and size > self.max_tokens:
            self.book.add(
                "too_long",
                place,
                "warning",
                f"the row has more than {self.max_tokens} tokens and would be cut",
                "Shorten it, or allow more tokens.",
            )
        self._check_personal_data(row, place)

    def _check_personal_data(self, row: Example, place: str) -> None:
        text = "\n".join(map(text_of, row.messages))
        for kind in personal_data(text):
            self.book.add(
                f"personal_{kind}" if kind != "secret" else "secret",
                place,
                "warning",
                f"the text seems to hold {KINDS[kind]}, which a model can learn by heart",
                "Remove or replace them before training or sending the file anywhere.",
            )

    def _check_preference(self, row: Example, place: str) -> None:
        if row.desirable:
            self.wanted += 1
        elif row.desirable is False:
            self.book.add(
                "unwanted_answer",
                place,
                "info",
                "the answer is labelled as not wanted: it is no reference, is never shown as an "
                "example, and only the method kto learns from it",
                "Set `fine_tune.method: kto`, or leave such rows out.",
            )
        if row.rejected is not None and same_answer(row.target, row.rejected):
            self.book.add(
                "same_answers",
                place,
                "warning",
                "the wanted and the unwanted answer are the same: the row tells nothing",
                "Leave the row out, or write another unwanted answer.",
                safe_fix=True,
            )

    def _check_documents(self, row: Example, place: str) -> None:
        unknown = [d for d in row.documents if self.documents is not None]
        unknown = [d for d in unknown if d not in (self.documents or ())]
        if unknown:
            self.book.add(
                "unknown_document",
                place,
                "warning",
                f"the row names the document {unknown[0][:80]!r}, which is not among the documents",
                "Write ids as the documents have them: the `id` of a table's row, or a file's "
                "path in its folder.",
            )

    def report(self) -> AuditReport:
        n = len(self._lines)
        self._count_repeats()
        self._count_near_duplicates(n)
        leaks = None
        if self._check is not None:
            if self.rows["test"] and self.rows["train"] + self.rows["dev"]:
                leaks = self._check.leaks(self._id)
                for finding in leaks.findings():
                    self.book.put(finding)
            self._check.close()
        self._whole_set_findings(n)
        for finding in self.labels.findings():
            self.book.put(finding)
        self._ids.close()
        return AuditReport(
            rows={name: self.rows[name] for name in SPLITS if self.rows[name]},
            left_out=0,
            findings=tuple(self.book.findings()),
            tokens=self.tokens.stats(),
            labels=self.labels.table(),
            spellings=self.labels.spellings(),
            leaks=leaks,
            near_duplicates_checked=self.near_duplicates,
            seconds=0.0,
        )

    def _count_repeats(self) -> None:
        repeated = self.repeats.duplicates()
        if len(repeated):
            self._put("exact_duplicate", "info", repeated, *_REPEATED, safe_fix=True)
        self._put(
            "contradicting_answers",
            "warning",
            self.repeats.contradictions(),
            "another row asks the same and wants another answer",
            "Keep the right one. Where several answers are right, choose a metric that says so.",
        )

    def _count_near_duplicates(self, n: int) -> None:
        if self._check is None or self._check.near is None:
            return
        pairs = self._check.near.pairs()
        for code, message, kept in (
            ("near_duplicate", "the question is nearly the same as an earlier one", pairs.verified),
            ("similar_question", "the question has much the same words as an earlier one", None),
        ):
            one = pairs.first if kept is None else pairs.first[kept]
            other = pairs.second if kept is None else pairs.second[kept]
            self._put(
                code,
                "info",
                later(clusters(n, one, other)),
                message,
                "Nothing to do: splits keep near-duplicates together. Many of them mean that "
                "there is less to learn than there are rows.",
            )

    def _whole_set_findings(self, n: int) -> None:
        if self.without_system > 0:
            mixed = self.without_system < n
            self.book.put(
                Finding(
                    "missing_system",
                    "warning" if mixed else "info",
                    self.without_system,
                    (),
                    f"{some_of(self.without_system, n, 'row', 'has', 'have')} no system message",
                    "Use the same instructions in all rows."
                    if mixed
                    else "Nothing to do: the study's `prompt` is put before each row.",
                )
            )
        if len(self.rows) > 1 and not self.splits:
            self.book.put(
                Finding(
                    "leaks_not_checked",
                    "warning",
                    self.rows["test"] + self.rows["dev"],
                    (),
                    f"none of the first {_SAMPLE} rows names a split, but later ones do",
                    "Give train and test as files of their own.",
                )
            )
        unwanted = self.book.count("unwanted_answer")
        if (self.wanted or unwanted) and not (self.wanted and unwanted):
            which = "wanted" if self.wanted else "not wanted"
            self.book.put(
                Finding(
                    "one_class",
                    "warning" if self.wanted else "error",
                    self.wanted or unwanted,
                    (),
                    f"all labelled answers are {which}: `kto` learns from the difference",
                    "Give rows of both kinds."
                    if self.wanted
                    else "Without wanted answers there is nothing to tune for or to test on.",
                )
            )
        if self.texts:
            self.book.put(
                Finding(
                    "text_alone",
                    "info",
                    self.texts,
                    (),
                    f"{some_of(self.texts, n + self.texts, 'row', 'is', 'are')} a text of which "
                    "nothing is asked: for continued pretraining, and nothing to test on",
                    "Train with `--method pretrain`; a verdict needs rows with an answer too.",
                )
            )
        n += self.texts
        if n < FEW_ROWS:
            self.book.put(
                Finding(
                    "few_rows",
                    "warning",
                    max(n, 1),
                    (),
                    f"the data have {plural(n, 'row')}; hosted services take no file with fewer "
                    f"than {FEW_ROWS}",
                    "Collect more rows.",
                )
            )

    def _put(
        self,
        code: str,
        severity: Severity,
        rows: NDArray[Any],
        message: str,
        fix: str,
        *,
        safe_fix: bool = False,
    ) -> None:
        shown = tuple(self._place(i) for i in rows[:20].tolist())
        self.book.put(Finding(code, severity, len(rows), shown, message, fix, safe_fix))

    def _place(self, index: int) -> str:
        name = list(self._names)[self._files[index]]
        return f"{name}:{self._lines[index]}" if name else self._id(index)

    def _id(self, index: int) -> str:
        return self._ids.row(index).tobytes().decode("utf-8", "surrogatepass")


def _byte_order_marks(source: str | Path, book: FindingBook) -> None:
    paths: Sequence[Path | None] = [part.path for part in parts_of(source, lambda problem: None)]
    for path in paths:
        if path is not None and head_of(path, 3) == b"\xef\xbb\xbf":
            book.add(
                "byte_order_mark",
                str(path),
                "info",
                "the file begins with a byte-order mark; Azure asks for it, OpenAI refuses it",
                "Nothing to do here; `--fix` writes the file without one.",
                safe_fix=True,
            )
