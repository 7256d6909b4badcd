"""Decoder layers of a flat batch in fewer, larger operations.

Each takes the modules of a layer of transformers and computes what its ``forward`` computes, with
the operations of ``fused_ops`` and ``lora_linear``. In the last layer only keys and values are
computed for all tokens; the rest, for those whose hidden states are wanted. Without a flat batch
the layer's own ``forward`` runs.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from tunewise.training import lora_linear
from tunewise.training.attention import Layout, flat_attention
from tunewise.training.fused_ops import GatedMlp, RmsNorm, Rotary

# By the class of a layer's norms, what is added to their weight. What else differs between the
# layers of the fast path's allow-list shows in which modules they have.
_NORMS = {
    "Gemma2RMSNorm": 1.0,
    "Gemma3RMSNorm": 1.0,
    "GptOssRMSNorm": 0.0,
    "LlamaRMSNorm": 0.0,
    "MistralRMSNorm": 0.0,
    "MixtralRMSNorm": 0.0,
    "Qwen2RMSNorm": 0.0,
    "Qwen3MoeRMSNorm": 0.0,
    "Qwen3RMSNorm": 0.0,
}
_GATED_MLPS = {
    "Gemma2MLP",
    "Gemma3MLP",
    "LlamaMLP",
    "MistralMLP",
    "Qwen2MLP",
    "Qwen3MLP",
    "Qwen3MoeMLP",
}
_ACTIVATIONS = {"SiLUActivation": "silu", "SiLU": "silu", "GELUTanh": "gelu_tanh"}


def fuse(decoder: Any) -> None:
    """Let a decoder's layers compute flat batches this way; ``undo`` takes it back.

    Args:
        decoder: with ``layers`` whose classes are on the fast path's allow-list.
    """
    layers = list(decoder.layers)
    for layer in layers:
        layer.forward = _FusedLayer(layer, last=layer is layers[-1])


def undo(decoder: Any) -> None:
    """Take ``fuse`` back."""
    for layer in decoder.layers:
        if isinstance(layer.__dict__.get("forward"), _FusedLayer):
            del layer.forward


class _FusedLayer:
    """Replaces one layer's ``forward``."""

    def __init__(self, layer: Any, *, last: bool) -> None:
        self._layer, self._stock, self._last = layer, layer.forward, last
        # Gemma's layers have norms after attention and feed-forward too.
        self._sandwich = hasattr(layer, "pre_feedforward_layernorm")

    def __call__(
        self,
        hidden_states: Tensor,
        *args: Any,
        flat_layout: Layout | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        if flat_layout is None or position_embeddings is None:
            stock: Tensor = self._stock(
                hidden_states, *args, position_embeddings=position_embeddings, **options
            )
            return stock
        layer = self._layer
        if layer.gradient_checkpointing and layer.training:  # as the class's own ``forward`` does
            compute = functools.partial(self._compute, flat_layout, position_embeddings)
            out: Tensor = layer._gradient_checkpointing_func(compute, hidden_states)
            return out
        return self._compute(flat_layout, position_embeddings, hidden_states)

    def _compute(self, layout: Layout, embeddings: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """(1, tokens, dim) -> the same, or in the last layer (1, kept tokens, dim)."""
        layer = self._layer
        kept = None
        if self._last and layout.kept is not None:
            kept = torch.from_numpy(layout.kept).to(x.device)
        normed = _norm(layer.input_layernorm, x)
        mixed = _attention(layer.self_attn, normed, embeddings, layout, kept)
        residual = x if kept is None else x[:, kept]
        if not self._sandwich:
            residual = residual + mixed
            return residual + _mlp(layer.mlp, _norm(layer.post_attention_layernorm, residual))
        residual = residual + _norm(layer.post_attention_layernorm, mixed)
        inner = _mlp(layer.mlp, _norm(layer.pre_feedforward_layernorm, residual))
        return residual + _norm(layer.post_feedforward_layernorm, inner)


def _attention(
    module: Any,
    x: Tensor,
    embeddings: tuple[Tensor, Tensor],
    layout: Layout,
    kept: Tensor | None,
) -> Tensor:
    """(1, tokens, dim) -> (1, queries, dim)."""
    if kept is None:
        projected = lora_linear.together(x, [module.q_proj, module.k_proj, module.v_proj])
    else:
        at_kept = lora_linear.together(x[:, kept], [module.q_proj])
        projected = (*at_kept, *lora_linear.together(x, [module.k_proj, module.v_proj]))
    query, key, value = (p.view(1, p.shape[1], -1, module.head_dim) for p in projected)
    if hasattr(module, "q_norm"):
        query, key = _norm(module.q_norm, query), _norm(module.k_norm, key)
    cos, sin = embeddings
    if 2 * cos.shape[-1] == module.head_dim:  # GPT-OSS gives one half, since both are equal
        cos, sin = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
    at = (cos, sin) if kept is None else (cos[:, kept], sin[:, kept])
    mixed, _ = flat_attention(
        module,
        _rotary(query, *at).transpose(1, 2),
        _rotary(key, cos, sin).transpose(1, 2),
        value.transpose(1, 2),
        None,
        scaling=module.scaling,
        sliding_window=_window(module),
        softcap=getattr(module, "attn_logit_softcapping", None),
        s_aux=getattr(module, "sinks", None),
        flat_layout=layout,
        only_kept=kept is not None,
    )
    (out,) = lora_linear.together(mixed.reshape(1, mixed.shape[1], -1), [module.o_proj])
    return out


def _window(module: Any) -> int | None:
    # Mistral's and Mixtral's attention read it from the configuration.
    source = module if hasattr(module, "sliding_window") else module.config
    window: int | None = getattr(source, "sliding_window", None)
    return window


def _mlp(module: Any, x: Tensor) -> Tensor:
    if type(module).__name__ in _GATED_MLPS:
        activation = _ACTIVATIONS.get(type(module.act_fn).__name__)
        lora = lora_linear.fused([module.gate_proj, module.up_proj, module.down_proj])
        if activation is not None and lora is not None:
            scalings = tuple(layer.scaling for layer in lora)
            fused: Tensor = GatedMlp.apply(  # type: ignore[no-untyped-call]
                x, activation, scalings, *lora_linear.flattened(lora)
            )
            return fused
    found = module(x)
    # GPT-OSS adds its router's scores.
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out


def _norm(module: Any, x: Tensor) -> Tensor:
    offset = _NORMS.get(type(module).__name__)
    if offset is None:
        plain: Tensor = module(x)
        return plain
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    scale = module.weight + offset if offset else module.weight
    out: Tensor = RmsNorm.apply(x, scale, eps)  # type: ignore[no-untyped-call]
    return out


def _rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    out: Tensor = Rotary.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out
