"""Attention over a prefix that a whole batch shares, without copying it for each row.

The keys and values of the shared prefix exist once, with batch size one. All rows' queries meet
them in one matrix product; each row's own tokens are attended to as usual; one softmax spans both
parts, so the result is exact (the split of Hydragen, 2402.05099). Registered through transformers'
``AttentionInterface``; the prefix travels as an argument of the model's forward, never as a global.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

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
        keys, values: per layer, shape ``[1, key-value heads, tokens, head size]``.
        length: tokens.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        return int(self.keys[0].shape[2]) if self.keys else 0


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values of the rows' own tokens, in a buffer that grows by steps.

    The stock dynamic layer copies everything at each token; here a token is written in its place.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states[:, :, :0]
        self.values = value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.keys.shape[2]:
            self.keys = _enlarged(self.keys, start, self.length + _GROW)
            self.values = _enlarged(self.values, start, self.length + _GROW)
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch."""
        self.keys = self.keys.index_select(0, rows)
        self.values = self.values.index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


def _enlarged(tensor: torch.Tensor, used: int, capacity: int) -> torch.Tensor:
    batch, heads, _, size = tensor.shape
    larger = tensor.new_empty((batch, heads, capacity, size))
    larger[:, :, :used] = tensor[:, :, :used]
    return larger


class OwnTokens(Cache):
    """The cache of what the rows of a batch do not share."""

    def __init__(self, layers: int) -> None:
        self._own = [_Layer() for _ in range(layers)]
        super().__init__(layers=list(self._own))

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch."""
        for layer in self._own:
            layer.select(rows)

    def after(self, prefix: PrefixCache | None) -> PrefixCache:
        """The prefix made of ``prefix`` and the tokens of this cache, whose batch is one row."""
        keys = [layer.keys[:, :, : layer.length] for layer in self._own]
        values = [layer.values[:, :, : layer.length] for layer in self._own]
        if prefix is not None:
            keys = [torch.cat(pair, dim=2) for pair in zip(prefix.keys, keys, strict=True)]
            values = [torch.cat(pair, dim=2) for pair in zip(prefix.values, values, strict=True)]
        return PrefixCache(
            tuple(k.contiguous() for k in keys), tuple(v.contiguous() for v in values)
        )


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    shared_prefix: PrefixCache | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a batch over ``shared_prefix`` and each row's own tokens.

    Shapes: query ``[batch, heads, q, size]``; key, value ``[batch, key-value heads, own, size]``;
    ``attention_mask`` is additive over the own tokens, ``[batch, 1, q, own]``. Returns
    ``[batch, q, heads, size]``. Without a prefix it is plain scaled dot-product attention.
    """
    if shared_prefix is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    prefix_key, prefix_value = shared_prefix.keys[layer], shared_prefix.values[layer]
    batch, heads, length, _ = query.shape
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    columns = prefix_key.shape[2] + key.shape[2]
    step = max(1, _SCORES // (batch * heads * columns))
    parts = [
        _join(
            query[:, :, i : i + step] * scale,
            key,
            value,
            attention_mask[:, :, i : i + step] if attention_mask is not None else None,
            prefix_key,
            prefix_value,
        )
        for i in range(0, length, step)
    ]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return joined.transpose(1, 2).contiguous(), None


def _join(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    prefix_key: torch.Tensor,
    prefix_value: torch.Tensor,
) -> torch.Tensor:
    batch, heads, length, size = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    grouped = query.reshape(batch, kv_heads, group * length, size)

    # One product for all rows: [kv heads, batch * group * q, prefix].
    flat = grouped.transpose(0, 1).reshape(kv_heads, batch * group * length, size)
    shared = torch.matmul(flat, prefix_key[0].transpose(1, 2)).float()
    own = torch.matmul(grouped, key.transpose(2, 3)).float()
    if mask is not None:
        own = (own.view(batch, kv_heads, group, length, -1) + mask[:, :, None]).view(own.shape)

    def by_row(part: torch.Tensor) -> torch.Tensor:
        return part.view(kv_heads, batch, group * length, -1).transpose(0, 1)

    # One softmax over both parts: a common maximum, a common denominator.
    largest = torch.maximum(by_row(shared.amax(-1, keepdim=True)), own.amax(-1, keepdim=True))
    shared.sub_(largest.transpose(0, 1).reshape(*flat.shape[:2], 1)).exp_()
    own.sub_(largest).exp_()
    total = by_row(shared.sum(-1, keepdim=True)) + own.sum(-1, keepdim=True)
    result = by_row(torch.matmul(shared.to(value.dtype), prefix_value[0]))
    result = result + torch.matmul(own.to(value.dtype), value)
    return (result / total.to(value.dtype)).reshape(batch, heads, length, size)


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)


def additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``[batch, q, own]`` of booleans as an additive mask ``[batch, 1, q, own]``."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min).unsqueeze(1)


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
