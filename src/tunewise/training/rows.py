"""Encoded rows: token ids and, per token, how much its prediction weighs in the loss."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from tunewise.data.spool import Spool

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the model sees it.

    Attributes:
        id: the example's id.
        ids: token ids, shape (tokens,).
        weights: shape (tokens,); ``weights[j]`` weighs the loss of predicting ``ids[j]`` from
            the tokens before it. 0 is a token that is read but not learnt. The first token is
            never predicted, so ``weights[0]`` is 0.
    """

    id: str
    ids: Ids
    weights: Weights

    @property
    def trained(self) -> int:
        """How many tokens are learnt."""
        return int((self.weights > 0).sum())


class EncodedRows(Sequence[EncodedRow]):
    """Many encoded rows: in memory while they are few, in unnamed temporary files when many."""

    def __init__(self, rows: Iterable[EncodedRow] = ()) -> None:
        self._ids = Spool("u4")
        self._weights = Spool("u4")  # float32 by its bits: a spool holds whole numbers
        self._names = Spool("u1")
        self._lengths = array("I")
        self.trained = 0
        for row in rows:
            self.append(row)

    def append(self, row: EncodedRow) -> None:
        """Add a row at the end."""
        import numpy as np

        self._ids.append(np.ascontiguousarray(row.ids, np.int32).view(np.uint32))
        self._weights.append(np.ascontiguousarray(row.weights, np.float32).view(np.uint32))
        self._names.append(row.id.encode("utf-8", "surrogatepass"))
        self._lengths.append(len(row.ids))
        self.trained += row.trained

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRow]: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | list[EncodedRow]:
        import numpy as np

        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return EncodedRow(
            self._names.row(index).tobytes().decode("utf-8", "surrogatepass"),
            np.frombuffer(self._ids.row(index), np.int32),
            np.frombuffer(self._weights.row(index), np.float32),
        )

    def __iter__(self) -> Iterator[EncodedRow]:
        return (self[i] for i in range(len(self)))

    @property
    def tokens(self) -> int:
        """Tokens of all rows together."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, shape (rows,)."""
        import numpy as np

        return np.asarray(self._lengths, np.int64)

    def digest(self) -> str:
        """SHA-256 (hex) of everything that training reads from these rows."""
        import hashlib

        value = hashlib.sha256(self._lengths.tobytes())
        for spool in (self._ids, self._weights):
            for _, _, values in spool.pieces():
                value.update(values.tobytes())
        return value.hexdigest()
