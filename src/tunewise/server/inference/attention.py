"""Attention over a flat pass of many requests: each token meets its own request's keys and values.

The pass sees one row of tokens, ``[1, tokens]``, without padding. Everything in a transformer works
on each token alone but attention, which here takes each request's tokens to where its keys and
values lie (as in Orca's selective batching and in vLLM). It is registered through transformers'
``AttentionInterface``, so that a model's own code can stay in charge of all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "tunewise_ragged"


@dataclass(slots=True, eq=False)
class Decoding:
    """Tokens ``start:end``, one for each row of an arena; ``places`` is where they go."""

    start: int
    end: int
    data: Tensor
    slots: Tensor
    places: Tensor
    width: int
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive, ``[rows, 1, 1, width]``."""
        if window not in self.masks:
            columns = torch.arange(self.width, device=self.places.device)
            hidden = columns > self.places[:, None]
            if window is not None:
                hidden |= columns <= self.places[:, None] - window
            self.masks[window] = _additive(hidden, dtype)[:, None, None]
        return self.masks[window]


@dataclass(slots=True, eq=False)
class Stretch:
    """Tokens ``start:end`` of one prompt, after ``before`` others that lie in ``data``."""

    start: int
    end: int
    data: Tensor | None
    before: int
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, like: Tensor) -> Tensor | None:
        """Additive, ``[tokens, before + tokens]``; None for the plain causal one."""
        if window not in self.masks:
            length = self.end - self.start
            if not self.before and (window is None or length <= window):
                self.masks[window] = None
            else:
                queries = torch.arange(self.before, self.before + length, device=like.device)
                columns = torch.arange(self.before + length, device=like.device)
                hidden = columns > queries[:, None]
                if window is not None:
                    hidden |= columns <= queries[:, None] - window
                self.masks[window] = _additive(hidden, like.dtype)
        return self.masks[window]


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, -torch.inf)


@dataclass(slots=True, eq=False)
class Ragged:
    """Where the tokens of a pass belong; travels through the model as a keyword argument."""

    decoding: list[Decoding]
    stretches: list[Stretch]


def attend_ragged(
    layer: int,
    query: Tensor,
    new: Tensor,
    ragged: Ragged,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Put the new keys and values in their places, and let every token see its own.

    Args:
        query: ``[tokens, heads, size]``.
        new: the tokens' keys and values, ``[tokens, 2, key-value heads, size]``.
        window: positions that a query sees back, itself included.

    Returns:
        ``[tokens, heads, size]``.
    """
    heads, kv_heads = query.shape[1], new.shape[2]
    parts: list[Tensor] = []
    for batch in ragged.decoding:
        data = batch.data[layer]
        data[:, batch.slots, :, batch.places] = new[batch.start : batch.end]
        rows = batch.end - batch.start
        # The queries of a group share keys: one matrix a key-value head, not one a query.
        out = attend(
            query[batch.start : batch.end].reshape(rows, kv_heads, heads // kv_heads, -1),
            data[0, :rows, :, : batch.width],
            data[1, :rows, :, : batch.width],
            attn_mask=batch.mask(window, query.dtype),
            scale=scale,
        )
        parts.append(out.reshape(rows, heads, -1))
    for part in ragged.stretches:
        own = new[part.start : part.end].permute(1, 2, 0, 3)
        keys, values = own[0], own[1]
        if part.data is not None:
            end = part.before + part.end - part.start
            data = part.data[layer]
            data[:, :, part.before : end] = own
            keys, values = data[0, :, :end], data[1, :, :end]
        mask = part.mask(window, query)
        out = attend(
            query[None, part.start : part.end].transpose(1, 2),
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=heads != kv_heads,
        )
        parts.append(out[0].transpose(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def ragged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    ragged: Ragged | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """``attend_ragged`` in the form of transformers' ``AttentionInterface``.

    Args:
        query: ``[1, heads, tokens, size]``; key, value: ``[1, key-value heads, tokens, size]``.
        ragged: where the tokens belong.

    Returns:
        ``[1, tokens, heads, size]``, and None for the weights.

    Raises:
        ValueError: without a layout, or for attention with soft caps or sinks.
    """
    if ragged is None or softcap is not None or s_aux is not None:
        raise ValueError("ragged attention knows no soft caps or sinks, and needs its layout")
    new = torch.stack((key[0], value[0])).permute(2, 0, 1, 3)
    layer = int(module.layer_idx)
    out = attend_ragged(layer, query[0].transpose(0, 1), new, ragged, scaling, sliding_window)
    return out.unsqueeze(0), None


def _no_mask(*_: Any, **__: Any) -> None:
    """The layout says who sees whom."""


AttentionInterface.register(NAME, ragged_attention)
AttentionMaskInterface.register(NAME, _no_mask)
