"""Documents cut into passages that retrieval can find and a prompt can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

# Scripts written without spaces (Thai to Khmer, kana, CJK, Hangul) would be one word a sentence.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")


class HasText(Protocol):
    """What is needed of a document."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def title(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of one document.

    Attributes:
        document: the document's id.
        number: 0, 1, … within the document.
        text: a piece of the document's text, unchanged.
        title: the document's title, if any.
    """

    document: str
    number: int
    text: str
    title: str | None = None

    def as_text(self) -> str:
        """Title and text, as shown to a model and as searched."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    words: int
    opens_paragraph: bool


def cut(
    documents: Iterable[HasText], words: int = 120, overlap: int | None = None
) -> list[Passage]:
    """Cut each document into passages of at most ``words`` words.

    Borders lie between paragraphs or sentences; only a sentence longer than ``words`` is cut
    inside. Neighbours share up to ``overlap`` words (a fifth by default) of whole sentences, so
    that no fact is lost at a border. A passage never spans two documents.
    """
    if words < 1:
        raise ValueError("a passage needs at least one word")
    overlap = words // 5 if overlap is None else min(overlap, words - 1)
    found: list[Passage] = []
    for document in documents:
        text = document.text
        spans = _pack(list(_pieces(text, words)), words, overlap)
        found.extend(
            Passage(document.id, number, text[start:end].strip(), document.title)
            for number, (start, end) in enumerate(spans)
        )
    return found


def _pieces(text: str, words: int) -> Iterator[_Piece]:
    """Sentences with their places, in order; too long ones in several parts."""
    for begin, end in _between(_PARAGRAPH, text, 0, len(text)):
        opens = True
        for left, right in _between(_SENTENCE, text, begin, end):
            spans = [match.span() for match in _WORD.finditer(text, left, right)]
            for first in range(0, len(spans), words):
                last = min(first + words, len(spans))
                start = left if first == 0 else spans[first][0]
                stop = right if last == len(spans) else spans[last][0]
                yield _Piece(start, stop, last - first, opens)
                opens = False


def _between(
    pattern: re.Pattern[str], text: str, begin: int, end: int
) -> Iterator[tuple[int, int]]:
    at = begin
    for match in pattern.finditer(text, begin, end):
        if match.end() > at:
            yield at, match.end()
        at = match.end()
    if at < end:
        yield at, end


def _pack(pieces: list[_Piece], words: int, overlap: int) -> list[tuple[int, int]]:
    """Pieces joined into passages: as full as they get, ended at a paragraph where that is near."""
    spans: list[tuple[int, int]] = []
    first = 0
    while first < len(pieces):
        total, last = 0, first
        paragraph = None
        while last < len(pieces) and total + pieces[last].words <= words:
            if last > first and pieces[last].opens_paragraph and 2 * total >= words:
                paragraph = last
            total += pieces[last].words
            last += 1
        if last < len(pieces) and paragraph is not None and not pieces[last].opens_paragraph:
            last = paragraph
        spans.append((pieces[first].start, pieces[last - 1].end))
        if last >= len(pieces):
            break
        shared, back = 0, last
        while back - 1 > first and shared + pieces[back - 1].words <= overlap:
            # Overlap mends a border inside a paragraph; between paragraphs there is none to mend.
            if pieces[back].opens_paragraph:
                break
            back -= 1
            shared += pieces[back].words
        first = back
    return spans
