"""What makes two rows the same question: words, hashes, and the text that most rows share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from tunewise.data.chat import Example, Message, answer_of, drop_thoughts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 3
"""Words in a shingle: order counts, so a question with its words shuffled is another one."""
NGRAM = 13
"""Words of an overlap that counts as copied (GPT-3, 2005.14165, appendix C)."""
_SHARED_FROM = 20
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# Ordinary punctuation goes; operators, currency and emoji stay, since they can be all that tells
# two questions apart ("3 + 4", "3 * 4"). Chinese and Japanese have no spaces: a word a character.
_WORD = re.compile(
    rf"[{_CJK}]|[^\W{_CJK}]+|-(?=\d)"
    r"|[^\w\s.,;:!?'\"()\[\]{}…“”‘’„«»¿¡、。，！？；：（）「」『』·–—-]"
)


def words(text: str) -> list[str]:
    """The words of ``text``: NFKC, case folded, without ordinary punctuation."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


def question_words(example: Example) -> list[str]:
    """The words of the user's part of the prompt: neither system prompt nor earlier answers."""
    return words(example.user_text)


def hash64(text: str) -> int:
    """A stable 64-bit hash; equal on every machine and in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def prompt_text(example: Example) -> str:
    """What the model sees, the prompt as it is and the tools, as one text to compare by."""
    tools = json.dumps(example.tools, sort_keys=True) if example.tools else ""
    return "\x1e".join([tools, *[_message_text(m) for m in example.prompt]])


def answer_text(example: Example) -> str:
    """What the model shall say, and what it shall not, as one text to compare by; no thoughts."""
    answers = (m for m in (example.target, example.rejected) if m is not None)
    parts = [_message_text(drop_thoughts(m)) for m in answers]
    return "\x1e".join([*parts, str(example.desirable)])


def same_answer(one: Message | None, other: Message | None) -> bool:
    """Whether two answers say the same: text without space and thoughts, and tool calls."""

    def said(message: Message | None) -> object:
        if message is None:
            return None
        calls = [call.get("function") for call in message.get("tool_calls") or ()]
        return answer_of(message).strip(), calls

    return said(one) == said(other)


def content_hash(example: Example) -> int:
    """A stable 64-bit hash of all that is learnt from a row; ids and metadata do not count."""
    return hash_of(example.messages, example.tools, example.rejected, example.desirable)


def hash_of(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    rejected: Message | None,
    desirable: bool | None,
) -> int:
    """:func:`content_hash` for what is not an example yet."""
    parts = [_message_text(message) for message in messages]
    if tools or rejected is not None or desirable is not None:
        parts.append(json.dumps([tools, rejected, desirable], sort_keys=True))
    return hash64("\x1e".join(parts))


def _message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return f"{message['role']}\x1f{content}"
    calls = message.get("tool_calls")
    kept = {k: v for k, v in message.items() if k not in ("tool_calls", "tool_call_id")}
    # Ids of calls say nothing: two rows may want the same call under two ids.
    return json.dumps(kept, sort_keys=True) + (calls_text(calls) if calls else "")


def calls_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """Tool calls as text to compare by: names and arguments, whatever form and ids they have."""
    found = []
    for call in calls:
        function = call.get("function") or {}
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        found.append([function.get("name"), arguments])
    return json.dumps(found, sort_keys=True, ensure_ascii=False)


def word_hashes(found: Sequence[str]) -> list[int]:
    """A 32-bit hash for each word."""
    return [crc32(word.encode("utf-8", "surrogatepass")) for word in found]


def shingles(hashes: Sequence[int]) -> set[int]:
    """The 3-word shingles of a row as 32-bit hashes; a shorter row is one shingle."""
    if len(hashes) <= SHINGLE:
        return {hash(tuple(hashes)) & 0xFFFFFFFF} if hashes else set()
    triples = zip(hashes, hashes[1:], hashes[2:], strict=False)
    # Tuples of integers hash alike in every process; only text is salted.
    return {hash(triple) & 0xFFFFFFFF for triple in triples}


def ngrams(hashes: Sequence[int]) -> NDArray[np.uint64]:
    """64-bit hashes of the 13-grams of a row, distinct and sorted; none for a shorter row."""
    import numpy as np

    if len(hashes) < NGRAM:
        return np.empty(0, np.uint64)
    return np.unique(np.correlate(np.asarray(hashes, np.uint64), _powers(), "valid"))


@cache
def _powers() -> NDArray[Any]:
    import numpy as np

    base = 0x9E3779B97F4A7C15
    return np.array([pow(base, k, 2**64) for k in range(NGRAM)], np.uint64)


def seconds_of(value: str | float) -> float:
    """A row's time: seconds since 1970 for a date, or the row's own scale for a number.

    Raises:
        ValueError: the text is neither a number nor ISO 8601.
    """
    if isinstance(value, int | float):
        return float(value)
    if re.fullmatch(r"[+-]?[0-9]{1,15}(\.[0-9]*)?", value):
        return float(value)
    when = datetime.fromisoformat(value)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


class SharedText:
    """The words and shingles that more than half of a sample of rows have: a template.

    Rows are compared without them; else every row with a common instruction in the user's turn
    would look like every other. Fewer than 20 rows show no template.
    """

    def __init__(self, sample: Iterable[Sequence[str]] = ()) -> None:
        rows = [word_hashes(row) for row in sample if row]
        self.words: frozenset[int] = frozenset()
        self.shingles: frozenset[int] = frozenset()
        if len(rows) >= _SHARED_FROM:
            self.words = _in_most([set(row) for row in rows])
            self.shingles = _in_most([shingles(row) for row in rows])

    def own_words(self, hashes: Sequence[int]) -> set[int]:
        """A row's words without the shared ones; all of them if nothing else is left."""
        found = set(hashes)
        return (found - self.words) or found

    def own_shingles(self, hashes: Sequence[int]) -> set[int]:
        """A row's shingles without the shared ones; all of them if nothing else is left."""
        found = shingles(hashes)
        return (found - self.shingles) or found


def _in_most(rows: Sequence[set[int]]) -> frozenset[int]:
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update(row)
    return frozenset(item for item, count in counts.items() if count > len(rows) / 2)
