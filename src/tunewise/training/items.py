"""What a method learns from: items of one or several rows, and the passes that they are cut into.

An item of supervised fine-tuning is a row; of a preference method, one prompt with its answers.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from tunewise.data.spool import Spool
from tunewise.training.batches import FlatBatch, flatten, sort_rows, split_by_budget
from tunewise.training.rows import EncodedRow, EncodedRows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Item:
    """What is learnt together.

    Attributes:
        number: its place among all items; source: that of its example among the examples.
        rows: one or more, always as many for one method; they stand in one pass.
        values: what the loss needs besides (a label, log-probabilities of a reference).
    """

    number: int
    rows: tuple[EncodedRow, ...]
    values: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    source: int = 0

    @property
    def id(self) -> str:
        """The id of the example."""
        return self.rows[0].id

    @property
    def tokens(self) -> int:
        """Tokens of all rows, shared ones counted for each."""
        return sum(len(r.ids) for r in self.rows)

    @property
    def trained(self) -> int:
        """How many tokens are learnt."""
        return sum(r.trained for r in self.rows)


class Ragged:
    """One array an item, of any length each: in memory while they are few, on disk when many.

    Args:
        dtype: of 4 bytes a number.
    """

    def __init__(self, dtype: type[np.int32] | type[np.float32]) -> None:
        self._dtype = dtype
        self._spool = Spool("u4")  # by its bits: a spool holds whole numbers

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add the next item's; its shape is not kept."""
        self._spool.append(values.astype(self._dtype, order="C").ravel().view("u4"))

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        import numpy as np

        return np.frombuffer(self._spool.row(index), self._dtype)

    def take(self, numbers: Sequence[int]) -> Ragged:
        """Those of some items."""
        found = Ragged(self._dtype)
        for number in numbers:
            found.append(self[number])
        return found

    def pieces(self) -> Iterator[bytes]:
        """All numbers, in order."""
        return (values.tobytes() for _, _, values in self._spool.pieces())


class Items(Sequence[Item]):
    """All items of a split, in the order of their examples.

    Args:
        width: rows of an item.

    Attributes:
        values, ragged: by name, what an item holds besides its rows.
    """

    def __init__(self, width: int = 1) -> None:
        self.rows = EncodedRows()
        self.width = width
        self.values: dict[str, npt.NDArray[np.float32]] = {}
        self.ragged: dict[str, Ragged] = {}
        self.sources = array("Q")

    def append(self, rows: Sequence[EncodedRow], source: int) -> None:
        """Add the item that example number ``source`` makes."""
        if len(rows) != self.width:
            raise ValueError(f"{len(rows)} rows for an item of {self.width}")
        for row in rows:
            self.rows.append(row)
        self.sources.append(source)

    def __len__(self) -> int:
        return len(self.rows) // self.width

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        begin = index * self.width
        rows = tuple(self.rows[begin : begin + self.width])
        values = {name: v[index] for name, v in self.values.items()}
        ragged = {name: v[index] for name, v in self.ragged.items()}
        return Item(index, rows, values | ragged, self.sources[index])

    def subset(self, numbers: Sequence[int]) -> Items:
        """Some of the items, counted anew."""
        found = Items(width=self.width)
        for number in numbers:
            found.append(self[number].rows, self.sources[number])
        found.values = {name: v[list(numbers)] for name, v in self.values.items()}
        found.ragged = {name: v.take(numbers) for name, v in self.ragged.items()}
        return found

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each item, shape (items,)."""
        lengths: npt.NDArray[np.int64] = self.rows.lengths.reshape(-1, self.width).sum(1)
        return lengths

    def digest(self) -> str:
        """SHA-256 (hex) of everything that training reads from these items."""
        if not self.values and not self.ragged and self.width == 1:
            return self.rows.digest()
        value = hashlib.sha256(f"{self.width} {self.rows.digest()}".encode())
        for name in sorted(self.values):
            value.update(name.encode() + self.values[name].tobytes())
        for name in sorted(self.ragged):
            value.update(name.encode())
            for piece in self.ragged[name].pieces():
                value.update(piece)
        return value.hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """Items of one backward pass, and the forward passes over their rows.

    Attributes:
        batches: one flat batch on the fast path; one row each on the plain path.
        places: (rows,) for the batches' rows in order: the row's number within
            ``items × width``, counted item by item.
    """

    items: tuple[Item, ...]
    batches: tuple[FlatBatch, ...]
    places: npt.NDArray[np.int64]

    @property
    def width(self) -> int:
        """Rows of an item."""
        return len(self.items[0].rows)

    def each(self, name: str, like: Tensor) -> Tensor:
        """A value of every item, (items, …), in the type and on the device of ``like``."""
        import numpy as np
        import torch

        values = np.stack([item.values[name] for item in self.items])
        return torch.from_numpy(values).to(like)

    @property
    def computed(self) -> int:
        """Tokens that are computed, shared ones once."""
        return sum(len(b.ids) for b in self.batches)


def cut(items: Iterable[Item], budget: int, *, flat: bool) -> list[Part]:
    """Cut items into parts of about ``budget`` tokens; on the plain path, of one item."""
    if not flat:
        return [_part((item,), flat=False) for item in items]
    groups = split_by_budget(list(items), budget, rows_of=lambda item: item.rows)
    return [_part(tuple(group), flat=True) for group in groups]


def _part(items: tuple[Item, ...], *, flat: bool) -> Part:
    import numpy as np

    rows = [row for item in items for row in item.rows]
    if not flat:
        return Part(items, tuple(flatten([r]) for r in rows), np.arange(len(rows)))
    # By identity: rows of one example have the same id, and may even be equal.
    numbers = {id(row): number for number, row in enumerate(rows)}
    ordered = sort_rows(rows)
    places = np.asarray([numbers[id(row)] for row in ordered], np.int64)
    return Part(items, (flatten(ordered),), places)
