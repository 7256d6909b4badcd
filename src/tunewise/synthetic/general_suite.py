"""A suite of small plain tasks: what could a model do before fine-tuning that it cannot after?

The instructions are plain English that any instruction-following model understands, the answers
are short and can be checked by string comparison. Every item is generated, so none was in a
training set.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tunewise.synthetic import words

Item = dict[str, Any]
Made = tuple[str, str, str]
"""Prompt, answer, metric."""

OBJECTS = (
    "lamp",
    "clock",
    "bell",
    "boat",
    "bridge",
    "garden",
    "table",
    "letter",
    "coat",
    "bottle",
    "basket",
    "ladder",
    "drum",
    "mirror",
)
MOST = 3000
"""There are only some 900 different small sums, and each stands in a suite once."""
NUMERALS = {2: "two", 3: "three", 4: "four"}


def _format(rng: Random) -> Made:
    """A small answer in a named form."""
    one, two, three = words.distinct(rng, 3, "held_out")
    who, where = words.name(rng, "held_out"), words.place(rng, "held_out")
    stated = f"{who} lives in {where}. Where does {who} live?"
    return rng.choice(
        (
            (f'Start the answer with "Answer:". {stated}', f"Answer: {where}", "normalized_match"),
            (f"Write the answer in square brackets. {stated}", f"[{where}]", "exact_match"),
            (
                f"Put the answer between <place> and </place>. {stated}",
                f"<place>{where}</place>",
                "exact_match",
            ),
            (
                f"Write the words separated by commas: {one} {two} {three}",
                f"{one}, {two}, {three}",
                "normalized_match",
            ),
            (
                f"Return the items as a JSON list.\n\nWe need {one}, {two} and {three}.",
                f'["{one}", "{two}", "{three}"]',
                "normalized_match",
            ),
            (
                f"Return a JSON object with the keys name, town.\n\n"
                f"The name is {who}. The town is {where}.",
                f'{{"name": "{who}", "town": "{where}"}}',
                "normalized_match",
            ),
        )
    )


def _reading(rng: Random) -> Made:
    """A question on one of two to four short statements."""
    statements: list[str] = []
    questions: list[tuple[str, str]] = []
    for _ in range(rng.randint(2, 4)):
        kind = rng.randrange(5)
        who, where = words.name(rng, "held_out"), words.place(rng, "held_out")
        thing, count = rng.choice(OBJECTS), words.number(rng, 2, 90)
        day = words.date(rng)
        told, asked, answer = (
            (f"{who} lives in {where}.", f"Where does {who} live?", where),
            (f"{who} bought the {thing}.", f"What did {who} buy?", thing),
            (f"{who} is {count} years old.", f"How old is {who}?", count),
            (f"The leader of {where} is {who}.", f"Who is the leader of {where}?", who),
            (f"{who} arrived on {day}.", f"When did {who} arrive?", day),
        )[kind]
        statements.append(told)
        questions.append((asked, answer))
    asked, answer = rng.choice(questions)
    order = rng.choice(
        (
            "Answer the question from the text with a few words.",
            "Give a short answer from the text.",
        )
    )
    return f"{order}\n\n{' '.join(statements)}\n\n{asked}", answer, "contains"


def _copying(rng: Random) -> Made:
    """A text or a part of it, unchanged."""
    picked = words.distinct(rng, rng.randint(3, 5), "held_out")
    text = " ".join(picked)
    number = rng.randint(2, 4)
    return rng.choice(
        (
            (f"Repeat this text exactly: {text}", text, "normalized_match"),
            (
                f'Copy the text between the quotes.\n\nthe {rng.choice(OBJECTS)} "{text}" was here',
                text,
                "normalized_match",
            ),
            (f"What is the first word? {text}", picked[0], "normalized_match"),
            (f"What is the last word? {text}", picked[-1], "normalized_match"),
            (
                f'Write "{picked[0]}" {NUMERALS[number]} times.',
                " ".join([picked[0]] * number),
                "normalized_match",
            ),
        )
    )


def _arithmetic(rng: Random) -> Made:
    """One sum or difference of whole numbers up to 20."""
    a, b = sorted((rng.randint(0, 20), rng.randint(0, 20)), reverse=True)
    ask, answer = rng.choice(
        (
            (f"What is {a} + {b}?", a + b),
            (f"What is {a} - {b}?", a - b),
            (f"How much is {a} plus {b}?", a + b),
            (f"How much is {a} minus {b}?", a - b),
        )
    )
    return f"Answer with the number only. {ask}", str(answer), "normalized_match"


def _refusing(rng: Random) -> Made:
    """A question whose answer the text lacks, or (one time in three) has."""
    people = [words.name(rng, "held_out") for _ in range(3)]
    while len(set(people)) < 3:
        people = [words.name(rng, "held_out") for _ in range(3)]
    towns = [words.place(rng, "held_out") for _ in range(2)]
    text = " ".join(f"{p} lives in {t}." for p, t in zip(people[:2], towns, strict=True))
    phrase = rng.choice(("not stated", "unknown", "no answer"))
    order = f'Answer from the text. If the answer is not in the text, reply "{phrase}".'
    at = rng.choice((0, 2, 2))
    answer = towns[0] if at == 0 else phrase
    return f"{order}\n\n{text}\n\nWhere does {people[at]} live?", answer, "normalized_match"


FAMILIES: dict[str, Callable[[Random], Made]] = {
    "format": _format,
    "reading": _reading,
    "copying": _copying,
    "arithmetic": _arithmetic,
    "refusing": _refusing,
}


def items(seed: int = 0, n: int = 720) -> list[Item]:
    """``n`` items, the families in turn; the same arguments give the same items.

    Each item has ``id``, ``family``, ``messages`` (one user message), ``answer`` and ``metric``
    (``normalized_match``, ``exact_match`` or ``contains``). No prompt appears twice.

    Raises:
        ValueError: when ``n`` is not between 1 and ``MOST``.
    """
    if not 1 <= n <= MOST:
        raise ValueError(f"a suite has between 1 and {MOST} items, not {n}")
    rng = Random(f"general/{seed}")
    made: list[Item] = []
    seen: set[str] = set()
    names = tuple(FAMILIES)
    while len(made) < n:
        family = names[len(made) % len(names)]
        prompt, answer, metric = FAMILIES[family](rng)
        if prompt in seen:
            continue
        seen.add(prompt)
        made.append(
            {
                "id": f"general-{seed}-{len(made):04d}",
                "family": family,
                "messages": [{"role": "user", "content": prompt}],
                "answer": answer,
                "metric": metric,
            }
        )
    return made
