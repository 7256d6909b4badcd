"""Task families of the pretraining mix: conversations whose answers follow from their prompts.

A conversation is a list of (role, content) pairs; the role ``shown`` is an assistant turn that
nothing before it predicts, so it is not trained on. Inside a content, ``OPEN … SHUT`` marks a span
that follows from what stands before it (outputs of earlier shots): it weighs like an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tiny import facts, lexicon, relations
from tunewise.synthetic import words
from tunewise.synthetic.words import Pool

Turn = tuple[str, str]
Conversation = list[Turn]
Task = Callable[[Random, Pool], Conversation]
OPEN, SHUT = "\x02", "\x03"

REFUSALS = (
    "not stated",
    "unknown",
    "no answer",
    "I do not know",
    "not in the text",
    "none",
    "not known",
    "it is not said",
)
ANSWER_ORDERS = (
    "Answer the question from the passage.",
    "Answer from the text only.",
    "Read the text and answer the question.",
    "Use the passage to answer.",
    "Answer with a few words from the text.",
    "Reply with the answer only.",
    "Give a short answer.",
    "Find the answer in the passage.",
    "Answer the question based on the documents.",
    "Use only the information below.",
    "Use the numbered passages before the question to answer it.",
    "Answer from the numbered passages.",
)
REFUSE_ORDERS = (
    'If the passage does not say, answer "{r}".',
    "If the answer is not in the text, reply {r}.",
    'When the text does not mention it, say "{r}".',
    "If it is not stated, write: {r}",
    'Say "{r}" when the information is missing.',
    'If no passage contains the answer, answer "{r}".',
)


def with_system(rng: Random, turns: Conversation, prompt: str | None = None) -> Conversation:
    """Put a system turn first: the given prompt, or at random one of the plain ones, or none."""
    if prompt is not None:
        return [("system", prompt), *turns]
    roll = rng.random()
    if roll < 0.15:
        return [("system", rng.choice(lexicon.SYSTEM_PROMPTS)), *turns]
    if roll < 0.35:
        return [("system", loose_text(rng)), *turns]
    return turns


def loose_text(rng: Random) -> str:
    """One to three senseless instruction-like sentences, so that no unknown prompt disturbs."""
    sentences = []
    for _ in range(rng.randint(1, 3)):
        parts = [
            rng.choice(
                rng.choice((lexicon.TASK_WORDS, lexicon.FUNCTION, lexicon.NOUNS, lexicon.VERBS))
            )
            for _ in range(rng.randint(3, 9))
        ]
        if rng.random() < 0.3:
            parts.insert(rng.randrange(len(parts)), words.thing(rng, "train"))
        sentences.append(" ".join(parts).capitalize() + ".")
    return " ".join(sentences)


def _layout(rng: Random, passage: str, question: str, order: str) -> tuple[str | None, str]:
    """System prompt (or None) and first user message for a passage, question and instruction."""
    layouts: tuple[tuple[str | None, str], ...] = (
        (None, f"{order}\n\n{passage}\n\n{question}"),
        (None, f"{passage}\n\n{question}"),
        (None, f"{order}\n\nPassage: {passage}\n\nQuestion: {question}"),
        (None, f"Context:\n{passage}\n\nQuestion: {question}\nAnswer:"),
        (None, f"Text: {passage}\n{order}\nQuestion: {question}"),
        (None, f"{question}\n\n{passage}"),
        (order, f"{passage}\n\n{question}"),
        (order, f"Context:\n{passage}\n\nQuestion: {question}"),
        (f"{order}\n\n{passage}", question),
        (order, f"Documents:\n{passage}\n\n{question}"),
        (order, f"Question: {question}\n\nPassages:\n{passage}"),
    )
    return rng.choice(layouts)


def _join(rng: Random, statements: list[str]) -> str:
    """Statements as one paragraph, lines, bullets, numbered or titled passages."""
    style = rng.randrange(10)
    if style <= 2:
        return " ".join(statements)
    if style == 3:
        return "\n".join(statements)
    if style == 4:
        return "\n".join(f"- {s}" for s in statements)
    if style == 5:
        return "\n\n".join(statements)
    if style == 6:
        return "\n".join(f"[{i}] {s}" for i, s in enumerate(statements, 1))
    if style <= 8:
        return "\n\n".join(f"[{i}] {s}" for i, s in enumerate(statements, 1))
    return "\n\n".join(f"Passage {i}: {s}" for i, s in enumerate(statements, 1))


def _group(rng: Random, statements: list[str]) -> list[str]:
    """Sometimes join neighbouring statements into passages of one to three sentences."""
    if rng.random() < 0.6:
        return statements
    grouped: list[str] = []
    rest = list(statements)
    while rest:
        take = rng.randint(1, 3)
        grouped.append(" ".join(rest[:take]))
        rest = rest[take:]
    return grouped


def reading(
    rng: Random, pool: Pool, count: int, asked: int, refuse: bool | None = None
) -> Conversation:
    """Up to ``asked`` questions on ``count`` facts; some lack an answer, if told how to say so."""
    stated = facts.draw(rng, count, pool)
    may_refuse = rng.random() < 0.4 if refuse is None else refuse
    order = rng.choice(ANSWER_ORDERS) if rng.random() < 0.85 else loose_text(rng)
    phrase = rng.choice(REFUSALS)
    if may_refuse:
        order = f"{order} {rng.choice(REFUSE_ORDERS).format(r=phrase)}"
    entities = {f.entity for f in stated}
    turns: Conversation = []
    pool_of = rng.sample(stated, min(asked, count))
    system: str | None = None
    for index, fact in enumerate(pool_of):
        question, value = rng.choice(fact.questions), fact.value
        if may_refuse and rng.random() < 0.5:
            question, value = _missing(rng, pool, stated, entities), phrase
        if index == 0:
            system, question = _layout(
                rng, _join(rng, _group(rng, [f.statement for f in stated])), question, order
            )
        turns += [("user", question), ("assistant", value)]
    return with_system(rng, turns, system)


def _missing(rng: Random, pool: Pool, stated: list[facts.Fact], entities: set[str]) -> str:
    """A question no statement answers: its entity or its attribute is another one."""
    known = rng.choice(stated)
    if rng.random() < 0.5:
        for _ in range(20):
            other = facts.generic_fact(rng, pool, entity=known.entity)
            if all(other.attribute != f.attribute for f in stated):
                return rng.choice(other.questions)
    for _ in range(40):
        other_entity = " ".join(_another(rng, pool, word) for word in known.entity.split())
        question = rng.choice(known.questions)
        if other_entity not in entities and known.entity in question:
            return question.replace(known.entity, other_entity)
    return rng.choice(facts.generic_fact(rng, pool, entity=words.full_name(rng, pool)).questions)


def _another(rng: Random, pool: Pool, word: str) -> str:
    """A word of the same make: articles and common nouns stay, invented words are drawn anew."""
    if word == "the" or word in lexicon.NOUNS:
        return word
    return words.name(rng, pool) if word[0].isupper() else words.thing(rng, pool)


def first_look_ups(rng: Random, pool: Pool) -> Conversation:
    """Two to four plain statements, or "key: value" lines, and several questions on them."""
    count = rng.randint(2, 4)
    turns: Conversation = []
    if rng.random() < 0.5:
        stated = facts.draw(rng, count, pool)
        passage = " ".join(f.statement for f in stated)
        asked = [(rng.choice(f.questions), f.value) for f in stated]
    else:
        record = {words.thing(rng, pool): item(rng, pool) for _ in range(count)}
        passage = "\n".join(f"{k}: {v}" for k, v in record.items())
        asked = [(f"What is the {k}?", v) for k, v in record.items()]
    for question, value in rng.choices(asked, k=rng.randint(3, 5)):
        turns += [("user", question), ("assistant", value)]
    return [("user", f"{passage}\n\n{turns[0][1]}"), *turns[1:]]


def item(rng: Random, pool: Pool) -> str:
    """A value of any kind."""
    return facts.KINDS[rng.choice(relations.VALUE_KINDS)](rng, pool)


def filler(rng: Random) -> str:
    """One to six common words without sense."""
    return " ".join(
        rng.choice((lexicon.NOUNS, lexicon.VERBS, lexicon.FUNCTION))[rng.randrange(30)]
        for _ in range(rng.randint(1, 6))
    )
