"""Training files: checked line by line at upload, and once more against a job's method.

Each file is read as a stream; only the rows that are wrong are remembered, and few of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunewise.data.chat import Example, parts_beside_text
from tunewise.data.conversations import names
from tunewise.data.findings import Finding, FindingBook, RowError
from tunewise.data.formats import to_example
from tunewise.data.lines import json_lines
from tunewise.data.messages import Warn, check_text, messages_of, tools_of
from tunewise.errors import DataError

Format = Literal["chat", "completion", "preference", "reinforcement"]
Method = Literal["supervised", "dpo", "reinforcement"]

MIN_EXAMPLES = 10
"""Fewest rows of a training file, as at OpenAI and Azure."""

FORMATS: Mapping[Method, tuple[Format, ...]] = {
    "supervised": ("chat", "completion"),
    "dpo": ("preference",),
    "reinforcement": ("reinforcement",),
}
_LOOKS: Mapping[Format, str] = {
    "chat": '{"messages": […]} that end with the assistant\'s answer',
    "completion": '{"prompt": "…", "completion": "…"}',
    "preference": '{"input": {"messages": […]}, "preferred_output": […], '
    '"non_preferred_output": […]}',
    "reinforcement": '{"messages": […]} that end with a user message, and the grader\'s fields',
}
_SHOWN_LINES = 10
_NOT_JSONL = frozenset({"invalid_json", "truncated_line", "nul_byte", "not_an_object"})
# The readers' own hints speak of a study's settings.
_HINTS = {
    "wrong_encoding": "Save the file as UTF-8, with or without a byte-order mark.",
    "line_too_long": "Write one example a line.",
}
# A hosted service refuses these, so a file that has them would not run there either.
_FATAL_WARNINGS = frozenset({"message_unrecognized_key"})


class TrainingFileError(DataError):
    """A file that cannot be used.

    Attributes:
        code: as the originals have it, or None.
        param: which field of a request named the file.
    """

    def __init__(self, message: str, *, code: str | None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a whole file holds.

    Attributes:
        rows: examples; blank lines are none.
        format: of all rows; None for an empty file.
        warnings: what is odd but does no harm, by kind.
    """

    rows: int
    format: Format | None
    warnings: tuple[Finding, ...]


def check_upload(path: Path) -> FileSummary:
    """Check a file that is uploaded for fine-tuning; its method is not known yet.

    Raises:
        TrainingFileError: some lines are wrong; the message says which and why.
    """
    book = FindingBook()
    rows = 0
    format: Format | None = None
    wrong: list[tuple[int, RowError]] = []
    count = 0

    def warn(number: int, code: str, message: str) -> None:
        book.add(code, f"line {number}", "warning", message, "Look at these lines.")

    try:
        for number, found, made in _rows(path, warn):
            rows += 1
            format = format or found
            if isinstance(made, RowError):
                count += 1
                if len(wrong) < _SHOWN_LINES:
                    wrong.append((number, made))
    except DataError as error:  # the text cannot be decoded at all; `where` holds our own path
        raise TrainingFileError(
            f"The file cannot be read: {error.message}. {_HINTS['wrong_encoding']}",
            code="invalid_file_format",
        ) from None
    if count:
        raise _refusal(wrong, count)
    if not rows:
        raise TrainingFileError(
            "The file is empty: it holds no example.", code="invalid_file_format"
        )
    return FileSummary(rows, format, tuple(book.findings()))


def check_for_method(
    path: Path, method: Method, *, param: str = "training_file", minimum: int = MIN_EXAMPLES
) -> FileSummary:
    """Check a file against the method of a job.

    Args:
        param: the field of the job that names the file, for errors.
        minimum: fewest examples.

    Raises:
        TrainingFileError: wrong lines, another format than the method's, or too few examples
            (``invalid_n_examples``).
    """
    what = param.replace("_", " ").capitalize()
    try:
        found = check_upload(path)
    except TrainingFileError as error:
        raise TrainingFileError(
            f"{what}: {error.message}", code=f"invalid_{param}", param=param
        ) from None
    if found.format is not None and found.format not in FORMATS[method]:
        wanted = " or ".join(_LOOKS[f] for f in FORMATS[method])
        raise TrainingFileError(
            f"{what} does not fit the method {method!r}: its rows are {_LOOKS[found.format]}; "
            f"this method needs rows such as {wanted}",
            code=f"invalid_{param}",
            param=param,
        )
    if found.rows < minimum:
        raise TrainingFileError(
            f"{what} has {found.rows} example(s), but must have at least {minimum} examples",
            code="invalid_n_examples",
            param=param,
        )
    return found


def examples(path: Path) -> Iterator[Example]:
    """The rows of a checked file; an example's id is its line, for messages to the user.

    Raises:
        RowError: the file has changed since it was checked.
    """
    for _, _, made in _rows(path, lambda *_: None):
        if isinstance(made, RowError):
            raise made
        yield made


def _rows(
    path: Path, warn: Callable[[int, str, str], None]
) -> Iterator[tuple[int, Format | None, Example | RowError]]:
    format: Format | None = None
    for number, row in json_lines(path):
        made: Example | RowError
        try:
            if isinstance(row, RowError):
                raise row
            if not isinstance(row, Mapping):
                raise RowError("not_an_object", f"the line holds {_kind(row)}")
            format = format or _format_of(row)
            made = replace(_example(row, format, number, warn), id=f"line {number}")
            _require_text(made)
        except RowError as error:
            made = error
        yield number, format, made


def _require_text(example: Example) -> None:
    """Refuse what no model that trains here can read; its tokens would hold nothing of it.

    Raises:
        RowError: a part of a message is no text.
    """
    for where, kind in parts_beside_text(example):
        raise RowError(
            "parts_beside_text",
            f"{where} is of the type {kind!r}, and the models that train here read text alone",
            "Take such parts out, or write what they show into a text part.",
        )


def _format_of(row: Mapping[str, Any]) -> Format:
    """The format of a file, by its first whole row.

    Raises:
        RowError: it has none.
    """
    if "messages" in row:
        messages = row["messages"]
        last = messages[-1] if isinstance(messages, list) and messages else None
        asks = isinstance(last, Mapping) and last.get("role") == "user"
        return "reinforcement" if asks else "chat"
    if "preferred_output" in row or "non_preferred_output" in row:
        return "preference"
    if "prompt" in row and "completion" in row:
        return "completion"
    raise RowError(
        "missing_messages_list",
        f"no training format has the fields {names(row)}",
        f"Rows look like {'; or '.join(_LOOKS.values())}.",
    )


def _example(
    row: Mapping[str, Any], format: Format, number: int, warn: Callable[[int, str, str], None]
) -> Example:
    def heed(code: str, message: str) -> None:
        if code in _FATAL_WARNINGS:
            who, _, _ = message.partition(" has ")
            raise RowError(code, f"{who} has unknown keys: {message.rpartition(': ')[2]}")
        warn(number, code, message)

    if format == "reinforcement":
        return _question(row, heed)
    if format == "completion":
        if not {"prompt", "completion"} <= row.keys():
            raise RowError("missing_column", "`prompt` or `completion` is missing")
        return to_example(row, "pair", warn=heed)[0]
    if format == "preference":
        return to_example(row, "openai_preference", warn=heed)[0]
    if row.get("messages") is None:
        raise RowError("missing_messages_list", "the row has no `messages`")
    return to_example(row, "chat", warn=heed)[0]


def _question(row: Mapping[str, Any], warn: Warn) -> Example:
    """A row of a reinforcement file: a conversation without its answer, and what graders read."""
    messages = messages_of(row.get("messages"), warn)
    tools = tools_of(row.get("tools"))
    fields = {str(k): v for k, v in row.items() if k not in ("messages", "tools")}
    for value in (*messages, *tools, fields):
        check_text(value)
    if messages[-1]["role"] != "user":
        raise RowError(
            "last_message_is_not_user",
            f"the last message is from {messages[-1]['role']!r}; in this file, as its first row "
            "has it, conversations end with a user message",
        )
    return Example("", tuple(messages), tools, metadata=fields)


def _refusal(wrong: list[tuple[int, RowError]], count: int) -> TrainingFileError:
    number, first = wrong[0]
    hint = _HINTS.get(first.code, first.hint)
    code: str | None
    if first.code in _NOT_JSONL:
        code = None
        text = (
            "Expected file to have JSONL format, where every line is a JSON dictionary. "
            f"Line {number} is not a dictionary (HINT: {first.message}"
            f"{'. ' + hint.rstrip('.') if hint else ''})."
        )
    else:
        code = "invalid_file_format"
        text = f"Invalid file format. Line {number}: {first.message}. {hint or ''}".rstrip()
    if count > 1:
        others = ", ".join(str(n) for n, _ in wrong[1:])
        more = ", …" if count > len(wrong) else ""
        text += f" {count} lines are wrong; the others are {others}{more}."
    return TrainingFileError(text, code=code)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds: Mapping[type, str] = {list: "a list", str: "a text", bool: "a boolean"}
    return kinds.get(type(value), "a number")
