"""A JSON array item by item, from a text stream of any length."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TextIO

from tunewise.data.findings import RowError
from tunewise.data.strict_json import DECODER
from tunewise.errors import DataError

_PIECE = 2**18
_MAX_ITEM = 10 * 2**20
_SPACE = " \t\r\n"
_LENIENT = json.JSONDecoder()
WRAPPED = re.compile(r'\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-\w.]+)\s*,\s*){0,20}"data"\s*:\s*\[')
"""The head of an object that wraps the rows: ``{"version": 1, "data": [``."""


class _Window:
    """The part of the stream under the reader, with its line number."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream = stream
        self.name = name
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def more(self) -> bool:
        """Read on; each time twice as much, so that a long item costs linear time."""
        self.line += self.text.count("\n", 0, self.at)
        self.text = self.text[self.at :]
        self.at = 0
        piece = self.stream.read(max(_PIECE, len(self.text)))
        self.text += piece
        self.ended = not piece
        return bool(piece)

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def here(self) -> int:
        """The line of the next character."""
        self.line += self.text.count("\n", 0, self.at)
        self.text = self.text[self.at :]
        self.at = 0
        return self.line

    def error(self, message: str, hint: str | None = None) -> DataError:
        return DataError(message, where=f"{self.name}:{self.here()}", hint=hint)


def array_items(stream: TextIO, name: str) -> Iterator[tuple[int, object]]:
    """``(line, item)`` for each item of the array in ``stream``, or of its ``{"data": […]}``.

    An item that is no JSON by the standard comes out as a ``RowError``.

    Raises:
        DataError: no array, an item over 10 MB, or text that is not JSON; ``name`` is the place.
    """
    window = _Window(stream, name)
    if window.peek() == "{" and (wrapped := WRAPPED.match(window.text, window.at)):
        window.at = wrapped.end() - 1
    if window.peek() != "[":
        raise window.error(
            "the file is not a JSON array",
            "Write [{…}, {…}], or one object a line in a .jsonl file.",
        )
    window.at += 1
    if window.peek() == "]":
        return
    while True:
        if not window.peek():
            raise _cut_off(window)
        line = window.here()
        yield line, _item(window)
        following = window.peek()
        if following == "]":
            return
        if following != ",":
            raise _cut_off(window) if not following else window.error("a comma is missing")
        window.at += 1


def _item(window: _Window) -> object:
    while True:
        problem = ""
        try:
            item, end = DECODER.raw_decode(window.text, window.at)
            # A number may go on in the next piece.
            if end < len(window.text) or window.ended:
                window.at = end
                return item
        except RowError as error:
            try:
                _, window.at = _LENIENT.raw_decode(window.text, window.at)
                return error
            except ValueError as cut:
                problem = str(cut)
        except RecursionError:
            raise window.error("the row is nested too deeply") from None
        except ValueError as error:
            problem = getattr(error, "msg", str(error))
        if len(window.text) - window.at > _MAX_ITEM:
            raise window.error(
                "a row is not valid JSON, or longer than 10 MB" + (f": {problem}" * bool(problem))
            )
        if not window.more() and problem:
            raise window.error(f"the row is not valid JSON, or cut off: {problem}")


def _cut_off(window: _Window) -> DataError:
    return window.error(
        "the file ends in the middle of the array",
        "The file was cut off; export or download it anew.",
    )
