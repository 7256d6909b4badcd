"""Rows with several right answers: a column ``references``, or SQuAD's ``answers``.

The first is the wanted answer, which training learns; metrics score by the best of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunewise.data.conversations import PAIRS, Row, pair_of
from tunewise.data.findings import RowError
from tunewise.data.messages import is_message, parsed

_COLUMNS = ("references", "answers")
_CHATS = ("messages", "conversations")


def several(row: Row) -> tuple[Row, Sequence[object]]:
    """The row with one wanted answer where its format has it, and the further ones.

    A row without such columns comes back as it is. SQuAD's ``context`` stands before its question.

    Raises:
        RowError: a question whose list of answers is empty.
    """
    if not any(row.get(name) is not None for name in _COLUMNS):
        return row, ()
    if row.get("references") is not None:
        found = _answers(row["references"])
        return (row, ()) if found is None else _with(row, found)
    asked = next((a for a, _ in PAIRS if row.get(a) is not None), None)
    found = _answers(row["answers"])
    if asked is None or found is None or pair_of(row) is not None:
        return row, ()  # a column of some other meaning
    if not found:
        raise RowError(
            "no_answer",
            "the question has no answer: `answers` is empty",
            "Write what is wanted then (for instance `unanswerable`), or leave the row out.",
        )
    rest = {k: v for k, v in row.items() if k not in ("answers", "context", asked)}
    context = row.get("context") if isinstance(row.get("context"), str) else None
    question = f"{context}\n\n{row[asked]}" if context else row[asked]
    if not context and row.get("context") is not None:
        rest["context"] = row["context"]
    return {**rest, "input": question, "output": found[0]}, found[1:]


def _with(row: Row, found: list[Any]) -> tuple[Row, Sequence[object]]:
    chat = next((name for name in _CHATS if row.get(name) is not None), None)
    if not found or "rejected" in row or "kto_tag" in row:
        return row, ()
    if chat is not None:
        turns = parsed(row[chat], chat)
        if not isinstance(turns, list) or not turns or not is_message(turns[-1]):
            return row, found
        if turns[-1].get("role", turns[-1].get("from")) in _ASSISTANT:
            return row, found
        first = found[0] if is_message(found[0]) else {"role": "assistant", "content": found[0]}
        return {**row, chat: [*turns, first]}, found[1:]
    pair = pair_of(row)
    if pair is not None and row[pair[1]] not in (None, ""):
        return row, found
    pair = pair or next((p for p in PAIRS if row.get(p[0]) is not None), None)
    return (row, ()) if pair is None else ({**row, pair[1]: found[0]}, found[1:])


_ASSISTANT = ("assistant", "gpt", "chatgpt", "bot", "model", "function_call", "tool_call")


def _answers(value: object) -> list[Any] | None:
    """Answers of a cell, each once; None where it holds something else."""
    value = parsed(value, "answers")
    if isinstance(value, Mapping) and not is_message(value):
        value = value.get("text")  # SQuAD's columns: texts, and where each stands
    if isinstance(value, str) or is_message(value):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    found: list[Any] = []
    for item in value:
        if isinstance(item, Mapping) and not is_message(item):
            item = item.get("text")  # SQuAD's own file: a list of records
        if item is None or not (isinstance(item, str | int | float) or is_message(item)):
            return None
        if item not in found:
            found.append(item)
    return found
