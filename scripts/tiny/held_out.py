"""Task families and sentence frames that pretraining never sees, to measure carry-over."""

from __future__ import annotations

from random import Random

from tiny import facts, lexicon
from tiny.tasks import Conversation
from tunewise.synthetic import words
from tunewise.synthetic.words import Pool

POOL: Pool = "held_out"


def frames(rng: Random, count: int) -> Conversation:
    """Reading with relations whose statements and questions are not in the pretraining text."""
    made: dict[str, facts.Fact] = {}
    while len(made) < count:
        fact = facts.relation_fact(rng, POOL, held_out=True)
        made[fact.entity] = fact
    asked = rng.choice(list(made.values()))
    passage = " ".join(f.statement for f in made.values())
    return [
        ("user", f"Answer from the text.\n\n{passage}\n\n{rng.choice(asked.questions)}"),
        ("assistant", asked.value),
    ]


def table(rng: Random) -> Conversation:
    """A cell of a small table with bars."""
    columns = rng.sample(lexicon.NOUNS, 2)
    rows = [
        (words.name(rng, POOL), words.thing(rng, POOL), words.number(rng))
        for _ in range(rng.randint(2, 4))
    ]
    lines = [
        f"| name | {columns[0]} | {columns[1]} |",
        *(f"| {a} | {b} | {c} |" for a, b, c in rows),
    ]
    who = rng.choice(rows)
    at = rng.randrange(2)
    return [
        ("user", "\n".join(lines) + f"\n\nWhat is the {columns[at]} of {who[0]}?"),
        ("assistant", who[1 + at]),
    ]


def dialogue(rng: Random) -> Conversation:
    """Who spoke a given line."""
    lines = [
        (
            words.name(rng, POOL),
            f"I have a {words.thing(rng, POOL)} at the {rng.choice(lexicon.NOUNS)}",
        )
        for _ in range(rng.randint(2, 4))
    ]
    who, said = rng.choice(lines)
    text = "\n".join(f"{a}: {b}." for a, b in lines)
    return [("user", f'{text}\n\nWho said "{said}"?'), ("assistant", who)]


def settings(rng: Random) -> Conversation:
    """The value of a setting in a file of assignments."""
    lines = [
        (f"{words.thing(rng, POOL)}_{rng.choice(lexicon.NOUNS)}", words.thing(rng, POOL))
        for _ in range(rng.randint(3, 6))
    ]
    key, value = rng.choice(lines)
    text = "\n".join(f"set {a} to {b}" for a, b in lines)
    return [("user", f"{text}\n\nTo what is {key} set?"), ("assistant", value)]


def reverse(rng: Random) -> Conversation:
    """The entity for a value that a statement gives."""
    rows = [(words.name(rng, POOL), words.place(rng, POOL)) for _ in range(rng.randint(2, 4))]
    who, where = rng.choice(rows)
    text = " ".join(f"{a} lives in {b}." for a, b in rows)
    return [("user", f"{text}\n\nWho lives in {where}?"), ("assistant", who)]
