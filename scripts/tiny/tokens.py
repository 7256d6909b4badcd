"""Conversations as token rows with a weight for every token."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer

from tiny.curriculum import Mixer
from tiny.symbols import Symbols
from tiny.tasks import OPEN, SHUT, Conversation
from tiny.vocabulary import SPECIALS

PROMPT_SHARE = 0.3
"""Share of prompt tokens that a row is trained on; logits for all cost more than they teach."""


class Encoder:
    """Turns conversations into token ids and weights, and packs them into rows."""

    def __init__(self, tokenizer: Tokenizer, prompt_weight: float) -> None:
        self.tokenizer = tokenizer
        self.prompt_weight = prompt_weight
        self.size = tokenizer.get_vocab_size()
        known: dict[str, int] = tokenizer.get_vocab()
        self.end_of_text, self.start, self.end = (known[t] for t in SPECIALS)
        self.newline = self.ids("\n")
        self.header = {
            role: [self.start, *self.ids(f"{role}\n")]
            for role in ("system", "user", "assistant", "tool")
        }
        self.header["shown"] = self.header["assistant"]
        marks = [self.ids(mark)[0] for mark in (" of", " is", ".", "What", "?", "->")]
        close = [self.end, *self.newline]
        self.symbols = Symbols(self.size, marks, [*close, *self.header["assistant"]], close)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def conversation(self, turns: Conversation) -> tuple[list[int], list[float]]:
        """Token ids of the rendered conversation and the loss weight of each."""
        ids: list[int] = []
        weights: list[float] = []

        def put(tokens: list[int], weight: float) -> None:
            ids.extend(tokens)
            weights.extend([weight] * len(tokens))

        for role, content in turns:
            put(self.header[role], 0.0)
            if role == "assistant":
                put([*self.ids(content), self.end], 1.0)
            else:
                for index, part in enumerate(re.split(f"[{OPEN}{SHUT}]", content)):
                    put(self.ids(part), 1.0 if index % 2 else self.prompt_weight)
                put([self.end], 0.0)
            put(self.newline, 0.0)
        return ids, weights

    def prompt(self, turns: Conversation) -> list[int]:
        """Token ids of a conversation without its last answer, ready to be continued."""
        clean = [
            (role, content.replace(OPEN, "").replace(SHUT, "")) for role, content in turns[:-1]
        ]
        return [*self.conversation(clean)[0], *self.header["assistant"]]

    def row(self, rng: Random, mixer: Mixer, length: int) -> tuple[list[int], list[float]]:
        """A row of whole conversations (the last one cut), among them some over random tokens."""
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < length:
            drawn = mixer.draw(rng)
            if drawn == "repeated":
                more, share = self.symbols.repeated(rng, rng.randint(20, 60))
            elif drawn == "look_ups":
                more, share = self.symbols.look_ups(rng)
            elif drawn == "pattern":
                more, share = self.symbols.pattern(rng)
            else:
                more, share = self.conversation(drawn)
                if len(ids) > length // 2 and len(ids) + len(more) > length * 3 // 2:
                    continue
            ids += more
            weights += share
        thin = [w if w == 1.0 or rng.random() < PROMPT_SHARE else 0.0 for w in weights[:length]]
        return ids[:length], thin


def tensors(rows: list[tuple[list[int], list[float]]]) -> dict[str, Any]:
    """Rows as an id tensor (rows, length) and a weight tensor of the same shape."""
    return {
        "ids": torch.tensor([r for r, _ in rows]),
        "weights": torch.tensor([w for _, w in rows]),
    }
