"""gpt-oss' channels in an answer as it grows: thoughts apart, the answer's text, and calls.

A message of the harmony form is ``<|channel|>NAME<|message|>TEXT``, further ones after
``<|end|><|start|>assistant``; ``analysis`` is thought, ``final`` and ``commentary`` are said, and a
message ``to=functions.NAME`` is a call (https://developers.openai.com/cookbook/articles/openai-harmony).
What ``data/thoughts.py`` takes out of whole answers is taken out here piece by piece.
"""

from __future__ import annotations

import re
from typing import Literal

_START, _BODY = "<|channel|>", "<|message|>"
_ENDS = ("<|end|>", "<|start|>", "<|return|>", "<|call|>", _START)
_END = re.compile("|".join(map(re.escape, _ENDS)))
_ANALYSIS = re.compile(r"<\|channel\|>\s*analysis\b")
_CALL = re.compile(r"to=functions\.")
_LONGEST_HEAD = 400
"""Characters; what has no body by then is no message."""

MARKS = frozenset({_START, _BODY})
"""A vocabulary with these tokens speaks in channels."""


class Channels:
    """Splits text that comes in pieces.

    Args:
        calls: somebody reads the calls; without, their arguments are text.

    Attributes:
        thoughts: those that are new since they were last taken.
    """

    def __init__(self, *, calls: bool = True) -> None:
        self._calls = calls
        self._pending = ""
        self._in: Literal["head", "thought", "answer", "call"] = "head"
        self.thoughts = ""
        self._thought = False

    def add(self, new: str, *, last: bool = False) -> str:
        """Take more text; what of it is answer, calls with their heads included.

        Args:
            last: nothing follows, so nothing is held back.
        """
        self._pending += new
        answer = ""
        while self._pending:
            if self._in == "head":
                head = self._open(last)
                if head is None:
                    break
                answer += head
                continue
            end = _END.search(self._pending)
            at = end.start() if end else len(self._pending) if last else _whole(self._pending)
            text, self._pending = self._pending[:at], self._pending[at:]
            if self._in == "thought":
                self.thoughts += text
            else:
                answer += text
            if end is None:
                break
            if end.group() == "<|call|>" and self._in == "call":
                answer += end.group()
            if end.group() not in ("<|start|>", _START):  # with those the next head begins
                self._pending = self._pending[len(end.group()) :]
            self._in = "head"
        return answer

    def _open(self, last: bool) -> str | None:
        """Read the head of a message: what of it is for who reads calls; None: it is not whole."""
        body = self._pending.find(_BODY)
        start = self._pending.lstrip()
        marked = any(start.startswith(mark) for mark in (_START, "<|start|>"))
        begun = any(mark.startswith(start) for mark in (_START, "<|start|>"))
        called = bool(_CALL.match(start)) or "to=functions.".startswith(start)
        if not (marked or called or (begun and not last)) or (
            body < 0 and (last or len(self._pending) > _LONGEST_HEAD)
        ):
            self._in = "answer"  # text without channels
            if marked:  # the head of a message that never came
                self._pending = ""
            return ""
        if body < 0:
            return None
        head, self._pending = self._pending[:body], self._pending[body + len(_BODY) :]
        call = _CALL.search(head)
        if call is not None and self._calls:
            self._in = "call"
            return head[call.start() :] + _BODY
        if _ANALYSIS.search(head):
            if self._thought:
                self.thoughts += "\n\n"
            self._in, self._thought = "thought", True
        else:
            self._in = "answer"
        return ""

    def take_thoughts(self) -> str:
        """The thoughts that are new."""
        new, self.thoughts = self.thoughts, ""
        return new


def _whole(text: str) -> int:
    """Up to where no mark may have begun."""
    for length in range(min(len(text), max(map(len, _ENDS)) - 1), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in _ENDS):
            return len(text) - length
    return len(text)
