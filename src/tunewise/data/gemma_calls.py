"""Tool calls as FunctionGemma and Gemma 4 write them: no JSON, texts between marks of their own.

``call:NAME{city:<escape>Rome<escape>,days:3,tags:[<escape>a<escape>],at:{hour:7}}``; Gemma 4 writes
``<|"|>`` where FunctionGemma writes ``<escape>``. A text has no escapes: it ends at the next mark.
"""

from __future__ import annotations

import json
import re
from typing import Any

_HEAD = re.compile(r"call:\s*([\w.-]+)\s*(?=\{)")
_BARE = re.compile(r"[^,:{}\[\]<\s][^,:{}\[\]<]*")
_DEEPEST = 100


def read_call(text: str, at: int, quote: str) -> tuple[str, dict[str, Any], int] | None:
    """A call that begins at ``at``, where there is a whole one.

    Args:
        quote: what stands around texts.

    Returns:
        Its name, its arguments, and where it ends.
    """
    head = _HEAD.match(text, at)
    if head is None:
        return None
    reader = _Reader(text, head.end(), quote)
    try:
        arguments = reader.value(0)
    except (ValueError, IndexError):
        return None
    return head.group(1), arguments, reader.at


class _Reader:
    """Reads values one after another; ValueError or IndexError where there is none."""

    def __init__(self, text: str, at: int, quote: str) -> None:
        self.text = text
        self.at = at
        self.quote = quote

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        self._skip()
        if self.text.startswith(self.quote, self.at):
            return self._quoted()
        if self.text[self.at] == "{":
            return dict(self._several("}", lambda: self._pair(depth)))
        if self.text[self.at] == "[":
            return self._several("]", lambda: self.value(depth + 1))
        bare = self._bare()
        try:
            return json.loads(bare)
        except ValueError:
            return bare  # a small model forgets marks around a word

    def _pair(self, depth: int) -> tuple[str, Any]:
        self._skip()
        quoted = self.text.startswith(self.quote, self.at)
        key = self._quoted() if quoted else self._bare()
        self._expect(":")
        return key, self.value(depth + 1)

    def _several(self, end: str, read: Any) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while not self._comes(end):
            if found:
                self._expect(",")
            found.append(read())
        return found

    def _quoted(self) -> str:
        start = self.at + len(self.quote)
        end = self.text.index(self.quote, start)
        self.at = end + len(self.quote)
        return self.text[start:end]

    def _bare(self) -> str:
        match = _BARE.match(self.text, self.at)
        if match is None:
            raise ValueError("a value was expected")
        self.at = match.end()
        return match.group().strip()

    def _comes(self, mark: str) -> bool:
        self._skip()
        found = self.text[self.at] == mark
        self.at += found
        return found

    def _expect(self, mark: str) -> None:
        if not self._comes(mark):
            raise ValueError(f"{mark} was expected")

    def _skip(self) -> None:
        while self.text[self.at].isspace():
            self.at += 1
