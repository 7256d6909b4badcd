"""Patterns shown by examples: the rule is only in the shots, never in words."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tiny import facts, lexicon, relations
from tiny.tasks import OPEN, SHUT, Conversation, loose_text, with_system
from tunewise.synthetic import words
from tunewise.synthetic.words import Pool

ORDERS = (
    "Follow the pattern.",
    "Label the text.",
    "Complete the last line.",
    "Continue the examples.",
    "Give the label.",
    "Answer like in the examples.",
    "Which group does it belong to?",
    "Classify each text.",
    "Here are some examples.",
    "Fill in the output.",
)
FORMS = (  # shot, separator between shots, query
    ("{i} ->{o}", "\n", "{i} ->"),
    ("{i} =>{o}", "\n", "{i} =>"),
    ("{i} |{o}", "\n", "{i} |"),
    ("Input: {i}\nOutput:{o}", "\n\n", "Input: {i}\nOutput:"),
    ("Text: {i}\nLabel:{o}", "\n\n", "Text: {i}\nLabel:"),
    ("Q: {i}\nA:{o}", "\n", "Q: {i}\nA:"),
    ("{i}:{o}", "\n", "{i}:"),
    ("Example: {i}\nAnswer:{o}", "\n\n", "{i}"),
    ("Input: {i}\nOutput:{o}", "\n\n", "Input: {i}"),
    ('"{i}" is{o}', "\n", '"{i}" is'),
)
Rule = Callable[[], tuple[str, str, str]]
"""Draws an input, its output, and the cue in the input that decides the output."""


def labels(rng: Random, count: int, pool: Pool) -> list[str]:
    """``count`` different arbitrary labels of one kind."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.sample(lexicon.NOUNS, count)
    if kind == 1:
        return words.distinct(rng, count, pool, rng.choice((1, 2)))
    if kind == 2:
        return rng.sample([str(i) for i in range(10)] + list("ABCDEFGHXYZ"), count)
    return [word.capitalize() for word in words.distinct(rng, count, pool, 1)]


def _sentence(rng: Random, cue: str, pool: Pool) -> str:
    """A cue word inside a short random sentence."""
    left = [rng.choice(lexicon.FUNCTION + lexicon.NOUNS) for _ in range(rng.randint(0, 4))]
    right = [rng.choice(lexicon.VERBS + lexicon.NOUNS) for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.3:
        right.append(words.thing(rng, pool))
    return " ".join([*left, cue, *right])


def family_rule(rng: Random, pool: Pool, count: int = 0, style: int | None = None) -> Rule:
    """Two (rarely three) word families with labels; an input is a member or a sentence with one."""
    count = count or (2 if rng.random() < 0.8 else 3)
    names = labels(rng, count, pool)
    style = rng.randrange(4) if style is None else style
    members = [
        words.distinct(rng, rng.randint(1, 3), pool, rng.choice((1, 2))) for _ in range(count)
    ]
    stems = words.distinct(rng, count, pool, 1)
    topics = [rng.sample(lexicon.NOUNS + lexicon.VERBS, rng.randint(1, 3)) for _ in range(count)]

    def make() -> tuple[str, str, str]:
        at = rng.randrange(count)
        if style == 2:
            return stems[at] + rng.choice(("-", " ")) + words.thing(rng, pool), names[at], stems[at]
        cue = rng.choice(topics[at] if style == 3 else members[at])
        return cue if style == 0 else _sentence(rng, cue, pool), names[at], cue

    return make


def field_rule(rng: Random, pool: Pool) -> Rule:
    """The output is a fixed part of the input, possibly wrapped in a fixed way."""
    width = rng.randint(2, 4)
    kinds = [rng.choice(relations.VALUE_KINDS) for _ in range(width)]
    at = rng.randrange(width)
    gap = rng.choice((", ", " / ", "; ", " and ", " - "))
    wrap = rng.choice(
        ("{v}", "{v}", "{v}", "<{v}>", "{v}!", "the {v}", f"{rng.choice(lexicon.NOUNS)} {{v}}")
    )

    def make() -> tuple[str, str, str]:
        parts = [facts.KINDS[kind](rng, pool) for kind in kinds]
        return gap.join(parts), wrap.format(v=parts[at]), ""

    return make


def sentence_rule(rng: Random, pool: Pool) -> Rule:
    """The output is the same slot of one sentence frame, or a rewrite of it."""
    relation = rng.randrange(len(relations.RELATIONS))
    entity_out = rng.random() < 0.3

    def make() -> tuple[str, str, str]:
        fact = facts.relation_fact(rng, pool, relation)
        return fact.statement, fact.entity if entity_out else fact.value, ""

    return make


def listing_rule(rng: Random, pool: Pool) -> Rule:
    """Words rearranged: swapped, doubled, joined, or each wrapped."""
    kind = rng.randrange(5)
    mark = rng.choice(lexicon.NOUNS)

    def make() -> tuple[str, str, str]:
        items = words.distinct(rng, 2, pool)
        out = {
            0: f"{items[1]} {items[0]}",
            1: f"{items[0]} {items[0]}",
            2: f"{items[0]}-{items[1]}",
            3: f"[{items[0]}] [{items[1]}]",
            4: f"{mark} {items[1]}",
        }[kind]
        return " ".join(items), out, ""

    return make


RECORD_FORMS = ("{k} {v}", "{k}: {v}", "{k} is {v}", "{k} = {v}", "The {k} is {v}.", "{k} -> {v}")


def records(rng: Random, pool: Pool) -> Conversation:
    """A few keys with their values, told again and again in changing order.

    This is the bridge from repeats to look-ups: every value after its first mention follows from
    the key, which stands next to it, a few tokens before it, or in the turn before.
    """
    count = rng.randint(2, 5)
    keys = rng.sample(lexicon.NOUNS, count)
    if rng.random() < 0.5:
        keys = words.distinct(rng, count, pool, rng.choice((1, 2)))
    values = words.distinct(rng, count, pool, 1)
    if rng.random() < 0.5:
        values = rng.sample(lexicon.NOUNS, count)
    chat = rng.random() < 0.4
    form = rng.choice(RECORD_FORMS)
    seen: set[int] = set()
    told: list[str] = []
    turns: Conversation = []
    for _ in range(count * 4):
        at = rng.randrange(count)
        known = at in seen
        seen.add(at)
        if chat:
            turns += [("user", keys[at]), ("assistant" if known else "shown", values[at])]
            continue
        left, right = form.split(" {v}")
        value = f"{OPEN} {values[at]}{SHUT}" if known else f" {values[at]}"
        told.append(left.format(k=keys[at]) + value + right)
    return turns if chat else [("user", "\n".join(told))]


def first_patterns(rng: Random, pool: Pool) -> Conversation:
    """Single words with their labels, as chat turns: the plainest pattern there is."""
    return shots(rng, pool, rng.randint(4, 8), family_rule(rng, pool, 2, 0), True)


RULES = ((family_rule, 0.6), (field_rule, 0.16), (sentence_rule, 0.12), (listing_rule, 0.12))


def shots(
    rng: Random,
    pool: Pool,
    count: int | None = None,
    rule: Rule | None = None,
    chat: bool | None = None,
) -> Conversation:
    """A pattern: two to ten shots, as chat turns or inside one message, then the query."""
    if rule is None:
        maker = rng.choices([r for r, _ in RULES], [w for _, w in RULES])[0]
        rule = maker(rng, pool)
    count = count or rng.choice((2, 3, 4, 5, 6, 7, 8, 8, 10))
    drawn = [rule() for _ in range(count)]
    query, answer, cue = rule()
    while all(cue != shown for _, _, shown in drawn):  # a cue never shown could only be guessed
        query, answer, cue = rule()
    made = [(i, o) for i, o, _ in drawn]
    order = rng.choice((rng.choice(ORDERS), rng.choice(ORDERS), loose_text(rng), ""))
    if rng.random() < 0.5 if chat is None else chat:
        turns: Conversation = []
        for k, (i, o) in enumerate(made):  # the first output of a kind follows from nothing
            known = k > 0 and (o in [out for _, out in made[:k]] or cue == "")
            turns += [("user", i), ("assistant" if known else "shown", o)]
        turns += [("user", query), ("assistant", answer)]
        return with_system(rng, turns, order or None)
    shot, gap, ask = rng.choice(FORMS)
    lines = []
    for k, (i, o) in enumerate(made):
        known = k > 0 and (o in [out for _, out in made[:k]] or cue == "")
        lines.append(shot.format(i=i, o=f"{OPEN} {o}{SHUT}" if known else f" {o}"))
    body = gap.join([*lines, ask.format(i=query)])
    return with_system(
        rng, [("user", f"{order}\n\n{body}" if order else body), ("assistant", answer)]
    )
