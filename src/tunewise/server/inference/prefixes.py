"""Keys and values of recent prompts, kept for requests that begin with the same tokens.

Prompts are kept in blocks of equal length, each known by the block before it and its tokens: a
radix tree with edges of one length. Prompts that begin alike share their first blocks, and what was
not used for longest goes first, leaves before what they hang on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count

import torch

from tunewise.server.inference.memory import Budget, OutOfMemory, Shape

BLOCK = 16
"""Tokens of a block; what is found is a multiple of it."""

_Key = tuple[Hashable, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Block:
    number: int
    data: torch.Tensor


class PrefixCache:
    """The kept prompts of one model.

    Args:
        shape: of a token's keys and values.
        budget: what they are taken from; running rows come first, see ``shrink``.
        share: the largest part of the budget that is ever taken.
    """

    def __init__(self, shape: Shape, budget: Budget, share: float = 0.5) -> None:
        self._bytes = BLOCK * shape.bytes_per_token
        self._budget = budget
        self._most = int(budget.limit * share) // self._bytes
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()
        self._numbers = count()

    def find(self, root: Hashable, tokens: Sequence[int]) -> list[torch.Tensor]:
        """The blocks with which ``tokens`` begin, each ``[layers, 2, heads, BLOCK, size]``.

        Args:
            root: what must agree beside the tokens: whose they are, and through which adapter.
            tokens: a prompt without its last token, which must always be computed.
        """
        chain = self._chain(root, tokens)
        for key in reversed(chain):  # so that the first blocks are the last to go
            self._blocks.move_to_end(key)
        return [self._blocks[key].data for key in chain]

    def keep(self, root: Hashable, tokens: Sequence[int], source: torch.Tensor) -> None:
        """Keep all whole blocks of ``tokens``; ``source`` is ``[layers, 2, heads, …, size]``."""
        chain = self._chain(root, tokens)
        parent: Hashable = self._blocks[chain[-1]].number if chain else root
        for start in range(len(chain) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
            if len(self._blocks) >= self._most and not self._evict(set(chain)):
                break
            try:
                self._budget.take(self._bytes)
            except OutOfMemory:
                break
            key = (parent, tuple(tokens[start : start + BLOCK]))
            block = _Block(next(self._numbers), source[:, :, :, start : start + BLOCK].clone())
            self._blocks[key] = block
            chain.append(key)
            parent = block.number
        for key in reversed(chain):
            self._blocks.move_to_end(key)

    def shrink(self) -> bool:
        """Give back the block that was not used for longest; False when there is none."""
        return self._evict(set())

    def clear(self) -> None:
        while self.shrink():
            pass

    def _chain(self, root: Hashable, tokens: Sequence[int]) -> list[_Key]:
        chain: list[_Key] = []
        parent: Hashable = root
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = (parent, tuple(tokens[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                break
            chain.append(key)
            parent = block.number
        return chain

    def _evict(self, spared: set[_Key]) -> bool:
        key = next(iter(self._blocks), None)
        if key is None or key in spared:
            return False
        del self._blocks[key]
        self._budget.give(self._bytes)
        return True
