"""Rows of numbers that wait in memory while they are few and on disk when they are many."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

IN_MEMORY = 32 * 2**20
"""Bytes that one spool keeps in memory before it moves to a temporary file."""


class Spool:
    """Append-only rows of one numeric type, of any length each; 8 bytes of memory a row.

    The temporary file has no name and vanishes with the process, however that ends.
    """

    def __init__(self, dtype: str, in_memory: int = IN_MEMORY) -> None:
        self._type = dtype
        self._size = array(_CODES[dtype]).itemsize
        self._ends = array("Q")
        self._at_end = True
        self._file: Any = tempfile.SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, values: Any) -> None:
        """Add one row: an iterable of integers, a numpy array of this type, or bytes."""
        if isinstance(values, bytes):
            data, size = values, len(values) // self._size
        else:
            made = values if hasattr(values, "tobytes") else array(_CODES[self._type], values)
            data, size = made.tobytes(), len(made)
        if not self._at_end:
            self._file.seek(0, 2)
            self._at_end = True
        self._file.write(data)
        last = self._ends[-1] if self._ends else 0
        self._ends.append(last + size)

    def row(self, index: int) -> array[int]:
        """The row at ``index``."""
        first = self._ends[index - 1] if index else 0
        self._at_end = False
        self._file.seek(first * self._size)
        values = array(_CODES[self._type])
        values.frombytes(self._file.read((self._ends[index] - first) * self._size))
        return values

    def pieces(self, rows: int = 65536) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """``(first row, lengths, values)`` for up to ``rows`` rows at a time, in order."""
        import numpy as np

        for first in range(0, len(self._ends), rows):
            ends = np.asarray(self._ends[first : first + rows], np.int64)
            start = self._ends[first - 1] if first else 0
            self._at_end = False
            self._file.seek(start * self._size)
            raw = self._file.read((int(ends[-1]) - start) * self._size)
            yield first, np.diff(ends, prepend=start), np.frombuffer(raw, self._type)

    def close(self) -> None:
        """Free the memory or the file; also done when the spool is dropped."""
        self._file.close()

    __del__ = close


_CODES = {"u1": "B", "u4": "I", "u8": "Q"}
