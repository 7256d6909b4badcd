"""The network: a small Llama, two of whose heads begin by looking at the token before."""

from __future__ import annotations

import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROPE_THETA = 10_000.0
SPREAD = 0.02
CONSTANT = 4.0
"""Size of the one input that is the same for every token, in units of the others."""
PREVIOUS_HEADS = 2
SHARPNESS = 8.0
FAST_PAIRS = 4
GAIN = 3.0


def build(
    vocabulary: int, context: int, width: int, layers: int, heads: int, inner: int, seed: int
) -> LlamaForCausalLM:
    """A freshly initialised model; the same arguments give the same weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=SPREAD,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    _look_back(model)
    return model


@torch.no_grad()
def _look_back(model: LlamaForCausalLM) -> None:
    """Turn two heads of the first layer to the token before; training is free to change them.

    Induction needs such a head below it (Olsson et al., 2209.11895), and left to chance the pair
    takes most of a small budget to appear. Queries and keys depend on an input that is the same for
    all tokens, so that the rotary phase alone decides.
    """
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    pairs = size // 2
    embedding = model.model.embed_tokens.weight
    embedding[:, 0] = CONSTANT * SPREAD
    constant = CONSTANT / math.sqrt(1 + CONSTANT**2 / config.hidden_size)  # after the norm
    amount = math.sqrt(SHARPNESS * math.sqrt(size)) / constant
    query, key = torch.zeros(size), torch.zeros(size)
    for pair in range(min(FAST_PAIRS, pairs)):
        angle = ROPE_THETA ** (-pair / pairs)
        key[pair] = amount
        query[pair] = amount * math.cos(angle)
        query[pair + pairs] = -amount * math.sin(angle)
    attention = model.model.layers[0].self_attn
    for head in range(PREVIOUS_HEADS):
        span = slice(head * size, (head + 1) * size)
        for weight, column in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
            weight[span] = 0
            weight[span, 0] = column
        attention.v_proj.weight[span] *= GAIN
        attention.o_proj.weight[:, span] *= GAIN
