"""Whether a model may take the fast path: an allow-list by layer, then a probe of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tunewise.training import attention, fused_layers
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
    for fused in (True, False):
        turn_on(setup, fused=fused)
        reason = _differs(setup, rows)
        if reason is None:
            return None
    turn_off(setup)
    return reason


def turn_on(setup: Setup, *, fused: bool) -> None:
    """Compute flat batches, unproven.

    Args:
        fused: by ``fused_layers``; otherwise by the layers' own ``forward``.
    """
    attention.register()
    setup.causal.set_attn_implementation(attention.NAME)
    setup.flat, setup.fused = True, fused
    fused_layers.undo(setup.decoder)
    if fused:
        fused_layers.fuse(setup.decoder)


def turn_off(setup: Setup) -> None:
    """Back to one row at a time, by the model's own attention."""
    setup.causal.set_attn_implementation(setup.stock_attention)
    setup.flat = setup.fused = False
    fused_layers.undo(setup.decoder)


def _differs(setup: Setup, rows: Sequence[EncodedRow]) -> str | None:
    """What the probe found; None if rounding explains it."""
    try:
        difference, scale = probe(setup, rows)
    except Exception as error:  # modules that another release of transformers has not, or renamed
        return f"the probe failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    low = setup.causal.dtype in (torch.bfloat16, torch.float16)
    # Rounding differs in the last bits; a row that sees another one differs by orders more.
    if difference <= (0.1 if low else 2e-3) * max(scale, 1e-3):
        return None
    return (
        f"the probe's hidden states differ by {difference:.2g} (of {scale:.2g}) from one row "
        "at a time"
    )


def few_short(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """A few neighbours among the first rows, cut short: enough to tell two computations apart."""
    neighbours = sort_rows(list(rows)[:64])[:4]
    return [EncodedRow(r.id, r.ids[:512], r.weights[:512]) for r in neighbours]


def probe(setup: Setup, rows: Sequence[EncodedRow]) -> tuple[float, float]:
    """Compare a flat batch, once turned on, with stock attention on one row at a time.

    Returns:
        The largest difference of the last hidden states, and their largest magnitude.
    """
    chosen = few_short(rows)
    decoder = setup.causal.get_decoder()
    was_training = setup.outer.training
    setup.outer.eval()

    def alone(row: EncodedRow) -> torch.Tensor:
        ids = torch.as_tensor(row.ids, dtype=torch.long, device=setup.causal.device)[None]
        return decoder(input_ids=ids, use_cache=False).last_hidden_state[0]  # type: ignore[no-any-return]

    batch = flatten(chosen, min_shared=1)
    # Not all places: the last layer's queries are then fewer than its keys, as in training.
    places = [batch.place_of(number)[::3] for number in range(len(chosen))]
    try:
        with torch.no_grad():
            setup.causal.set_attn_implementation(setup.stock_attention)
            expected = torch.cat([alone(row)[::3] for row in chosen]).float()
            setup.causal.set_attn_implementation(attention.NAME)
            got = setup.hidden(batch, np.concatenate(places)).float()
    finally:
        setup.outer.train(was_training)
    return float((got - expected).abs().max()), float(expected.abs().max())
