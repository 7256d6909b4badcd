"""Keys and values in memory: of running rows, side by side, and of what is being read in.

Running rows of like length lie in one block of memory, an *arena*, packed from its first slot on,
so that one attention kernel serves them all without a copy. A row that outgrows its arena moves to
the next, twice as long: padding is never more than the row itself. What is read in (a prompt, by
chunks) lies by itself and moves into an arena when its answer begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tunewise.server.inference.sequence import Sequence

_SMALLEST = 128
"""Tokens of the shortest arena's rows."""


class OutOfMemory(Exception):
    """Keys and values would take more than they may."""


@dataclass(slots=True)
class Budget:
    """Bytes that all keys and values of all models may take together."""

    limit: int
    used: int = 0

    def take(self, count: int) -> None:
        """Raises ``OutOfMemory`` where there is not so much left."""
        if self.used + count > self.limit:
            raise OutOfMemory
        self.used += count

    def give(self, count: int) -> None:
        self.used -= count


@dataclass(frozen=True, slots=True)
class Shape:
    """What one token's keys and values are: ``layers * 2 * heads * size`` numbers."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return self.layers * 2 * self.heads * self.size * self.dtype.itemsize


class Reading:
    """Keys and values of one row that is being read in.

    Attributes:
        data: ``[layers, 2, heads, capacity, size]``.
    """

    def __init__(self, shape: Shape, capacity: int, budget: Budget) -> None:
        self._budget = budget
        self._bytes = capacity * shape.bytes_per_token
        budget.take(self._bytes)
        self.data = torch.empty(
            (shape.layers, 2, shape.heads, capacity, shape.size),
            dtype=shape.dtype,
            device=shape.device,
        )

    def free(self) -> None:
        self._budget.give(self._bytes)
        self._bytes = 0


class Arena:
    """Rows of up to ``capacity`` tokens, in slots ``0 .. len(rows)``; ``fed`` tokens of each.

    Attributes:
        data: ``[layers, 2, slots, heads, capacity, size]``; finite everywhere, since what lies
            beyond a row's end is masked, and a mask cannot hide what is not a number.
        rows: what lies in each used slot.
    """

    def __init__(self, shape: Shape, capacity: int, budget: Budget) -> None:
        self._shape, self._budget = shape, budget
        self.capacity = capacity
        self.rows: list[Sequence] = []
        self.data = self._new(0)

    def add(self, row: Sequence, source: torch.Tensor) -> None:
        """Copy a row in; ``source`` is ``[layers, 2, heads, ≥ row.fed, size]``."""
        slot = len(self.rows)
        if slot == self.data.shape[2]:
            self._resize(max(2, 2 * slot))
        self.data[:, :, slot, :, : row.fed] = source[:, :, :, : row.fed]
        self.rows.append(row)
        row.held = self

    def view(self, row: Sequence) -> torch.Tensor:
        """A row's keys and values, ``[layers, 2, heads, capacity, size]``."""
        return self.data[:, :, self.rows.index(row)]

    def remove(self, row: Sequence) -> None:
        """Free a row's slot; the last row moves into it."""
        slot, last = self.rows.index(row), len(self.rows) - 1
        moved = self.rows.pop()
        if moved is not row:
            self.data[:, :, slot, :, : moved.fed] = self.data[:, :, last, :, : moved.fed]
            self.rows[slot] = moved
        row.held = None
        if len(self.rows) * 4 <= self.data.shape[2]:
            self._resize(2 * len(self.rows))
        else:
            # Another request's numbers, should they overflow, would reach who comes here next.
            self.data[:, :, last].zero_()

    def _new(self, slots: int) -> torch.Tensor:
        shape = self._shape
        return torch.zeros(
            (shape.layers, 2, slots, shape.heads, self.capacity, shape.size),
            dtype=shape.dtype,
            device=shape.device,
        )

    def _resize(self, slots: int) -> None:
        row_bytes = self.capacity * self._shape.bytes_per_token
        before, used = self.data.shape[2], len(self.rows)
        if slots > before:
            self._budget.take((slots - before) * row_bytes)
        data = self._new(slots)
        width = max((row.fed for row in self.rows), default=0)
        data[:, :, :used, :, :width] = self.data[:, :, :used, :, :width]
        self.data = data
        if slots < before:
            self._budget.give((before - slots) * row_bytes)


class Arenas:
    """All running rows of one model."""

    def __init__(self, shape: Shape, budget: Budget, context_length: int) -> None:
        self._shape, self._budget = shape, budget
        self._longest = context_length
        self._by_capacity: dict[int, Arena] = {}

    @property
    def used(self) -> list[Arena]:
        """Those with rows, shortest first."""
        return [a for _, a in sorted(self._by_capacity.items()) if a.rows]

    def admit(self, row: Sequence, source: torch.Tensor) -> None:
        """Begin to decode a row of which ``row.fed`` tokens are computed.

        Raises:
            OutOfMemory: the row is not in then.
        """
        self._arena(row.fed + 1).add(row, source)

    def make_room(self, row: Sequence) -> None:
        """See that the row's next token has a place.

        Raises:
            OutOfMemory: the row is where it was then.
        """
        arena: Arena = row.held
        if row.fed < arena.capacity:
            return
        self._arena(row.fed + 1).add(row, arena.view(row))
        held, row.held = row.held, None
        arena.remove(row)
        row.held = held

    def _arena(self, tokens: int) -> Arena:
        capacity = _SMALLEST
        while capacity < tokens:
            capacity *= 2
        capacity = max(tokens, min(capacity, self._longest))
        if capacity not in self._by_capacity:
            self._by_capacity[capacity] = Arena(self._shape, capacity, self._budget)
        return self._by_capacity[capacity]
