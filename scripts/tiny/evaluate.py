"""Held-out scores: exact greedy answers on names and facts that pretraining never draws.

An answer counts when every one of its tokens, and the end of the turn, is the most likely next
token after the tokens before it. That is the same as greedy decoding giving exactly this answer, at
the cost of one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from transformers import LlamaForCausalLM

from tiny import forms, held_out, shots, tasks
from tiny.tasks import Conversation
from tiny.tokens import Encoder
from tunewise.synthetic.words import Pool

Maker = Callable[[Random], Conversation]
POOL: Pool = "held_out"


def _refusal(rng: Random) -> Conversation:
    while True:
        made = tasks.reading(rng, POOL, rng.randint(2, 6), 1, refuse=True)
        if made[-1][1] in tasks.REFUSALS:
            return made


def _two_way(rng: Random, chat: bool | None = None) -> Conversation:
    while True:
        made = shots.shots(rng, POOL, 8, shots.family_rule(rng, POOL, 2), chat)
        outputs = {c for r, c in made if r in ("assistant", "shown")}
        if chat is not True or len(outputs) == 2:
            return made


def _record(rng: Random) -> Conversation:
    while True:
        made = shots.records(rng, POOL)
        if made[-1][0] == "assistant":
            return made


MAKERS: dict[str, Maker] = {
    "records": _record,
    "first look-ups": lambda rng: tasks.first_look_ups(rng, POOL),
    "first patterns": lambda rng: shots.first_patterns(rng, POOL),
    "answer from 1-6 statements": lambda rng: tasks.reading(
        rng, POOL, rng.randint(1, 6), 1, refuse=False
    ),
    "answer from 10 statements": lambda rng: tasks.reading(rng, POOL, 10, 1, refuse=False),
    "refuse what is not stated": _refusal,
    "extract a value": lambda rng: forms.extraction(rng, POOL),
    "extract by type": lambda rng: forms.typed_extraction(rng, POOL),
    "two-way pattern, 8 shots in one message": lambda rng: _two_way(rng, False),
    "two-way pattern, 8 shots as turns": lambda rng: _two_way(rng, True),
    "other patterns, 5 shots": lambda rng: shots.shots(rng, POOL, 5, shots.field_rule(rng, POOL)),
    "JSON from a text": lambda rng: forms.structured(rng, POOL),
    "copy and rearrange": lambda rng: forms.copying(rng, POOL),
    "named answer form": lambda rng: forms.wrapped(rng, POOL),
    "label by named words": lambda rng: forms.conditional(rng, POOL),
    "small sums": lambda rng: forms.arithmetic(rng, POOL),
    "held-out sentence frames": lambda rng: held_out.frames(rng, 5),
    "held-out task: table look-up": held_out.table,
    "held-out task: who said it": held_out.dialogue,
    "held-out task: settings look-up": held_out.settings,
    "held-out task: ask for the entity": held_out.reverse,
}
FIRST = ("records", "first look-ups", "first patterns")
QUICK = (
    "first look-ups",
    "answer from 1-6 statements",
    "answer from 10 statements",
    "refuse what is not stated",
    "extract a value",
    "two-way pattern, 8 shots in one message",
    "two-way pattern, 8 shots as turns",
    "JSON from a text",
    "held-out sentence frames",
)


@torch.no_grad()
def repeats(model: LlamaForCausalLM, encoder: Encoder, device: str) -> float:
    """Share of repeated random tokens that are predicted once a run has been seen twice."""
    rng = Random(99)
    rows = torch.tensor([encoder.symbols.repeated(rng, 96)[0] for _ in range(16)], device=device)
    guess = model(input_ids=rows).logits.argmax(-1)
    return float((guess[:, 60:-1] == rows[:, 61:]).float().mean())


@torch.no_grad()
def symbols(model: LlamaForCausalLM, encoder: Encoder, device: str) -> dict[str, float]:
    """Share of the trained tokens of symbolic look-ups and patterns that are predicted."""
    shares = {}
    for name, draw in (
        ("look_ups", encoder.symbols.look_ups),
        ("pattern", encoder.symbols.pattern),
    ):
        rng = Random(98)
        right = total = 0
        for ids, weights in (draw(rng) for _ in range(48)):
            row = torch.tensor([ids], device=device)
            hit = model(input_ids=row).logits[0, :-1].argmax(-1) == row[0, 1:]
            counted = torch.tensor(weights[1:], device=device) > 0
            # an answer's end is easy; what counts is what had to be found
            closing = torch.tensor([t in encoder.symbols.closing for t in ids[1:]], device=device)
            counted &= ~closing
            right += int((hit & counted).sum())
            total += int(counted.sum())
        shares[name] = round(right / total, 3)
    return shares


@torch.no_grad()
def exact(
    model: LlamaForCausalLM, encoder: Encoder, turns: list[Conversation], device: str
) -> list[bool]:
    """For each conversation, whether greedy decoding gives exactly its last answer."""
    rows: list[tuple[list[int], list[int]]] = []
    for made in turns:
        answer = [*encoder.ids(made[-1][1]), encoder.end]
        rows.append((encoder.prompt(made), answer))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    right = [False] * len(rows)
    for begin in range(0, len(order), 16):
        some = order[begin : begin + 16]
        width = max(len(rows[i][0]) + len(rows[i][1]) for i in some)
        ids = torch.zeros(len(some), width, dtype=torch.long, device=device)
        for at, i in enumerate(some):
            both = rows[i][0] + rows[i][1]
            ids[at, : len(both)] = torch.tensor(both, device=device)
        hidden = model.model(input_ids=ids).last_hidden_state
        for at, i in enumerate(some):
            prompt, answer = rows[i]
            guess = model.lm_head(
                hidden[at, len(prompt) - 1 : len(prompt) + len(answer) - 1]
            ).argmax(-1)
            right[i] = guess.tolist() == answer
    return right


def score(
    model: LlamaForCausalLM, encoder: Encoder, name: str, count: int, device: str, seed: int = 77
) -> float:
    """Share of ``count`` held-out conversations of one kind that are answered exactly."""
    rng = Random(f"{seed}/{name}")
    model.eval()
    right = exact(model, encoder, [MAKERS[name](rng) for _ in range(count)], device)
    model.train()
    return sum(right) / count


def quick(model: LlamaForCausalLM, encoder: Encoder, device: str) -> dict[str, float]:
    """The few scores that tell during a run whether the curriculum bites."""
    return {name: round(score(model, encoder, name, 40, device), 3) for name in QUICK}


def full(
    model: LlamaForCausalLM, encoder: Encoder, device: str, count: int = 200
) -> dict[str, float]:
    """Every held-out score, on ``count`` conversations each."""
    return {name: round(score(model, encoder, name, count, device), 3) for name in MAKERS}
