"""Attention over a flat batch by torch's FlexAttention: one fused kernel for the whole trie.

Segments lie in depth-first order, so who sees whom needs no list of blocks. Token i sees token j if
``j <= i``, i lies before the end of what descends from j's segment, and j's position is within the
window. FlexAttention (Dong et al., 2412.05496) skips tiles of which this holds nowhere, and asks it
for single tokens only in tiles where it holds for some. Needs torch 2.9 or newer.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from tunewise.training.attention import Layout

TILE = 128
"""Queries and keys of a tile, FlexAttention's default."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    layout: Layout,
    scale: float,
    softcap: float | None,
    window: int | None,
    *,
    only_kept: bool = False,
) -> Tensor:
    """Shapes and meanings as in ``attention.flat_attention``.

    Returns:
        (1, queries, heads, value dim).

    Raises:
        NotImplementedError: a gradient is wanted on a CPU, where torch has none.
    """
    kernel = _compiled() if query.is_cuda else flex_attention
    out, aux = kernel(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(query.new_full(query.shape[1:2], softcap)),
        block_mask=block_mask(layout, window, query.device, only_kept=only_kept),
        scale=scale,
        enable_gqa=True,
        # Else short queries get the decoding kernel, and the probe would prove that one.
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
        return_aux=AuxRequest(lse=sinks is not None),
    )
    if sinks is not None:
        # A sink adds to the denominator only: out * exp(lse) / (exp(lse) + exp(sink)).
        share = torch.sigmoid(aux.lse - sinks.to(aux.lse.dtype)[None, :, None])
        out = (out * share.unsqueeze(-1)).to(query.dtype)
    flat: Tensor = out.transpose(1, 2)
    return flat


@functools.cache
def _compiled() -> Any:
    """The fused kernel, for all lengths."""
    # It is compiled anew for few and for many queries, for all or the kept, with gradients and
    # without. Beyond the limit (8) it would run uncompiled, with all logits in memory.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=True)


def _capped(cap: Tensor) -> Any:
    # A number in a closure may become a symbol, which not every kernel takes; a tensor does not.
    def score(logit: Tensor, _: Tensor, head: Tensor, __: Tensor, ___: Tensor) -> Tensor:
        return cap[head] * torch.tanh(logit / cap[head])

    return score


def block_mask(
    layout: Layout, window: int | None, device: torch.device, *, only_kept: bool = False
) -> BlockMask:
    """Which tiles of queries and keys hold what is seen; made once for all layers.

    Args:
        window: positions that a query sees back, itself included; None: all.
        only_kept: the queries are those of the layout's kept tokens.
    """
    key = (window, only_kept)
    if key not in layout.masks:
        kept = layout.kept if only_kept else None
        layout.masks[key] = _block_mask(layout, window, device, kept)
    return layout.masks[key]


def _block_mask(
    layout: Layout,
    window: int | None,
    device: torch.device,
    kept: npt.NDArray[np.int64] | None,
) -> BlockMask:
    """From the bounds of each tile: torch's ``create_block_mask`` looks at every pair of tokens."""
    segments = layout.segments
    lengths = [s.end - s.start for s in segments]
    end = np.repeat([s.subtree_end for s in segments], lengths)
    offset = np.repeat([s.position - s.start for s in segments], lengths)
    place = np.arange(layout.tokens) if kept is None else kept
    position = np.arange(layout.tokens) + offset
    oldest = np.zeros_like(place) if window is None else position[place] - window + 1

    first_key, last_key = _bounds(np.arange(layout.tokens))
    first_query, last_query = (b[:, None] for b in _bounds(place))
    first_end, last_end = _bounds(end)
    lowest, highest = _bounds(position)
    least_oldest, most_oldest = (b[:, None] for b in _bounds(oldest))
    # With queries left out, a tile may be taken for seen though no query of it lies between.
    some = (first_key <= last_query) & (first_query < last_end) & (highest >= least_oldest)
    whole = (last_key <= first_query) & (last_query < first_end) & (lowest >= most_oldest)
    # What lies beyond the end of a ragged tile must be masked away.
    whole[len(place) // TILE :] = False
    whole[:, layout.tokens // TILE :] = False

    def put(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.int32)).to(device)

    places, ends, positions, oldests = (put(a) for a in (place, end, position, oldest))

    def sees(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        at = places[query]
        return (key <= at) & (at < ends[key]) & (positions[key] >= oldests[query])

    def listed(tiles: npt.NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """How many tiles of keys each tile of queries has, and which, these first."""
        first = np.argsort(~tiles, axis=1, kind="stable")
        return put(tiles.sum(1))[None, None], put(first)[None, None]

    return BlockMask.from_kv_blocks(
        *listed(some & ~whole),
        *listed(whole),
        BLOCK_SIZE=TILE,
        mask_mod=sees,
        seq_lengths=(len(place), layout.tokens),
    )


def _bounds(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The least and the greatest of each ``TILE`` values."""
    starts = np.arange(0, len(values), TILE)
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
