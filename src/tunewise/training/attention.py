"""Attention over a flat batch: a forest of token segments in one row, without any padding.

A segment attends to its ancestors and, causally, to itself. The work is a list of rectangular
*blocks* (queries, keys). Each block is computed by itself, and the blocks of a query are joined
through their log-sum-exp, as in FlashAttention (Dao et al., 2205.14135) and cascade inference.
Given the joined output and log-sum-exp, the backward pass of each block gives its exact share of
the gradients, so a shared prefix costs one block for all rows that follow it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

NAME = "tunewise_flat"


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens ``start:end`` of the flat row; their positions begin at ``position``.

    Segments lie in depth-first order, so what descends from one lies at ``end:subtree_end``.
    """

    start: int
    end: int
    position: int
    parent: int
    subtree_end: int


@dataclass(frozen=True, slots=True)
class Block:
    """Queries ``q0:q1`` attend to keys ``k0:k1``: causally (on the diagonal) or under ``mask``.

    ``first``: of all blocks that hold these queries.
    """

    q0: int
    q1: int
    k0: int
    k1: int
    causal: bool
    mask: Tensor | None = None
    first: bool = False


@dataclass
class Layout:
    """Where the segments of one flat batch lie; passed through the model as a keyword argument.

    Attributes:
        kept: places of the tokens whose last hidden states are wanted, in order; None: all. What
            comes after the last layer's keys and values is needed for them only.
        flex: attention is computed by ``attention_flex``, else in blocks.
        masks: for ``attention_flex``, which keeps there what it makes of the segments.
    """

    segments: Sequence[Segment]
    tokens: int
    kept: npt.NDArray[np.int64] | None = None
    flex: bool = False
    _plans: dict[tuple[int | None, bool], list[Block]] = field(default_factory=dict, repr=False)
    masks: dict[tuple[int | None, bool], BlockMask] = field(
        default_factory=dict, repr=False, compare=False
    )

    def keeping(self, kept: npt.NDArray[np.int64] | None, *, flex: bool = False) -> Layout:
        """The same, with only these places wanted."""
        return Layout(self.segments, self.tokens, kept, flex)

    def plan(
        self, window: int | None, device: torch.device, *, only_kept: bool = False
    ) -> list[Block]:
        """The blocks for layers that see ``window`` positions back (None: all).

        Args:
            only_kept: the queries are those of the kept tokens.

        Returns:
            Blocks marked ``first`` come first and cover every query once.
        """
        key = (window, only_kept)
        if key not in self._plans:
            self._plans[key] = self._blocks(window, device, only_kept)
        return self._plans[key]

    def _blocks(self, window: int | None, device: torch.device, only_kept: bool) -> list[Block]:
        import numpy as np

        kept = self.kept if only_kept else None
        places = np.arange(self.tokens) if kept is None else kept
        starts = np.searchsorted(places, [s.start for s in self.segments])
        ends = np.searchsorted(places, [s.end for s in self.segments])
        if window is not None and all(
            s.position + s.end - s.start <= window for s in self.segments
        ):
            window = None
        own: list[Block] = []
        shared: list[Block] = []
        for segment, q0, q1 in zip(self.segments, starts.tolist(), ends.tolist(), strict=True):
            if q0 < q1:
                positions = places[q0:q1] - segment.start + segment.position
                own.append(_own_block(q0, positions, segment, window, device))
                if window is not None:
                    shared += self._windowed(q0, positions, segment.parent, window, device)
            if window is None and segment.start < segment.end:
                q2 = int(np.searchsorted(places, segment.subtree_end))
                if q1 < q2:
                    shared.append(Block(q1, q2, segment.start, segment.end, False))
        return own + shared

    def _windowed(
        self,
        q0: int,
        positions: npt.NDArray[np.int64],
        parent: int,
        window: int,
        device: torch.device,
    ) -> Iterator[Block]:
        """Blocks of a segment's queries with its ancestors, from the nearest on."""
        while parent >= 0:
            keys = self.segments[parent]
            last = keys.position + keys.end - keys.start - 1
            if positions[0] - last >= window:
                return
            if keys.start < keys.end:
                seeing = positions[positions - last < window]
                yield _masked(q0, seeing, keys, keys.end, window, device)
            parent = keys.parent


def _own_block(
    q0: int,
    positions: npt.NDArray[np.int64],
    segment: Segment,
    window: int | None,
    device: torch.device,
) -> Block:
    """Some tokens of a segment as queries, and the segment up to the last of them as keys."""
    length = int(positions[-1]) - segment.position + 1
    if len(positions) == length and (window is None or length <= window):
        return Block(q0, q0 + length, segment.start, segment.start + length, True, first=True)
    block = _masked(q0, positions, segment, segment.start + length, window, device)
    return replace(block, first=True)


def _masked(
    q0: int,
    positions: npt.NDArray[np.int64],
    keys: Segment,
    k1: int,
    window: int | None,
    device: torch.device,
) -> Block:
    """Queries at ``positions`` and keys up to ``k1``, from the first on that any of them sees.

    A query at position p sees keys at positions from p - window + 1 to p, as in transformers.
    """
    import torch

    k0 = keys.start
    if window is not None:
        k0 = max(k0, keys.start + int(positions[0]) - window + 1 - keys.position)
    q = torch.from_numpy(positions).to(device)
    k = torch.arange(k0, k1, device=device) - keys.start + keys.position
    distance = q[:, None] - k[None, :]
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    mask = None if bool(seen.all()) else seen
    return Block(q0, q0 + len(positions), k0, k1, False, mask)


def flat_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    flat_layout: Layout | None = None,
    only_kept: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the form of transformers' ``AttentionInterface``.

    Args:
        query: (1, heads, queries, dim); key, value: (1, key-value heads, tokens, dim).
        sliding_window: positions that a query sees back, itself included.
        softcap: logits are ``softcap * tanh(logits / softcap)`` (Gemma 2).
        s_aux: (heads,) attention sinks: one more logit per head, without a value (GPT-OSS).
        flat_layout: the batch's segments.
        only_kept: the queries are those of the layout's kept tokens, not of all.

    Returns:
        (1, queries, heads, dim), and None for the weights.

    Raises:
        ValueError: without a layout, or with attention dropout, which this cannot do.
    """
    if flat_layout is None:
        raise ValueError("flat attention needs `flat_layout`; the batch was not made by Tunewise")
    if dropout:
        raise ValueError("flat attention has no attention dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    key, value = key.to(query.dtype), value.to(query.dtype)
    if _CALLS is not None:
        given = (query, key, value, s_aux, flat_layout)
        _CALLS.append(Call(*given, scale, sliding_window, softcap, only_kept))
    if flat_layout.flex:
        from tunewise.training.attention_flex import attend

        flat = (s_aux, flat_layout, scale, softcap, sliding_window)
        return attend(query, key, value, *flat, only_kept=only_kept), None
    plan = flat_layout.plan(sliding_window, query.device, only_kept=only_kept)
    out = _function().apply(query, key, value, s_aux, plan, scale, softcap)
    return out, None


@dataclass(frozen=True, slots=True)
class Call:
    """What one layer has handed to ``flat_attention``; see there."""

    query: Tensor
    key: Tensor
    value: Tensor
    sinks: Tensor | None
    layout: Layout
    scale: float
    window: int | None
    softcap: float | None
    only_kept: bool


@contextlib.contextmanager
def recorded() -> Iterator[list[Call]]:
    """What comes to ``flat_attention`` meanwhile, in order."""
    global _CALLS
    calls: list[Call] = []
    _CALLS = calls
    try:
        yield calls
    finally:
        _CALLS = None


_CALLS: list[Call] | None = None


def register() -> None:
    """Make the attention known to transformers under ``NAME``; harmless when done twice."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, flat_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    """The layout says who sees whom; a mask tensor is never built."""
    return None


def _function() -> Any:
    """The autograd function; made on first use, since defining it needs torch."""
    global _FLAT
    if _FLAT is None:
        from tunewise.training.attention_blocks import FlatAttention

        _FLAT = FlatAttention
    return _FLAT


_FLAT: Any = None
