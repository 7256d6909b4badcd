"""Invented facts: statements, the questions they answer, and the values that answer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tiny import lexicon
from tiny.relations import (
    ENTITY_KINDS,
    GENERIC_QUESTIONS,
    GENERIC_STATEMENTS,
    HELD_OUT_RELATIONS,
    RELATIONS,
    VALUE_KINDS,
    VERB_PAIRS,
)
from tunewise.synthetic import words
from tunewise.synthetic.words import Pool


@dataclass(frozen=True)
class Fact:
    """One statement, the ways to ask for its value, and the value itself."""

    statement: str
    questions: tuple[str, ...]
    value: str
    entity: str
    attribute: str


def _noun(rng: Random, pool: Pool) -> str:
    return rng.choice(lexicon.NOUNS)


def _amount(rng: Random, pool: Pool) -> str:
    return f"{words.number(rng)} {rng.choice(lexicon.UNITS)}"


def _number(rng: Random, pool: Pool) -> str:
    return words.number(rng)


def _date(rng: Random, pool: Pool) -> str:
    return words.date(rng)


def _code(rng: Random, pool: Pool) -> str:
    return words.code(rng)


def _phrase(rng: Random, pool: Pool) -> str:
    return f"{rng.choice(lexicon.ADJECTIVES)} {rng.choice(lexicon.NOUNS)}"


def _odd_phrase(rng: Random, pool: Pool) -> str:
    return f"{words.thing(rng, pool)} {rng.choice(lexicon.NOUNS)}"


Maker = Callable[[Random, Pool], str]
KINDS: dict[str, Maker] = {
    "name": words.name,
    "full": words.full_name,
    "place": words.place,
    "thing": words.thing,
    "noun": _noun,
    "amount": _amount,
    "number": _number,
    "date": _date,
    "code": _code,
    "phrase": _phrase,
    "odd": _odd_phrase,
}


def relation_fact(
    rng: Random, pool: Pool, relation: int | None = None, held_out: bool = False
) -> Fact:
    """A fact told in one of the fixed sentence frames."""
    table = HELD_OUT_RELATIONS if held_out else RELATIONS
    attribute, ekind, vkind, statements, questions = table[
        rng.randrange(len(table)) if relation is None else relation
    ]
    entity, value = KINDS[ekind](rng, pool), KINDS[vkind](rng, pool)
    return Fact(
        rng.choice(statements).format(e=entity, v=value),
        tuple(q.format(e=entity) for q in questions),
        value,
        entity,
        attribute,
    )


def generic_fact(
    rng: Random, pool: Pool, entity: str | None = None, attribute: str | None = None
) -> Fact:
    """A fact about an arbitrary attribute, often an invented one, in a frame drawn at random."""
    if attribute is None:
        attribute = rng.choice(lexicon.NOUNS) if rng.random() < 0.6 else words.thing(rng, pool)
    entity = entity or entity_name(rng, pool)
    value = KINDS[rng.choice(VALUE_KINDS)](rng, pool)
    statement = rng.choice(GENERIC_STATEMENTS).format(a=attribute, e=entity, v=value)
    questions = tuple(q.format(a=attribute, e=entity) for q in GENERIC_QUESTIONS)
    return Fact(
        _capital(statement), tuple(_capital(q) for q in questions), value, entity, attribute
    )


def composed_fact(rng: Random, pool: Pool) -> Fact:
    """A fact in a sentence put together from common verbs and nouns, asked for with a wh-word."""
    verb, verbs = rng.choice(VERB_PAIRS)
    entity = words.name(rng, pool) if rng.random() < 0.7 else words.full_name(rng, pool)
    noun, thing = rng.choice(lexicon.NOUNS), rng.choice(lexicon.NOUNS)
    adjective, place = (
        rng.choice(lexicon.ADJECTIVES),
        rng.choice(("in", "near", "at", "behind", "under", "before", "after")),
    )
    extra = f" {place} the {adjective} {noun}" if rng.random() < 0.6 else ""
    kind = rng.randrange(5)
    if kind == 0:
        value = KINDS[rng.choice(("thing", "noun", "phrase", "odd"))](rng, pool)
        statement, question = (
            f"{entity} {verbs} the {value}{extra}.",
            f"What does {entity} {verb}{extra}?",
        )
    elif kind == 1:
        value = words.place(rng, pool)
        statement, question = (
            f"{entity} {verbs} the {thing} in {value}.",
            f"Where does {entity} {verb} the {thing}?",
        )
    elif kind == 2:
        value = words.date(rng)
        front = rng.random() < 0.5
        told = f"{entity} {verbs} the {thing}{extra}"
        statement = f"On {value} {told}." if front else f"{told} on {value}."
        question = f"When does {entity} {verb} the {thing}?"
    elif kind == 3:
        value, entity = entity, f"{words.thing(rng, pool)} {thing}"
        statement, question = f"{value} {verbs} the {entity}{extra}.", f"Who {verbs} the {entity}?"
    else:
        value = words.number(rng)
        statement, question = (
            f"{entity} {verbs} {value} {thing}s{extra}.",
            f"How many {thing}s does {entity} {verb}?",
        )
    return Fact(
        statement, (question,), value, entity, f"{verb} {thing if kind in (1, 2, 4) else ''}"
    )


def entity_name(rng: Random, pool: Pool) -> str:
    """Something to state facts about; common nouns come with their article."""
    kind = rng.choice(ENTITY_KINDS)
    made = KINDS[kind](rng, pool)
    return f"the {made}" if kind in ("thing", "odd") else made


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def draw(rng: Random, count: int, pool: Pool = "train") -> list[Fact]:
    """``count`` facts with different (entity, attribute) pairs, in an order that tells nothing.

    A good part share their frame or their entity with a neighbour: a reader must match both.
    """
    facts: list[Fact] = []
    seen: set[tuple[str, str]] = set()
    mode = rng.random()
    relation = rng.randrange(len(RELATIONS))
    attribute = rng.choice(lexicon.NOUNS)
    entity = entity_name(rng, pool)
    while len(facts) < count:
        roll = rng.random()
        if mode < 0.25:  # one frame, many entities
            fact = relation_fact(rng, pool, relation)
        elif mode < 0.4:  # one attribute, many entities
            fact = generic_fact(rng, pool, attribute=attribute)
        elif mode < 0.55 and count <= 8:  # one entity, many attributes
            fact = generic_fact(rng, pool, entity=entity)
        elif roll < 0.35:
            fact = relation_fact(rng, pool)
        elif roll < 0.7:
            fact = composed_fact(rng, pool)
        else:
            fact = generic_fact(rng, pool)
        key = (fact.entity, fact.attribute)
        if key not in seen:
            seen.add(key)
            facts.append(fact)
    rng.shuffle(facts)
    return facts
