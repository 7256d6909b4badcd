"""Which rows learn together: optimiser steps, flat batches, and prefixes computed once.

Rows are drawn at random into optimiser steps, as usual. Within a step the order does not matter,
so rows are sorted by their tokens; what neighbours share becomes one segment of a forest.
There is no padding, hence no need to group rows by length.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tunewise.training.attention import Layout, Segment
from tunewise.training.rows import EncodedRow, EncodedRows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tunewise.training.items import Items

# A shared piece shorter than this costs more in small blocks than it saves in tokens.
MIN_SHARED = 16


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """One forward and backward pass.

    Attributes:
        ids, positions: (tokens,) of the flat row.
        keep: (predictions,) places in the flat row whose logits are needed.
        targets, weights: (predictions,) the wanted next token and its weight in the loss.
        uses, users: (learnt tokens of all rows,) the prediction that each one is, and the row it
            belongs to: rows that share a prediction use the same one.
        use_weights: (learnt tokens of all rows,) their weights, as the rows hold them.
        layout: the segments, for attention.
        paths: for each row, the segments that make it up, in order.
        rows: ids of the rows within.
        row_tokens: tokens as the rows hold them, shared prefixes counted for every row.
    """

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    keep: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    uses: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    use_weights: npt.NDArray[np.float32]
    layout: Layout
    paths: tuple[tuple[int, ...], ...]
    rows: tuple[str, ...]
    row_tokens: int

    def place_of(self, row: int) -> npt.NDArray[np.int64]:
        """Where the tokens of row number ``row`` lie in the flat row, shape (tokens,)."""
        return _places(self.layout.segments, self.paths[row])

    @property
    def weight(self) -> float:
        """Sum of the weights in the loss."""
        return float(self.weights.sum(dtype="float64"))


def shared_length(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    """Length of the longest common prefix."""
    import numpy as np

    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    first = int(np.argmax(differ)) if n else 0
    return first if n and differ[first] else n


def sort_rows(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """Rows ordered by their tokens, so that those with a common prefix are neighbours."""
    return sorted(rows, key=_sort_key)


def _sort_key(row: EncodedRow) -> tuple[bytes, str]:
    return row.ids.astype(">i4").tobytes(), row.id


def flatten(
    rows: Sequence[EncodedRow], *, share: bool = True, min_shared: int = MIN_SHARED
) -> FlatBatch:
    """Lay rows out as one flat row with shared prefixes once.

    Args:
        rows: at least one; ordered as by ``sort_rows`` if prefixes are to be found.
        share: False keeps every row by itself.
    """
    import numpy as np

    common = [shared_length(a.ids, b.ids) if share else 0 for a, b in itertools.pairwise(rows)]
    segments: list[list[int]] = []  # start, end, position, parent, subtree_end
    pieces: list[npt.NDArray[np.int32]] = []
    paths: list[list[int]] = [[] for _ in rows]
    end = 0

    def emit(row: int, begin: int, stop: int, parent: int) -> int:
        nonlocal end
        segments.append([end, end + stop - begin, begin, parent, 0])
        pieces.append(rows[row].ids[begin:stop])
        end += stop - begin
        return len(segments) - 1

    # An explicit stack in depth-first order: rows lo:hi share `depth` tokens, held by `parent`.
    stack: list[tuple[int, int, int, int]] = []

    def push_groups(lo: int, hi: int, depth: int, parent: int) -> None:
        groups, begin = [], lo
        for i in range(lo, hi - 1):
            if common[i] - depth < min_shared:
                groups.append((begin, i + 1, depth, parent))
                begin = i + 1
        groups.append((begin, hi, depth, parent))
        stack.extend(reversed(groups))

    push_groups(0, len(rows), 0, -1)
    while stack:
        lo, hi, depth, parent = stack.pop()
        if hi - lo == 1:
            node = emit(lo, depth, len(rows[lo].ids), parent)
        else:
            shared = min(common[lo : hi - 1])
            node = emit(lo, depth, shared, parent)
            push_groups(lo, hi, shared, node)
        for row in range(lo, hi):
            paths[row].append(node)
    for index in range(len(segments) - 1, -1, -1):
        node_ = segments[index]
        node_[4] = max(node_[4], node_[1])
        if node_[3] >= 0:
            segments[node_[3]][4] = max(segments[node_[3]][4], node_[4])

    forest = tuple(Segment(*s) for s in segments)
    predictions = _predictions(rows, forest, paths)
    positions = np.concatenate(
        [np.arange(s.position, s.position + s.end - s.start, dtype=np.int64) for s in forest]
    )
    return FlatBatch(
        ids=np.concatenate(pieces).astype(np.int64),
        positions=positions,
        **predictions,
        layout=Layout(forest, end),
        paths=tuple(tuple(p) for p in paths),
        rows=tuple(r.id for r in rows),
        row_tokens=sum(len(r.ids) for r in rows),
    )


def _places(segments: Sequence[Segment], path: Sequence[int]) -> npt.NDArray[np.int64]:
    import numpy as np

    pieces = [np.arange(segments[n].start, segments[n].end, dtype=np.int64) for n in path]
    return np.concatenate(pieces)


def _predictions(
    rows: Sequence[EncodedRow], segments: Sequence[Segment], paths: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The fields of ``FlatBatch`` on what is learnt; predictions that rows share are merged."""
    import numpy as np

    places, wanted, weight, user = [], [], [], []
    for number, row in enumerate(rows):
        at = np.flatnonzero(row.weights > 0)
        at = at[at > 0]
        places.append(_places(segments, paths[number])[at - 1])
        wanted.append(row.ids[at].astype(np.int64))
        weight.append(row.weights[at])
        user.append(np.full(len(at), number, dtype=np.int64))
    # One place may predict different tokens (where rows part) or one token for many rows.
    both = np.stack([np.concatenate(places), np.concatenate(wanted)], axis=1)
    unique, inverse = np.unique(both, axis=0, return_inverse=True)
    uses, use_weights = inverse.ravel(), np.concatenate(weight)
    summed = np.bincount(uses, weights=use_weights.astype(np.float64), minlength=len(unique))
    return {
        "keep": unique[:, 0],
        "targets": unique[:, 1],
        "weights": summed.astype(np.float32),
        "uses": uses,
        "users": np.concatenate(user),
        "use_weights": use_weights,
    }


T = TypeVar("T")


def split_by_budget(
    items: Sequence[T],
    budget: int,
    *,
    share: bool = True,
    rows_of: Callable[[T], Sequence[EncodedRow]] = lambda item: (item,),  # type: ignore[assignment,return-value]
) -> list[list[T]]:
    """Cut a step's items into batches of about ``budget`` tokens, shared ones counted once.

    An item is a row, or rows that must stand in one batch (a pair of answers). One that is longer
    than the budget makes a batch by itself. With ``share`` the items are sorted first.
    """
    ordered = sorted(items, key=lambda i: _sort_key(rows_of(i)[0])) if share else list(items)
    out: list[list[T]] = []
    used = 0
    for item in ordered:
        rows = rows_of(item)
        alone = len(rows[0].ids)
        for one, other in itertools.pairwise(rows):
            alone += len(other.ids) - (_saved(one, other) if share else 0)
        cost = alone - (_saved(rows_of(out[-1][-1])[0], rows[0]) if out and share else 0)
        if out and used + cost <= budget:
            out[-1].append(item)
            used += cost
        else:
            out.append([item])
            used = alone
    return out


def _saved(one: EncodedRow, other: EncodedRow) -> int:
    common = shared_length(one.ids, other.ids)
    return common if common >= MIN_SHARED else 0


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which rows make which optimiser step; a pure function of its fields.

    Attributes:
        rows: how many rows there are.
        batch_size: rows per optimiser step; the last step of an epoch may have fewer.
        epochs: passes over the rows; the last may be a part.
        seed: of the shuffles.
        max_steps: an end before that of the last epoch.
    """

    rows: int
    batch_size: int
    epochs: float
    seed: int
    max_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one whole epoch."""
        return -(-self.rows // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run, at least 1."""
        steps = max(1, round(self.steps_per_epoch * self.epochs))
        return steps if self.max_steps is None else max(1, min(steps, self.max_steps))

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The shuffled row numbers of an epoch."""
        import numpy as np

        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def step_rows(self, step: int, order: npt.NDArray[np.int64]) -> list[int]:
        """Row numbers of optimiser step ``step`` (from 0), given its epoch's order."""
        start = step % self.steps_per_epoch * self.batch_size
        return [int(i) for i in order[start : start + self.batch_size]]

    def digest(self, rows: EncodedRows | Items) -> str:
        """SHA-256 (hex) of the plan and of the rows it is for."""
        text = f"{self.rows} {self.batch_size} {self.epochs!r} {self.seed} {self.max_steps}"
        return hashlib.sha256(f"{text} {rows.digest()}".encode()).hexdigest()
