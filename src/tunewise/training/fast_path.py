"""Whether a model may take the fast path: an allow-list by layer, then a probe of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunewise.training import attention
from tunewise.training.batches import flatten, sort_rows
from tunewise.training.rows import EncodedRow
from tunewise.training.setup import Setup

# Decoder layers whose only mixing between tokens is softmax attention through transformers'
# AttentionInterface. A layer that mixes otherwise (linear attention, convolutions) would see the
# other rows of a flat batch and be silently wrong.
ALLOWED = {
    "Gemma2DecoderLayer",
    "Gemma3DecoderLayer",
    "GptOssDecoderLayer",
    "LlamaDecoderLayer",
    "MistralDecoderLayer",
    "MixtralDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen3DecoderLayer",
    "Qwen3MoeDecoderLayer",
}
# Rotary scalings that depend on the longest position of the batch, so that rows are not apart.
_ROPE_BY_LENGTH = {"dynamic", "longrope"}


def why_not(causal: Any) -> str | None:
    """Why this model cannot take the fast path by what it is made of; None if it can."""
    try:
        layers = list(causal.get_decoder().layers)
    except AttributeError:
        return "its decoder has no list of layers"
    for layer in layers:
        kind = type(layer)
        if kind.__name__ not in ALLOWED or not kind.__module__.startswith("transformers.models."):
            return f"layers of type {kind.__name__} are not on the list of those that were tested"
        dropout = getattr(layer.self_attn, "attention_dropout", 0.0)
        if dropout:
            return "it uses dropout inside attention"
    config = causal.config.get_text_config(decoder=True)
    if getattr(config, "use_bidirectional_attention", False):
        return "its attention looks ahead"
    if not _rope_kinds(config).isdisjoint(_ROPE_BY_LENGTH):
        return "its rotary positions depend on the longest row"
    if getattr(config, "output_router_logits", False):
        return "the router's auxiliary loss counts shared tokens once"
    return None


def _rope_kinds(config: Any) -> set[str]:
    parameters = getattr(config, "rope_parameters", None) or {}
    several = [v for v in parameters.values() if isinstance(v, dict)]
    return {str(p.get("rope_type", "default")) for p in [parameters, *several]}


def enable(setup: Setup, rows: Sequence[EncodedRow]) -> str | None:
    """Turn the fast path on where it is allowed and proven; else say why not.

    Args:
        rows: some of the training rows, for the probe.

    Returns:
        None when it is on, otherwise the reason for the plain path.
    """
    reason = why_not(setup.causal)
    if reason is not None:
        return reason
    attention.register()
    difference, scale = probe(setup, rows)
    low = setup.causal.dtype in (torch.bfloat16, torch.float16)
    # Rounding differs in the last bits; a row that sees another one differs by orders more.
    if not difference <= (0.1 if low else 2e-3) * max(scale, 1e-3):
        setup.causal.set_attn_implementation(setup.stock_attention)
        return (
            f"the probe's hidden states differ by {difference:.2g} (of {scale:.2g}) from one row "
            "at a time"
        )
    setup.causal.set_attn_implementation(attention.NAME)
    setup.flat = True
    return None


def probe(setup: Setup, rows: Sequence[EncodedRow]) -> tuple[float, float]:
    """Compare a flat batch with stock attention on one row at a time.

    Returns:
        The largest difference of the last hidden states, and their largest magnitude. The flat
        attention is left switched on.
    """
    from tunewise.training.rows import EncodedRow as Row

    chosen = [Row(r.id, r.ids[:512], r.weights[:512]) for r in sort_rows(list(rows)[:64])[:4]]
    decoder = setup.causal.get_decoder()
    was_training = setup.outer.training
    setup.outer.eval()
    device = setup.causal.device

    def hidden(ids: Any, positions: Any, **options: Any) -> torch.Tensor:
        out = decoder(
            input_ids=torch.as_tensor(ids, dtype=torch.long, device=device)[None],
            position_ids=torch.as_tensor(positions, dtype=torch.long, device=device)[None],
            use_cache=False,
            **options,
        )
        return out.last_hidden_state[0].float()  # type: ignore[no-any-return]

    try:
        with torch.no_grad():
            setup.causal.set_attn_implementation(setup.stock_attention)
            alone = [hidden(r.ids, list(range(len(r.ids)))) for r in chosen]
            setup.causal.set_attn_implementation(attention.NAME)
            batch = flatten(chosen, min_shared=1)
            flat = hidden(batch.ids, batch.positions, flat_layout=batch.layout)
    finally:
        setup.outer.train(was_training)
    difference = scale = 0.0
    for number, expected in enumerate(alone):
        got = flat[torch.from_numpy(batch.place_of(number))]
        difference = max(difference, float((got - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    return difference, scale
