"""Distillation by sequences (Kim and Rush, 1606.07947): a teacher's answers as the wanted ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunewise.data.chat import Example, Message
from tunewise.data.findings import Finding, FindingBook, RowError
from tunewise.data.lines import json_lines
from tunewise.errors import DataError
from tunewise.study.fine_tune import Distill
from tunewise.training.encode import Encoder
from tunewise.training.items import Items
from tunewise.training.label_audit import encode_and_audit, note
from tunewise.training.methods.sft import SupervisedFineTuning


class Distillation(SupervisedFineTuning):
    """Supervised fine-tuning on what a teacher answered; rows without such an answer stay out."""

    name = "distill"

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        book = FindingBook()
        taught = with_teacher_answers(examples, self.fine_tune.distill, book)
        rows, findings = encode_and_audit(encoder, taught, limit)
        items = Items(rows)
        for finding in findings:
            book.put(finding)
        return items, book.findings()


def with_teacher_answers(
    examples: Iterable[Example], options: Distill, book: FindingBook
) -> Iterator[Example]:
    """The examples with the teacher's answers; those that have none are noted in ``book``.

    Raises:
        DataError: the file of answers cannot be read, or a line or an answer is wrong.
    """
    recorded = None if options.answers is None else read_answers(Path(options.answers))
    for example in examples:
        found = (example.metadata if recorded is None else recorded).get(
            options.column if recorded is None else example.id
        )
        if found is None or found == "":
            note(book, "no_teacher_answer", example.id)
        else:
            answer = _message(found, example.source or example.id)
            yield replace(example, messages=(*example.prompt, answer))


def read_answers(path: Path) -> dict[str, Message]:
    """Answers by row id from a file of lines with ``id`` and ``answer``.

    Raises:
        DataError: it cannot be read, a line is wrong, or an id comes twice.
    """
    found: dict[str, Message] = {}
    for number, row in json_lines(path):
        where = f"{path}:{number}"
        if isinstance(row, RowError):
            raise DataError(row.message, where=where, hint=row.hint)
        if not isinstance(row, Mapping) or row.get("id") is None or row.get("answer") is None:
            raise DataError(
                "the line has no `id` or no `answer`",
                where=where,
                hint='Write one line a row: {"id": "…", "answer": "…"}',
            )
        if str(row["id"]) in found:
            raise DataError(f"the id {row['id']!r} comes twice", where=where)
        found[str(row["id"])] = _message(row["answer"], where)
    return found


def _message(answer: object, where: str) -> Message:
    if isinstance(answer, str):
        return {"role": "assistant", "content": answer}
    if isinstance(answer, Mapping) and ("content" in answer or "tool_calls" in answer):
        return {**answer, "role": "assistant"}
    raise DataError(
        "a teacher's answer is neither text nor a message",
        where=where,
        hint="Give a string, or an object with `content` (and `tool_calls`).",
    )
