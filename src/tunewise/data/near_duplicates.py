"""Rows that are almost the same question: MinHash proposes, exact Jaccard disposes.

Candidates come from MinHash signatures over word sets, in bands (Leskovec, Rajaraman & Ullman,
*Mining of Massive Datasets*, chapter 3): 16 bands of 5 find a pair of Jaccard 0.8 with
probability 0.998. Signatures and sets lie in spools, so memory stays small however many rows
there are, and a band is searched by sorting, so the order of rows does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewise.data.content import SharedText
from tunewise.data.spool import Spool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLD = 0.8
_BANDS, _ROWS = 16, 5
# A bucket of k rows has k² pairs. Each row meets its four predecessors and the bucket's first
# four, in every band: linear time, and enough to link a cluster.
_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of rows that are near-duplicates.

    Attributes:
        first, second: row numbers in the order of adding, shape ``(pairs,)``.
        verified: whether the 3-word shingles, too, have a Jaccard of 0.8 or more; a loose pair
            merely has much the same words.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    verified: NDArray[np.bool_]


class NearDuplicates:
    """Add rows, then ask for pairs."""

    def __init__(self, shared: SharedText | None = None) -> None:
        import numpy as np
        from datasketch import MinHash

        self._shared = shared or SharedText()
        self._minhash: Any = MinHash(num_perm=_BANDS * _ROWS, seed=1, hashfunc=_identity)
        # Combines the values of a band into one key; any odd constants do.
        self._mixers = np.array(
            [2 * k * 0x9E3779B97F4A7C15 % 2**64 + 1 for k in range(_ROWS)], np.uint64
        )
        self._bands = Spool("u8")
        self._words = Spool("u4")
        self._shingles = Spool("u4")

    def __len__(self) -> int:
        return len(self._bands)

    def add(self, hashes: Sequence[int]) -> None:
        """Add one row by its words' hashes. A row without words is like no other."""
        import numpy as np

        own = self._shared.own_words(hashes)
        if own:
            self._minhash.clear()
            self._minhash.update_batch(list(own))
            values = self._minhash.hashvalues.astype(np.uint64).reshape(_BANDS, _ROWS)
            keys = (values * self._mixers).sum(axis=1, dtype=np.uint64)
        else:
            keys = np.full(_BANDS, 2**63 + len(self), np.uint64)
        self._bands.append(keys)
        self._words.append(own)
        self._shingles.append(self._shared.own_shingles(hashes))

    def pairs(self, side: NDArray[Any] | None = None) -> Pairs:
        """All near-duplicate pairs found.

        Args:
            side: the split of each row as a small number; pairs across sides are then sought
                with care, and pairs within a side may be missed.
        """
        import numpy as np

        seen: NDArray[np.uint64] = np.empty(0, np.uint64)
        kept: list[tuple[int, int, bool]] = []
        for band in range(_BANDS):
            fresh = np.setdiff1d(self._candidates(band, side), seen, assume_unique=True)
            for code in fresh.tolist():
                one, other = code >> 32, code & 0xFFFFFFFF
                if _alike(self._words.row(one), self._words.row(other)):
                    verified = _alike(self._shingles.row(one), self._shingles.row(other))
                    kept.append((one, other, verified))
            seen = np.union1d(seen, fresh)
        table = np.array(kept, np.int64).reshape(-1, 3)
        return Pairs(table[:, 0], table[:, 1], table[:, 2].astype(np.bool_))

    def close(self) -> None:
        """Free the spools."""
        for spool in (self._bands, self._words, self._shingles):
            spool.close()

    def _candidates(self, band: int, side: NDArray[Any] | None) -> NDArray[np.uint64]:
        """Pairs as ``smaller << 32 | larger``, distinct and sorted."""
        import numpy as np

        columns = [v.reshape(-1, _BANDS)[:, band] for _, _, v in self._bands.pieces()]
        if not columns:
            return np.empty(0, np.uint64)
        keys = np.concatenate(columns)
        order = np.argsort(keys, kind="stable") if side is None else np.lexsort((side, keys))
        keys = keys[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        sizes = np.diff(np.r_[starts, len(keys)])
        place = np.arange(len(keys)) - np.repeat(starts, sizes)
        found = []
        for lag in range(1, _NEIGHBOURS + 1):
            at = np.flatnonzero(place >= lag)
            found.append((order[at - lag], order[at]))
            head = np.flatnonzero(place > lag + _NEIGHBOURS)
            found.append((order[head - place[head] + lag - 1], order[head]))
        one = np.concatenate([a for a, _ in found]).astype(np.uint64)
        other = np.concatenate([b for _, b in found]).astype(np.uint64)
        if side is not None:
            across = side[one.astype(np.int64)] != side[other.astype(np.int64)]
            one, other = one[across], other[across]
        low, high = np.minimum(one, other), np.maximum(one, other)
        return np.unique((low << np.uint64(32)) | high)


def clusters(n: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of the connected component of each of ``n`` rows."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _alike(one: Sequence[int], other: Sequence[int]) -> bool:
    if not one or not other or min(len(one), len(other)) < THRESHOLD * max(len(one), len(other)):
        return False
    both = len(set(one).intersection(other))
    return both >= THRESHOLD * (len(one) + len(other) - both)


def _identity(value: int) -> int:
    return value
