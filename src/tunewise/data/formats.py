"""The field's row formats: which one a file has, and its rows as examples.

Understood: OpenAI chat and preference rows, prompt/completion, input/output and its many names,
alpaca and ShareGPT (LLaMA-Factory's forms with ``chosen``/``rejected`` and ``kto_tag`` too),
``prompt``/``chosen``/``rejected``, labelled single answers (KTO), SQuAD's rows, rows with several
right answers (``references``), and texts alone, for pretraining.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunewise.data.chat import Example, Message, text_of
from tunewise.data.columns import likely_columns, written
from tunewise.data.content import hash_of, same_answer, seconds_of
from tunewise.data.conversations import (
    EXPECTED,
    READERS,
    Format,
    Row,
    check_conversation,
    names,
    pair_of,
)
from tunewise.data.findings import RowError
from tunewise.data.messages import Warn, check_text, message_of, parsed
from tunewise.data.references import several
from tunewise.errors import DataError
from tunewise.study.schema import Columns

_SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "valid": "dev",
    "val": "dev",
    "validation": "dev",
    "eval": "dev",
    "test": "test",
    "testing": "test",
}
# Beside a text, these say where it is from and nothing that a model should answer.
_TEXT_ALONE = frozenset(
    {"text", "id", "doc_id", "document_id", "title", "url", "source", "date", "time", "timestamp"}
    | {"created", "author", "lang", "language", "license", "split", "group", "meta", "metadata"}
)
_DOCUMENT_COLUMNS = dict.fromkeys(("doc_ids", "doc_id", "document_ids", "document_id", "documents"))


def split_name(value: object) -> str | None:
    """``train``, ``dev`` or ``test`` for the usual names of splits, else None."""
    return _SPLITS.get(value.strip().casefold()) if isinstance(value, str) else None


def rename(row: Row, columns: Columns) -> Row:
    """The row with the user's column names replaced by the usual ones.

    Raises:
        RowError: a mapped column is missing.
    """
    mapping = _mapping(columns)
    if not mapping:
        return row
    renamed = {k: v for k, v in row.items() if k not in mapping and k not in mapping.values()}
    for theirs, ours in mapping.items():
        if theirs not in row:
            if ours in _OPTIONAL:
                continue
            raise RowError(
                "missing_column",
                f"the column {theirs!r} of `data.columns` is missing",
                f"The row has: {names(row)}.",
            )
        renamed[ours] = row[theirs]
    # What the map pushed aside stays visible to graders.
    pushed = {k: row[k] for k in mapping.values() if k in row and k not in mapping}
    return {**{f"original_{k}": v for k, v in pushed.items()}, **renamed}


def detect(rows: Sequence[Row], columns: Columns | None = None) -> Format:
    """The format of a file, by the columns of its first rows.

    Raises:
        DataError: no format fits; says which columns were found and which are expected.
    """
    columns = columns or _NO_COLUMNS
    missing = [c for c in _mapping(columns) if not any(c in row for row in rows)]
    if missing:
        raise DataError(
            f"the columns {', '.join(map(repr, missing))} of `data.columns` are not in the data",
            hint=f"Found: {names(rows[0] if rows else {})}.",
        )
    if columns.text:
        return "text"
    votes: dict[Format, int] = {}
    for row in rows:
        try:
            found = _format_of(several(rename(row, columns))[0])
        except RowError:
            continue
        if found:
            votes[found] = votes.get(found, 0) + 1
    if votes:
        return max(votes, key=lambda name: votes[name])
    message = f"no known format has the columns {names(rows[0] if rows else {})}"
    likely = None if _mapping(columns) else likely_columns(rows)
    if likely is None:
        raise DataError(message, hint=EXPECTED)
    mapped = ", ".join(f"{k}: {_yaml(v)}" for k, v in likely.model_dump(exclude_none=True).items())
    raise DataError(
        message,
        hint=f"Probably this is meant: `data.columns: {{{mapped}}}`. {EXPECTED}",
        options={"--columns": written(likely)},
    )


def to_example(
    row: object,
    format: Format,
    columns: Columns | None = None,
    *,
    source: str | None = None,
    warn: Warn | None = None,
) -> tuple[Example, bool]:
    """One row as an example, and whether the row names its own id.

    Without an id of its own an example gets the first 12 hexadecimal digits of the hash of its
    content; the caller tells equal rows apart.

    Raises:
        RowError: the row cannot be used; ``code`` says why.
    """
    if not isinstance(row, Mapping):
        raise RowError(
            "data_type",
            "the row is not a JSON object",
            "Every row must be an object with named fields, such as {…}.",
        )
    columns = columns or _NO_COLUMNS
    used: set[str] = set()
    warn = warn or _ignore
    try:
        row, further = several(rename(row, columns))
        conversation, tools, rejected, desirable = READERS[format](row, used, warn)
        if format != "text":
            check_conversation(conversation)
        for message in conversation:
            content = message["content"]
            if len(message) > 2 or not isinstance(content, str) or not content.isascii():
                check_text(message)
        check_text(tools)
        if rejected is not None:
            check_text(rejected)
        example, named = _with_extras(row, used, conversation, tools, rejected, desirable, source)
        if format == "pair" and _is_completion(row, example):
            example = replace(example, completion=True)
        if further:
            example = replace(example, references=_messages(further, example, warn))
        return example, named
    except RecursionError:
        raise RowError("data_type", "the row is nested too deeply") from None


def to_row(example: Example) -> dict[str, Any]:
    """The example as a row that :func:`to_example` reads back (OpenAI's chat form)."""
    row: dict[str, Any] = {"id": example.id}
    if example.rejected is not None:
        row |= {
            "prompt": list(example.prompt),
            "chosen": [example.target],
            "rejected": [example.rejected],
        }
    elif example.completion:
        row |= {"prompt": text_of(example.messages[0]), "completion": text_of(example.messages[-1])}
    elif example.is_text:
        row["text"] = text_of(example.messages[-1])
    else:
        row["messages"] = list(example.messages)
    if example.desirable is not None:
        row["kto_tag"] = example.desirable
    if example.references:
        row["references"] = [_plainly(message) for message in example.references]
    if example.tools:
        row["tools"] = list(example.tools)
    for key in ("group", "time", "split"):
        if getattr(example, key) is not None:
            row[key] = getattr(example, key)
    if example.documents:
        row["doc_ids"] = list(example.documents)
    metadata = {k: v for k, v in example.metadata.items() if k != "references" or k not in row}
    if metadata:
        row["metadata"] = metadata
    return row


_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def _messages(further: Sequence[object], row: Example, warn: Warn) -> tuple[Message, ...]:
    """Further right answers as messages, without those that say what the wanted one says."""
    found: list[Message] = []
    for answer in further:
        message = message_of(answer, warn, "references")
        check_text(message)
        if not any(same_answer(message, other) for other in (row.target, *found)):
            found.append(message)
    return tuple(found)


def _plainly(message: Message) -> object:
    plain = message.keys() == {"role", "content"} and isinstance(message["content"], str)
    return message["content"] if plain else message


def _yaml(name: str) -> str:
    """A column's name as YAML reads it inside braces."""
    plain = re.fullmatch(r"[^\W\d](?:[\w -]*\w)?", name) and name.casefold() not in _YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


_NO_COLUMNS = Columns()
_OPTIONAL = frozenset({"id", "group", "time", "documents", "system", "references"})
_LATEST = 1e15  # nothing later is a time, not even in milliseconds; NaN fails too
_MAPPED = tuple(Columns.model_fields)


def _mapping(columns: Columns) -> dict[str, str]:
    if columns is _NO_COLUMNS:
        return {}
    return {t: ours for ours in _MAPPED if (t := getattr(columns, ours)) and t != ours}


def _format_of(row: Row) -> Format | None:
    has = {k for k, v in row.items() if v is not None}
    if {"preferred_output", "input"} <= has:
        return "openai_preference"
    if {"chosen", "rejected"} <= has:
        return "preference"
    chat = bool({"messages", "conversations"} & has)
    if "kto_tag" in has or (isinstance(row.get("label"), bool) and (chat or "prompt" in has)):
        return "desirability"
    if chat:
        return "chat"
    if {"output", "rejected"} <= has:
        return "preference"
    if "instruction" in has and "output" in row:
        return "alpaca"
    if pair_of(row):
        return "pair"
    return "text" if isinstance(row.get("text"), str) and _TEXT_ALONE.issuperset(has) else None


def _with_extras(
    row: Row,
    used: set[str],
    messages: list[dict[str, Any]],
    tools: tuple[Mapping[str, Any], ...],
    rejected: dict[str, Any] | None,
    desirable: bool | None,
    source: str | None,
) -> tuple[Example, bool]:
    given_id = _scalar(row.get("id"))
    documents: tuple[str, ...] = ()
    if not _DOCUMENT_COLUMNS.keys().isdisjoint(row):
        name = next(name for name in _DOCUMENT_COLUMNS if name in row)
        used.add(name)
        documents = _documents(row[name])
    split = split_name(row.get("split"))
    used.update(("id", "group", "time", "split") if split else ("id", "group", "time"))
    metadata: dict[str, Any] = {}
    if not used.issuperset(row):
        metadata = {str(k): v for k, v in row.items() if k not in used}
        inner = metadata.get("metadata")
        if isinstance(inner, Mapping):
            del metadata["metadata"]
            metadata = {**{str(k): v for k, v in inner.items()}, **metadata}
        check_text(metadata)
    example = Example(
        id=given_id or f"{hash_of(messages, tools, rejected, desirable):016x}"[:12],
        messages=tuple(messages),
        tools=tools,
        rejected=rejected,
        desirable=desirable,
        group=_scalar(row.get("group")),
        time=_time(row.get("time")),
        split=split,
        documents=documents,
        metadata=metadata,
        source=source,
    )
    return example, given_id is not None


def _is_completion(row: Row, example: Example) -> bool:
    """Whether the row is a prompt and its completion as two texts, and nothing else is asked."""
    texts = [row.get("prompt"), row.get("completion")]
    said = [message.get("content") for message in example.messages]
    return pair_of(row) == ("prompt", "completion") and said == texts and not example.tools


def _scalar(value: object) -> str | None:
    if value is None or value == "" or isinstance(value, list | dict):
        return None
    check_text(value)
    return str(value)


def _time(value: object) -> str | float | None:
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, int | float) and abs(value) < _LATEST:
        return float(value)
    try:
        seconds_of(when := str(value))
    except (ValueError, OverflowError):
        raise RowError(
            "bad_time",
            f"the time {str(value)[:40]!r} is neither a number nor ISO 8601",
            "Write times as 2026-11-21 or 2026-11-21T09:30:00, or map another column.",
        ) from None
    return when


def _documents(value: object) -> tuple[str, ...]:
    value = parsed(value, "documents")
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(s for item in items if (s := _scalar(item)) is not None)


def _ignore(code: str, message: str) -> None:
    del code, message
