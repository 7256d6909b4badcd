"""A flat pass through a model: by transformers' own code, or, for Llama's kin, in fewer steps.

A small model's pass takes longer to arrange than to compute. ``DirectForward`` makes one product of
the three projections of attention and one of the two of the gate, adds residuals inside products,
and rotates in place: a third less time in all for 2.6M parameters on a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm

from tunewise.server.inference.attention import NAME, Ragged, attend_ragged
from tunewise.server.inference.lora import AdapterLinear, AdapterTable

_KIN = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
"""Models of this very plan; Qwen 3 also has norms on queries and keys."""


class Forward(Protocol):
    """One pass over ``[tokens]`` ids at ``[tokens]`` positions."""

    def hidden(self, ids: Tensor, positions: Tensor, ragged: Ragged) -> Tensor:
        """The last hidden states, ``[tokens, hidden]``."""

    def logits(self, ids: Tensor, positions: Tensor, ragged: Ragged, wanted: Tensor) -> Tensor:
        """Logits after the tokens ``wanted``, ``[wanted, vocabulary]``."""


class OwnForward:
    """The model's own forward, with ragged attention switched on for good."""

    def __init__(self, model: Any) -> None:
        self._model = model
        model.set_attn_implementation(NAME)

    def hidden(self, ids: Tensor, positions: Tensor, ragged: Ragged) -> Tensor:
        """See ``Forward.hidden``."""
        out = self._model.get_decoder()(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, ragged=ragged
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def logits(self, ids: Tensor, positions: Tensor, ragged: Ragged, wanted: Tensor) -> Tensor:
        """See ``Forward.logits``."""
        out = self._model(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=wanted,
            ragged=ragged,
        )
        logits: Tensor = out.logits[0]
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """What one layer is made of; ``qkv`` and ``gate_up`` are several weights as one."""

    attention: Any
    mlp: Any
    norms: tuple[Tensor, Tensor]
    query_norm: Tensor | None
    key_norm: Tensor | None
    qkv: Tensor
    qkv_bias: Tensor | None
    gate_up: Tensor
    window: int | None


class DirectForward:
    """Llama's kin without detours. Adapters take their layers one by one.

    Args:
        model: opened for adapters (``adapters.open_layers``).
        table: of its adapters.

    Raises:
        ValueError: the model is not of this kind.
    """

    def __init__(self, model: Any, table: AdapterTable) -> None:
        config = model.config
        if type(model).__name__ not in _KIN or config.hidden_act != "silu":
            raise ValueError("not one of Llama's kin")
        self._model, self._body, self._table = model, model.model, table
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._eps = float(config.rms_norm_eps)
        everywhere = config.sliding_window if config.model_type == "mistral" else None
        self._layers = [self._layer(layer, everywhere) for layer in self._body.layers]

    def _layer(self, layer: Any, window: int | None) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        if any(type(p) is not AdapterLinear for p in (*projections, attention.o_proj)):
            raise ValueError("its projections are no plain linear layers")
        biases = [p.bias for p in projections]
        return _Layer(
            attention=attention,
            mlp=mlp,
            norms=(layer.input_layernorm.weight, layer.post_attention_layernorm.weight),
            query_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
            key_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
            qkv=_together(projections),
            qkv_bias=torch.cat(biases) if biases[0] is not None else None,
            gate_up=_together((mlp.gate_proj, mlp.up_proj)),
            window=getattr(attention, "sliding_window", None) or window,
        )

    def logits(self, ids: Tensor, positions: Tensor, ragged: Ragged, wanted: Tensor) -> Tensor:
        """See ``Forward.logits``."""
        hidden = self._run(ids, positions, ragged)
        if len(wanted) != len(ids):
            hidden = hidden[wanted]
        logits: Tensor = self._model.lm_head(self._norm(hidden, self._body.norm.weight))
        return logits

    def hidden(self, ids: Tensor, positions: Tensor, ragged: Ragged) -> Tensor:
        """See ``Forward.hidden``."""
        return self._norm(self._run(ids, positions, ragged), self._body.norm.weight)

    def _run(self, ids: Tensor, positions: Tensor, ragged: Ragged) -> Tensor:
        x: Tensor = self._body.embed_tokens(ids)
        cosine, sine = self._body.rotary_emb(x, positions[None])
        cosine, sine = cosine[0][:, None], sine[0][:, None].clone()
        sine[..., : sine.shape[-1] // 2].neg_()  # of the half that turns away
        adapted = self._table.plan is not None
        for number, layer in enumerate(self._layers):
            attention, mlp = layer.attention, layer.mlp
            h = self._norm(x, layer.norms[0])
            if adapted:
                each = (attention.q_proj(h), attention.k_proj(h), attention.v_proj(h))
                mixed = torch.cat(each, dim=-1)
            else:
                mixed = linear(h, layer.qkv, layer.qkv_bias)
            seen = self._attend(number, layer, mixed, cosine, sine, ragged)
            x = _added(x, seen, attention.o_proj, adapted)
            h = self._norm(x, layer.norms[1])
            if adapted:
                gate, up = mlp.gate_proj(h), mlp.up_proj(h)
            else:
                gate, up = linear(h, layer.gate_up).chunk(2, dim=-1)
            x = _added(x, torch.nn.functional.silu(gate).mul_(up), mlp.down_proj, adapted)
        return x

    def _attend(
        self,
        number: int,
        layer: _Layer,
        mixed: Tensor,
        cosine: Tensor,
        sine: Tensor,
        ragged: Ragged,
    ) -> Tensor:
        heads, kv_heads = self._heads, self._kv_heads
        mixed = mixed.view(mixed.shape[0], heads + 2 * kv_heads, -1)
        turning = mixed[:, : heads + kv_heads]
        size = mixed.shape[-1]
        if layer.query_norm is not None and layer.key_norm is not None:
            turning[:, :heads] = self._norm(turning[:, :heads], layer.query_norm)
            turning[:, heads:] = self._norm(turning[:, heads:], layer.key_norm)
        torch.addcmul(turning * cosine, turning.roll(size // 2, -1), sine, out=turning)
        out = attend_ragged(
            number,
            mixed[:, :heads],
            mixed[:, heads:].view(mixed.shape[0], 2, kv_heads, size),
            ragged,
            layer.attention.scaling,
            layer.window,
        )
        return out.reshape(out.shape[0], -1)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight.shape, weight, self._eps)


def _added(x: Tensor, by: Tensor, layer: AdapterLinear, adapted: bool) -> Tensor:
    """``x + layer(by)``."""
    if adapted or layer.bias is not None:
        out: Tensor = x + layer(by)
        return out
    return torch.addmm(x, by, layer.weight.T)


def _together(layers: tuple[AdapterLinear, ...]) -> Tensor:
    """The layers' weights as one; each layer's own is a part of it then."""
    with torch.inference_mode(False), torch.no_grad():
        joined = torch.cat([layer.weight for layer in layers])
        at = 0
        for layer in layers:
            layer.weight.data = joined[at : at + layer.out_features]
            at += layer.out_features
    return joined
