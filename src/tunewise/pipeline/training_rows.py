"""Rows for a fine-tune alone, where no test follows: all are learnt from but a part for dev.

They pass through once, into a file; what stays in memory is some bytes a row.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from tunewise.candidates.prompting import Limits, Prompting
from tunewise.data.chat import Example
from tunewise.data.content import content_hash, hash64, question_words
from tunewise.data.documents import stream_documents
from tunewise.data.unreadable import Unreadable
from tunewise.errors import DataError
from tunewise.pipeline.reporter import Reporter
from tunewise.study.schema import CandidateSpec, Study
from tunewise.training.job_files import RowFile, write_row
from tunewise.words import plural

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

DEV_SHARE, DEV_FEWEST, DEV_MOST = 0.1, 8, 2000
"""Of the rows, a tenth is for dev: at least 8, at most a quarter of all and 2,000.

That many tell when to stop to a fiftieth of the loss's spread; looking at more takes time only.
"""


@dataclass(frozen=True)
class TrainingRows:
    """What a fine-tune alone learns from, as the tuned model will be asked.

    Attributes:
        train, dev: rows; dev may be empty.
        held_out: rows that the data or the study call test; they are not learnt from.
        how: where dev comes from, in a few words.
    """

    train: Sequence[Example]
    dev: Sequence[Example]
    held_out: int
    how: str


def read_training_rows(
    study: Study, spec: CandidateSpec, folder: Path, reporter: Reporter, *, with_dev: bool = True
) -> TrainingRows:
    """The rows of ``data.train`` (for ``pretrain`` also ``data.documents``) and ``data.dev``.

    Without rows for dev a part of the others is taken by hash; rows of one group, or with equal
    questions, stay together.

    Args:
        folder: where the file of rows lies, without a name, so that it goes with the process.
        with_dev: False learns from all rows that are not for test.

    Raises:
        DataError: nothing can be read, or no row is left to learn from.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    watch = Unreadable(study.data.columns, study.data.encoding)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    splits, ranks = array("B"), array("Q")
    unwanted = 0
    try:
        with reporter.task("reading rows"):
            for example, split in _streamed(study, watch):
                if example.desirable is False and not study.fine_tune.learns_unwanted:
                    unwanted += 1
                    continue
                write_row(file, example)
                splits.append(_SPLITS.index(split))
                ranks.append(_rank(example))
    except BaseException:
        file.close()
        raise
    for sentence in watch.told():
        reporter.warn(sentence)
    for finding in watch.findings():
        if finding.severity != "error":
            first = f", the first at {finding.rows[0]}" if finding.rows else ""
            reporter.warn(f"{plural(finding.count, 'row')}: {finding.message}{first}")
    if unwanted:
        reporter.warn(
            f"{plural(unwanted, 'row')} left out: the answer is labelled as not wanted, and "
            f"`{study.fine_tune.method}` would learn to give it; `method: kto` learns from both"
        )
    rows = RowFile(file)
    codes, order = np.asarray(splits, np.uint8), np.asarray(ranks, np.uint64)
    train, dev = (np.flatnonzero(codes == code) for code in (0, 1))
    if study.data.max_rows is not None and len(train) > study.data.max_rows:
        train = np.sort(train[np.argsort(order[train], kind="stable")[: study.data.max_rows]])
    how = "as the data say"
    if not with_dev:
        train, dev, how = np.sort(np.concatenate([train, dev])), dev[:0], "none"
    elif not len(dev):
        train, dev = _cut(train, order[train])
        how = "cut by hash" if len(dev) else "none: too few rows, or all of one group"
    if not len(train):
        hint = "Rows that call themselves test are not learnt from." if len(codes) else None
        if not len(codes) and unwanted:
            hint = "Every answer is labelled as not wanted. `method: kto` learns from such rows."
        raise DataError(
            "there are no rows to learn from",
            where=study.data.train or study.data.documents,
            hint=hint,
        )
    prompting = _prompting(study, spec, Rows(rows, train))
    held_out = int((codes == _SPLITS.index("test")).sum())
    return TrainingRows(Rows(rows, train, prompting), Rows(rows, dev, prompting), held_out, how)


_SPLITS = ("train", "dev", "test")


def _streamed(study: Study, watch: Unreadable) -> Iterator[tuple[Example, str]]:
    data = study.data
    if study.fine_tune.method == "pretrain" and data.documents is not None:
        from tunewise.training.methods.pretrain import as_example

        for document in stream_documents(data.documents, encoding=data.encoding):
            yield as_example(document), "train"
    for name, source in (("train", data.train), ("dev", data.dev)):
        if source is None:
            continue
        for example in watch.read(source, texts=study.fine_tune.method == "pretrain"):
            split = name if name == "dev" else example.split or name
            yield replace(example, split=split), split


def _rank(example: Example) -> int:
    """The same for rows that must stay on one side, by content and not by order."""
    if example.group is not None:
        return hash64(f"dev group {example.group}")
    question = " ".join(question_words(example))
    return hash64(f"dev {question}" if question else f"dev row {content_hash(example)}")


def _cut(rows: Numbers, ranks: npt.NDArray[np.uint64]) -> tuple[Numbers, Numbers]:
    """Rows to learn from and rows for dev: those of the lowest ranks, by whole units."""
    wanted = min(max(DEV_FEWEST, round(DEV_SHARE * len(rows))), len(rows) // 4, DEV_MOST)
    units, counts = np.unique(ranks, return_counts=True)
    chosen: list[int] = []
    room = wanted
    for unit, count in zip(units.tolist(), counts.tolist(), strict=True):
        if room <= 0:
            break
        if count <= room + wanted // 10 and len(chosen) + 1 < len(units):
            chosen.append(unit)
            room -= count
    is_dev = np.isin(ranks, np.asarray(chosen, np.uint64))
    return rows[~is_dev], rows[is_dev]


def _prompting(study: Study, spec: CandidateSpec, rows: Sequence[Example]) -> Prompting | None:
    """How the tuned model will be asked (see ``candidates/fine_tuned.py``); plain text is not."""
    if study.fine_tune.method == "pretrain":
        return None
    prompts = spec.prompt or study.prompt
    first = prompts if isinstance(prompts, str) or prompts is None else prompts[0]
    if first is None:  # which system messages rows share plays no part then
        return Prompting(Limits())
    return Prompting.from_rows(rows, Limits(), first)


class Rows(Sequence[Example]):
    """Some rows of a file, read when asked for; 8 bytes of memory a row.

    Args:
        numbers: which, shape (rows,).
        prompting: gives them the form in which the model will be asked.
    """

    def __init__(self, rows: RowFile, numbers: Numbers, prompting: Prompting | None = None) -> None:
        self.rows, self.numbers, self.prompting = rows, numbers, prompting

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.rows[int(self.numbers[index])]
        return row if self.prompting is None else self.prompting.training_example(row)
