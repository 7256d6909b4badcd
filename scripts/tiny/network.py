"""The network: a small Llama whose first weights already hold rough circuits for its context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROPE_THETA = 100_000.0
COPY_HEADS = 4
CONSTANT = 4.0
"""Size of the one input that is the same for every token, in units of the others."""
# How a head of the first layer sees the past: where its window is centred, and rotary pairs with
# their strengths, fast pairs for a sharp window.
PREVIOUS = (1.0, {0: 12.0, 1: 12.0, 2: 12.0})
NEAR = (3.0, {0: 3.0, 1: 6.0, 2: 6.0, 3: 3.0})
FAR = (7.0, {1: 4.0, 2: 6.0, 3: 5.0, 4: 3.0})


def build(
    vocabulary: int,
    context: int,
    width: int,
    layers: int,
    heads: int,
    inner: int,
    seed: int,
    frame: Sequence[int] = (),
) -> LlamaForCausalLM:
    """A freshly initialised model; the same arguments give the same weights.

    Args:
        frame: tokens of the chat format, punctuation and function words, which say nothing about
            what a text speaks of.
    """
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
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    _Seeding(model, frame).write()
    return model


class _Seeding:
    """Writes two rough circuits into the first two layers; training is free to change all of it.

    Copying: find a place whose previous token is the current one, and pass on what stands there.
    Looking up: find a place that stands a little after the same content words as the ones asked
    about just now, and pass on what stands there. Left to chance, copying takes most of a two-core
    training budget to appear, and looking up does not appear within it.

    Heads of the first layer gather tokens by position only: their queries and keys depend on a
    constant input, so the rotary phase decides. Heads of the second compare what was gathered, in
    the rotary pairs that hardly turn.
    """

    def __init__(self, model: LlamaForCausalLM, frame: Sequence[int]) -> None:
        config = model.config
        self.model = model
        self.width = config.hidden_size
        self.size = self.width // config.num_attention_heads
        self.pairs = self.size // 2
        slow = range(self.pairs // 2, self.pairs)
        self.slow = [*slow, *(p + self.pairs for p in slow)]
        self.scale = 1 / math.sqrt(self.width)
        self.constant = CONSTANT / math.sqrt(1 + CONSTANT**2 / self.width)
        self.frame = frame

    @torch.no_grad()
    def write(self) -> None:
        """Write both circuits."""
        size, part = self.size, len(self.slow)
        embedding = self.model.model.embed_tokens.weight
        embedding.normal_(0, self.scale)
        embedding[:, 0] = CONSTANT * self.scale
        free = self._directions(self.width, self.width)  # columns: where to write
        previous, near, far = free[:, : 2 * size], free[:, 2 * size : 3 * size], free[:, 3 * size :]
        matched = [self._directions(self.width, part).T for _ in range(COPY_HEADS)]
        content = self._content(size)
        self._gather(0, PREVIOUS, torch.cat(matched)[:size], previous[:, :size], 2.0)
        self._gather(1, PREVIOUS, torch.cat(matched)[size:], previous[:, size:], 2.0)
        self._gather(2, NEAR, content, near, 3.0)
        self._gather(3, FAR, content, far[:, :size], 3.0)
        for head in range(COPY_HEADS):
            mine = slice(head * part, (head + 1) * part)
            copied = self._directions(self.width, size).T
            self._find(head, matched[head] * 3.5, previous[:, mine].T * 1.2, copied, 12.0)
        for head, there in enumerate((near, near, far, far)[: self._spare()]):
            mine = slice(head % 2 * part, (head % 2 + 1) * part)
            asked = far[:, mine].T * 2.0
            self._find(COPY_HEADS + head, asked, there[:, mine].T * 2.0, self._content(size), 6.0)

    def _spare(self) -> int:
        return int(self.model.config.num_attention_heads) - COPY_HEADS

    def _directions(self, rows: int, columns: int) -> torch.Tensor:
        """Orthonormal columns without the constant input."""
        made: torch.Tensor = torch.linalg.qr(torch.randn(rows, columns))[0]
        made[0] = 0
        return made

    def _content(self, rows: int) -> torch.Tensor:
        """Orthonormal rows that do not see the constant input or the tokens of the frame."""
        known = self.model.model.embed_tokens.weight[list(self.frame)].T
        constant = torch.eye(self.width)[:, :1]
        blind = torch.linalg.qr(torch.cat([known, constant], 1))[0]
        made = torch.randn(rows, self.width)
        made = made - (made @ blind) @ blind.T
        return torch.linalg.qr(made.T)[0].T

    def _gather(
        self,
        head: int,
        window: tuple[float, dict[int, float]],
        read: torch.Tensor,
        to: torch.Tensor,
        gain: float,
    ) -> None:
        """A head of the first layer that averages ``read`` of the tokens in a window."""
        attention = self.model.model.layers[0].self_attn
        span = slice(head * self.size, (head + 1) * self.size)
        centre, strengths = window
        query, key = torch.zeros(self.size), torch.zeros(self.size)
        for pair, strength in strengths.items():
            frequency = ROPE_THETA ** (-pair / self.pairs)
            amount = math.sqrt(strength * math.sqrt(self.size)) / self.constant
            key[pair] = amount
            query[pair] = amount * math.cos(centre * frequency)
            query[pair + self.pairs] = -amount * math.sin(centre * frequency)
        for weight, column in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
            weight[span] = 0
            weight[span, 0] = column
        attention.v_proj.weight[span] = read
        attention.o_proj.weight[:, span] = to * self.scale * gain

    def _find(
        self, head: int, query: torch.Tensor, key: torch.Tensor, copied: torch.Tensor, gain: float
    ) -> None:
        """A head of the second layer that compares ``query`` with ``key`` and passes tokens on."""
        attention = self.model.model.layers[1].self_attn
        span = slice(head * self.size, (head + 1) * self.size)
        rows = [head * self.size + d for d in self.slow]
        for weight, values in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
            weight[span] = 0
            weight[rows] = values
        attention.v_proj.weight[span] = copied
        attention.o_proj.weight[:, span] = copied.T * self.scale * gain
