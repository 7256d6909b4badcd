"""Attention of many rows over a prefix that they share, without copying it for each row.

A pass sees the new tokens of all rows as one flat row, ``[1, tokens]``: no padding enters a matrix
product of the model. The keys and values of the shared prefix exist once, and all queries meet them
in one product; each row's own tokens are attended to apart; the two results are joined by their
softmax denominators, so the result is exact (the split of Hydragen, 2402.05099). Registered through
transformers' ``AttentionInterface``; the pass travels as an argument of the model's forward, never
as a global.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend
from transformers import AttentionInterface

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "tunewise_shared_prefix"

_SCORES = 1 << 20
"""Attention scores held at once (elements); bounds the memory of long prompts in large batches."""

_GROW = 64


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Keys and values of a shared prefix, one pair a layer.

    Attributes:
        keys, values: per layer, shape ``[key-value heads, tokens, head size]``.
        length: tokens.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        return int(self.keys[0].shape[1]) if self.keys else 0


class OwnTokens:
    """Keys and values of what rows do not share; a row's tokens lie at places 0, 1, 2…

    The stock cache copies everything at each token; here a token is written in its place.
    """

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []

    def write(
        self, layer: int, key: Tensor, value: Tensor, flat: FlatPass
    ) -> tuple[Tensor, Tensor]:
        """Add a pass's keys and values; those of all rows, shape ``[rows, width, heads, size]``.

        Args:
            key, value: ``[tokens, key-value heads, head size]``.
        """
        if layer == len(self._layers):
            nothing = key.new_empty((flat.count, 0, *key.shape[1:]))
            self._layers.append((nothing, nothing))
        keys, values = self._layers[layer]
        if flat.width > keys.shape[1]:
            keys, values = _longer(keys, flat.width + _GROW), _longer(values, flat.width + _GROW)
            self._layers[layer] = keys, values
        keys[flat.rows, flat.places] = key
        values[flat.rows, flat.places] = value
        return keys[: flat.count, : flat.width], values[: flat.count, : flat.width]

    def select(self, order: Sequence[int]) -> None:
        """Make row ``order[i]`` row ``i``; where it is that already, nothing is copied."""
        moves = [(to, place) for to, place in enumerate(order) if to != place]
        if moves:
            to, place = (torch.tensor(side) for side in zip(*moves, strict=True))
            for pair in self._layers:
                for tensor in pair:
                    tensor[to.to(tensor.device)] = tensor[place.to(tensor.device)]

    def after(self, prefix: PrefixCache | None, length: int) -> PrefixCache:
        """The prefix made of ``prefix`` and the first row's ``length`` tokens."""
        keys, values = (
            [pair[side][0, :length].transpose(0, 1) for pair in self._layers] for side in (0, 1)
        )
        if prefix is not None:
            keys = [torch.cat(pair, dim=1) for pair in zip(prefix.keys, keys, strict=True)]
            values = [torch.cat(pair, dim=1) for pair in zip(prefix.values, values, strict=True)]
        return PrefixCache(
            tuple(k.contiguous() for k in keys), tuple(v.contiguous() for v in values)
        )


def _longer(tensor: Tensor, width: int) -> Tensor:
    # Zeros, since what is hidden is multiplied all the same, and zero times "not a number" is none.
    longer = tensor.new_zeros((tensor.shape[0], width, *tensor.shape[2:]))
    longer[:, : tensor.shape[1]] = tensor
    return longer


@dataclass(frozen=True, slots=True, eq=False)
class FlatPass:
    """Where the tokens of one pass belong.

    Attributes:
        prefix: what all rows share, or None.
        own: the rows' other tokens, those of this pass included once it is done.
        count: rows.
        rows, places: of each token, its row and its place among the row's own tokens.
        width: places that are in use.
        mask: additive, ``[rows, 1, 1, width]``, for a pass of one token a row; None for a pass
            that begins at place 0, where each token sees those before it.
    """

    prefix: PrefixCache | None
    own: OwnTokens
    count: int
    rows: Tensor
    places: Tensor
    width: int
    mask: Tensor | None = None


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    flat: FlatPass | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a flat pass over the shared prefix and each row's own tokens.

    Args:
        query: ``[1, heads, tokens, size]``; key, value: ``[1, key-value heads, tokens, size]``.
        flat: where the tokens belong.

    Returns:
        ``[1, tokens, heads, size]``, and None for the weights.

    Raises:
        ValueError: without a layout, or for attention with soft caps or sinks.
    """
    if flat is None or softcap is not None or s_aux is not None:
        raise ValueError("shared prefixes know no soft caps or sinks, and need their layout")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    tokens, kv_heads = query.shape[2], key.shape[1]
    group = query.shape[1] // kv_heads
    grouped = query[0].transpose(0, 1).reshape(tokens, kv_heads, group, -1)
    own = flat.own.write(layer, key[0].transpose(0, 1), value[0].transpose(0, 1), flat)
    attend_own = _next_tokens if flat.mask is not None else _first_tokens
    out, total = attend_own(grouped, *own, flat, scale)
    if flat.prefix is not None and total is not None:
        # As if key-value heads were the batch: all tokens meet the prefix in one matrix a head.
        before, before_total = _attend_and_sum(
            grouped.permute(1, 2, 0, 3),
            flat.prefix.keys[layer][:, None].expand(-1, group, -1, -1),
            flat.prefix.values[layer][:, None].expand(-1, group, -1, -1),
            scale,
        )
        weight = torch.sigmoid(before_total.permute(2, 0, 1) - total).unsqueeze(-1)
        out = torch.lerp(out.float(), before.permute(2, 0, 1, 3).float(), weight).to(query.dtype)
    return out.reshape(1, tokens, query.shape[1], -1), None


def _next_tokens(
    query: Tensor, keys: Tensor, values: Tensor, flat: FlatPass, scale: float
) -> tuple[Tensor, Tensor | None]:
    """One token a row: the queries of a group share keys, so they stand as one short matrix.

    Shapes: query ``[tokens, key-value heads, group, size]``. Returns what comes out in the same
    shape, and the sums of ``_attend_and_sum`` where there is a prefix to join.
    """
    parts = (query, keys.transpose(1, 2), values.transpose(1, 2))
    if flat.prefix is None:
        return attend(*parts, attn_mask=flat.mask, scale=scale), None
    return _attend_and_sum(*parts, scale, flat.mask)


def _first_tokens(
    query: Tensor, keys: Tensor, values: Tensor, flat: FlatPass, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Whole prompts: padded at their ends here alone, where causality hides the padding.

    Shapes as in ``_next_tokens``.
    """
    group = query.shape[2]
    padded = query.new_zeros((flat.count, flat.width, *query.shape[1:]))
    padded[flat.rows, flat.places] = query
    # One head of keys a query head, as torch's own attention does for grouped queries.
    parts = (
        padded.flatten(2, 3).transpose(1, 2),
        keys.repeat_interleave(group, 2).transpose(1, 2),
        values.repeat_interleave(group, 2).transpose(1, 2),
    )
    if flat.prefix is None:
        out, total = attend(*parts, is_causal=True, scale=scale), None
    else:
        out, sums = _attend_and_sum(*parts, scale, causal=True)
        total = sums.transpose(1, 2)[flat.rows, flat.places].view(query.shape[:3])
    return out.transpose(1, 2)[flat.rows, flat.places].view(query.shape), total


def _attend_and_sum(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of each query's softmax denominator in float32.

    Shapes: ``[batch, heads, queries or keys, size]``; the sums ``[batch, heads, queries]``.
    """
    if query.device.type == "cpu":
        # What scaled_dot_product_attention calls; by that name it keeps the sums to itself.
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, total = flash(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
        return out, total
    return _by_definition(query, key, value, scale, mask, causal)


def _by_definition(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """``_attend_and_sum`` in plain products, a stretch of queries at a time."""
    batch, heads, length, _ = query.shape
    columns = torch.arange(key.shape[2], device=query.device)
    outs, totals = [], []
    step = max(1, _SCORES // (batch * heads * key.shape[2]))
    for start in range(0, length, step):
        scores = ((query[:, :, start : start + step] * scale) @ key.transpose(2, 3)).float()
        if mask is not None:
            scores += mask
        if causal:
            places = torch.arange(start, start + scores.shape[2], device=query.device)
            scores.masked_fill_(columns > places[:, None], -torch.inf)
        total = scores.logsumexp(-1, keepdim=True)
        outs.append(scores.sub_(total).exp_().to(value.dtype) @ value)
        totals.append(total.squeeze(-1))
    return torch.cat(outs, dim=2), torch.cat(totals, dim=2)


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)


def window(model: PreTrainedModel) -> int | None:
    """Longest conversation (tokens) for which every layer sees everything before it.

    None stands for "no limit"; 0 where the layers are of a kind that cannot share a prefix.
    """
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type")} | {
        r.get("rope_type") for r in rope.values() if isinstance(r, dict)
    }
    if kinds & {"dynamic", "longrope"}:
        return 0  # the rotation depends on the total length, so a prefix alone rotates differently
    layers = set(getattr(config, "layer_types", None) or ())
    if not layers <= {"full_attention", "sliding_attention"}:
        return 0
    size = getattr(config, "sliding_window", None)
    uses = "sliding_attention" in layers or (not layers and size)
    return int(size) if uses and size else None
