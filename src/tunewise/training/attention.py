"""Attention over a flat batch: a forest of token segments in one row, without any padding.

A segment attends to its ancestors and, causally, to itself. The work is a list of rectangular
*blocks* (queries, keys). Each block is computed by itself, and the blocks of a query are joined
through their log-sum-exp, as in FlashAttention (Dao et al., 2205.14135) and cascade inference.
Given the joined output and log-sum-exp, the backward pass of each block gives its exact share of
the gradients, so a shared prefix costs one block for all rows that follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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
    """Queries ``q0:q1`` attend to keys ``k0:k1``: causally (on the diagonal) or under ``mask``."""

    q0: int
    q1: int
    k0: int
    k1: int
    causal: bool
    mask: Tensor | None = None


@dataclass
class Layout:
    """Where the segments of one flat batch lie; passed through the model as a keyword argument."""

    segments: Sequence[Segment]
    tokens: int
    _plans: dict[int | None, list[Block]] = field(default_factory=dict, repr=False)

    def plan(self, window: int | None, device: torch.device) -> list[Block]:
        """The blocks for layers that see ``window`` positions back (None: all).

        The diagonal blocks come first and cover every token once.
        """
        if window not in self._plans:
            self._plans[window] = (
                _blocks_unlimited(self.segments)
                if window is None
                or all(s.position + s.end - s.start <= window for s in self.segments)
                else _blocks_windowed(self.segments, window, device)
            )
        return self._plans[window]


def _blocks_unlimited(segments: Sequence[Segment]) -> list[Block]:
    own = [Block(s.start, s.end, s.start, s.end, True) for s in segments if s.end > s.start]
    shared = [
        Block(s.end, s.subtree_end, s.start, s.end, False)
        for s in segments
        if s.end > s.start and s.subtree_end > s.end
    ]
    return own + shared


def _blocks_windowed(segments: Sequence[Segment], window: int, device: torch.device) -> list[Block]:
    own, shared = [], []
    for index, segment in enumerate(segments):
        if segment.end == segment.start:
            continue
        own.append(_windowed(segment, segment, window, device))
        other = segments[index].parent
        while other >= 0:
            ancestor = segments[other]
            # Distance from the first query to the last key decides whether they meet at all.
            if segment.position - (ancestor.position + ancestor.end - ancestor.start - 1) < window:
                if ancestor.end > ancestor.start:
                    shared.append(_windowed(segment, ancestor, window, device))
                other = ancestor.parent
            else:
                break
    return own + shared


def _windowed(queries: Segment, keys: Segment, window: int, device: torch.device) -> Block:
    """The block of two segments, cut to the queries and keys that can meet, by position.

    A query at position p sees keys at positions > p - window, as in transformers' masks.
    """
    import torch

    causal = queries is keys
    length = keys.end - keys.start
    if causal and length <= window:
        return Block(queries.start, queries.end, keys.start, keys.end, True)
    last_key = keys.position + length - 1
    q1 = (
        queries.end
        if causal
        else min(queries.end, queries.start + last_key + window - queries.position)
    )
    k0 = (
        keys.start
        if causal
        else max(keys.start, keys.start + queries.position - window + 1 - keys.position)
    )
    q = torch.arange(queries.position, queries.position + q1 - queries.start, device=device)
    k = torch.arange(keys.position + k0 - keys.start, last_key + 1, device=device)
    distance = q[:, None] - k[None, :]
    seen = distance < window
    if causal:
        seen &= distance >= 0
    mask = None if bool(seen.all()) else seen
    return Block(queries.start, q1, k0, keys.end, False, mask)


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
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the form of transformers' ``AttentionInterface``.

    Args:
        query: (1, heads, tokens, dim); key, value: (1, key-value heads, tokens, dim).
        sliding_window: positions that a query sees back, itself included.
        softcap: logits are ``softcap * tanh(logits / softcap)`` (Gemma 2).
        s_aux: (heads,) attention sinks: one more logit per head, without a value (GPT-OSS).
        flat_layout: the batch's segments.

    Returns:
        (1, tokens, heads, dim), and None for the weights.

    Raises:
        ValueError: without a layout, or with attention dropout, which this cannot do.
    """
    if flat_layout is None:
        raise ValueError("flat attention needs `flat_layout`; the batch was not made by Tunewise")
    if dropout:
        raise ValueError("flat attention has no attention dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plan = flat_layout.plan(sliding_window, query.device)
    out = _function().apply(
        query, key.to(query.dtype), value.to(query.dtype), s_aux, plan, scale, softcap
    )
    return out, None


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
