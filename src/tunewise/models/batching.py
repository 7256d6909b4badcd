"""Which prompts share their beginning, and which go through the model together.

Scoring asks hundreds of questions that begin with the same instructions and shots. The plan is a
tree: a node is a stretch of tokens that all its prompts share; it is computed once, and the prompts
below it see it. Pure functions over token lists; no tensor is touched here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_SHARED = 16
"""Shorter stretches are not worth a forward pass of their own."""

MIN_ROWS = 4
"""Fewer prompts than this form no group of their own: small batches cost more than they save."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A stretch of tokens that several prompts share.

    Attributes:
        start, end: the stretch is ``tokens[start:end]`` of any of its prompts.
        rows: indices of the prompts that hang directly on this node.
        children: longer stretches below this one.
    """

    start: int
    end: int
    rows: tuple[int, ...]
    children: tuple[SharedPrefix, ...] = ()

    @property
    def size(self) -> int:
        """Prompts on this node and below it."""
        return len(self.rows) + sum(child.size for child in self.children)

    @property
    def any_row(self) -> int:
        """One prompt that contains the stretch."""
        return self.rows[0] if self.rows else self.children[0].any_row


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens at the beginning that both have."""
    limit = min(len(one), len(other))
    low, high = 0, limit
    # Slices compare in C; bisection beats a Python loop over thousands of tokens.
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def share_prefixes(prompts: Sequence[Sequence[int]]) -> SharedPrefix:
    """Build the tree of shared beginnings.

    The root's stretch is what all prompts share (possibly nothing). The last token of a prompt is
    never shared: its logits give the first token of the answer.

    Args:
        prompts: token ids, each at least one token long.

    Returns:
        The root; every index into ``prompts`` stands in exactly one node's ``rows``.
    """
    order = sorted(range(len(prompts)), key=lambda i: (prompts[i], i))
    # Prompts in sorted order: the overlap of any two is the smallest overlap of neighbours between.
    overlaps = [
        min(
            common_length(prompts[a], prompts[b]),
            len(prompts[a]) - 1,
            len(prompts[b]) - 1,
        )
        for a, b in pairwise(order)
    ]
    return _node(order, overlaps, 0, len(order), 0, root=True)


def _node(
    order: Sequence[int], overlaps: Sequence[int], first: int, last: int, start: int, *, root: bool
) -> SharedPrefix:
    """The node of ``order[first:last]``, whose prompts agree on at least ``start`` tokens."""
    end = min(overlaps[first : last - 1], default=start)
    if end < start + MIN_SHARED and root:
        end = start
    rows: list[int] = []
    children: list[SharedPrefix] = []
    position = first
    while position < last:
        stop = position + 1
        while stop < last and overlaps[stop - 1] >= end + MIN_SHARED:
            stop += 1
        if stop - position >= MIN_ROWS and (position, stop) != (first, last):
            children.append(_node(order, overlaps, position, stop, end, root=False))
        else:
            rows.extend(order[position:stop])
        position = stop
    return SharedPrefix(start, end, tuple(rows), tuple(children))


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may become.

    Attributes:
        tokens: most prompt tokens of one forward pass, padding included.
        rows: most prompts in one batch.
        waste: largest share of padding among a batch's prompt tokens.
        cache_tokens: most tokens whose keys and values are held, answers included.
    """

    tokens: int = 8192
    rows: int = 64
    waste: float = 0.25
    cache_tokens: int = 1 << 20


def cut_batches(
    rows: Sequence[int],
    lengths: Mapping[int, int],
    answers: Mapping[int, int],
    limits: BatchLimits,
    *,
    equal_lengths: bool = False,
) -> Iterator[list[int]]:
    """Cut rows into batches of similar length, longest first (so that memory fails early or never).

    Args:
        rows: indices to place.
        lengths: prompt tokens still to be computed, by index.
        answers: most tokens of the answer, by index.
        limits: how large a batch may become; a single row is always allowed.
        equal_lengths: put only prompts of the very same length together.
    """
    batch: list[int] = []
    used = 0
    longest_answer = 0
    for row in sorted(rows, key=lambda i: (-lengths[i], i)):
        if batch:
            width = lengths[batch[0]]
            count = len(batch) + 1
            answer = max(longest_answer, answers[row])
            full = (
                count > limits.rows
                or width * count > limits.tokens
                or (width + answer) * count > limits.cache_tokens
                or width * count - used - lengths[row] > limits.waste * width * count
                or (equal_lengths and lengths[row] != width)
            )
            if full:
                yield batch
                batch, used, longest_answer = [], 0, 0
        batch.append(row)
        used += lengths[row]
        longest_answer = max(longest_answer, answers[row])
    if batch:
        yield batch
