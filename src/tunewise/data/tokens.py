"""Tokens of a row, and the number of epochs that hosted services choose by it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunewise.data.chat import Example, text_of

CountTokens = Callable[[str], int]
"""The number of tokens of a text, by some model's tokenizer."""

PER_MESSAGE, PER_NAME, PER_EXAMPLE = 3, 1, 3
BYTES_PER_TOKEN = 4

TARGET_EPOCHS = 3
MIN_TARGET_EXAMPLES, MAX_TARGET_EXAMPLES = 100, 25_000
MIN_EPOCHS, MAX_EPOCHS = 1, 25


def estimate_tokens(text: str) -> int:
    """Tokens of ``text`` where no tokenizer is at hand: one for each 4 bytes of UTF-8.

    English prose has about 4.3 bytes a token in today's large vocabularies, JSON and code about
    3.3, Chinese about 4 (1.3 characters); a small vocabulary needs up to twice as many tokens.
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def row_tokens(example: Example, count: CountTokens = estimate_tokens) -> tuple[int, int]:
    """Tokens of the whole row, and of what its assistant says.

    As in OpenAI's data-preparation notebook: 3 for each message, 1 for each name, 3 for the row;
    the services themselves call this count "not exact". Tools and tool calls count as JSON.
    """
    total, assistant = PER_EXAMPLE, 0
    for message in example.messages:
        size = count(_spoken(message))
        total += PER_MESSAGE + size
        if message["role"] == "assistant":
            assistant += size
        if message.get("name"):
            total += PER_NAME + count(str(message["name"]))
    if example.tools:
        total += count(json.dumps(list(example.tools), ensure_ascii=False))
    return total, assistant


def _spoken(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    text = text_of(message)
    return text + json.dumps(calls, ensure_ascii=False) if calls else text


def default_epochs(rows: int) -> int:
    """The epochs that OpenAI's notebook chooses; they match every run whose output is public.

    3, but at least enough for 100 rows in all (at most 25 epochs), and at most 25,000 rows in all.
    """
    if rows < 1:
        return TARGET_EPOCHS
    if rows * TARGET_EPOCHS < MIN_TARGET_EXAMPLES:
        return min(MAX_EPOCHS, MIN_TARGET_EXAMPLES // rows)
    if rows * TARGET_EPOCHS > MAX_TARGET_EXAMPLES:
        return max(MIN_EPOCHS, MAX_TARGET_EXAMPLES // rows)
    return TARGET_EPOCHS


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Token counts of a data set; ``estimated`` where no tokenizer counted them."""

    rows: int
    total: int
    assistant: int
    mean: float
    median: int
    p95: int
    longest: int
    estimated: bool

    def as_dict(self) -> dict[str, Any]:
        """The statistics as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


class TokenCounts:
    """Gathers the token counts of rows; 8 bytes a row."""

    def __init__(self, count: CountTokens | None = None) -> None:
        self.count = count or estimate_tokens
        self.estimated = count is None
        self._totals = array("I")
        self._assistant = 0

    def add(self, example: Example) -> int:
        """Count one row; returns its tokens."""
        total, assistant = row_tokens(example, self.count)
        self._totals.append(total)
        self._assistant += assistant
        return total

    def stats(self) -> TokenStats:
        """The statistics so far."""
        import numpy as np

        if not self._totals:
            return TokenStats(0, 0, 0, 0.0, 0, 0, 0, self.estimated)
        counts = np.asarray(self._totals)
        return TokenStats(
            rows=len(counts),
            total=int(counts.sum(dtype=np.int64)),
            assistant=self._assistant,
            mean=float(counts.mean()),
            median=int(np.quantile(counts, 0.5)),
            p95=int(np.quantile(counts, 0.95)),
            longest=int(counts.max()),
            estimated=self.estimated,
        )


def token_stats(examples: Iterable[Example], count: CountTokens | None = None) -> TokenStats:
    """Token statistics of ``examples``."""
    counts = TokenCounts(count)
    for example in examples:
        counts.add(example)
    return counts.stats()
