"""Task families about the form of an answer: copy, extract, fill JSON, wrap, label, add."""

from __future__ import annotations

import json
from random import Random

from tiny import facts, lexicon
from tiny.tasks import Conversation, filler, item, with_system
from tunewise.synthetic import words
from tunewise.synthetic.words import Pool


def copying(rng: Random, pool: Pool) -> Conversation:
    """Repeat a text, its quoted part, or its words in another list form."""
    items = [item(rng, pool) for _ in range(rng.randint(1, 7))]
    text = " ".join(items)
    kind = rng.randrange(7)
    if kind == 0:
        order = rng.choice(
            (
                "Repeat this text exactly: {t}",
                "Copy: {t}",
                "Say exactly this: {t}",
                "Write the following again.\n\n{t}",
            )
        )
        return with_system(rng, [("user", order.format(t=text)), ("assistant", text)])
    if kind == 1:
        left, right = filler(rng), filler(rng)
        order = rng.choice(
            (
                "Copy the text between the quotes.",
                "Return only the quoted text.",
                "What stands in quotes?",
            )
        )
        return with_system(
            rng, [("user", f'{order}\n\n{left} "{text}" {right}'), ("assistant", text)]
        )
    if kind == 2:
        order = rng.choice(
            ("Write the words separated by commas: {t}", "Put a comma between the words: {t}")
        )
        items = [i for i in items if " " not in i] or [words.thing(rng, pool)]
        return with_system(
            rng, [("user", order.format(t=" ".join(items))), ("assistant", ", ".join(items))]
        )
    if kind == 3:
        count, word = rng.randint(2, 4), item(rng, pool)
        number = {2: "two", 3: "three", 4: "four"}[count]
        return with_system(
            rng,
            [("user", f'Write "{word}" {number} times.'), ("assistant", " ".join([word] * count))],
        )
    if kind == 4:
        where = rng.choice(("first", "last", "second", "third"))
        items = [i for i in items if " " not in i] + words.distinct(rng, 3, pool)
        at = {"first": 0, "last": -1, "second": 1, "third": 2}[where]
        order = rng.choice(
            (
                "What is the {w} word? {t}",
                "Give the {w} word of this list.\n\n{t}",
                "Which word comes {w}: {t}",
            )
        )
        return with_system(
            rng, [("user", order.format(w=where, t=" ".join(items))), ("assistant", items[at])]
        )
    if kind == 5:
        items = [item(rng, pool) for _ in range(rng.randint(2, 5))]
        listed = "\n".join(f"- {i}" for i in items)
        order = rng.choice(("Write this list in one line: {t}", "Join the lines with commas.\n{t}"))
        return with_system(rng, [("user", order.format(t=listed)), ("assistant", ", ".join(items))])
    items = [item(rng, pool) for _ in range(rng.randint(2, 5))]
    order = rng.choice(
        ("Write each item on its own line: {t}", "Make a list of these items.\n\n{t}")
    )
    return with_system(
        rng,
        [
            ("user", order.format(t=", ".join(items))),
            ("assistant", "\n".join(f"- {i}" for i in items)),
        ],
    )


def extraction(rng: Random, pool: Pool) -> Conversation:
    """Take a named kind of span out of a sentence or of "key: value" lines, several times over."""
    keys = [
        rng.choice(lexicon.NOUNS) if rng.random() < 0.7 else words.thing(rng, pool)
        for _ in range(rng.randint(2, 6))
    ]
    record = {key: item(rng, pool) for key in keys}
    order = rng.choice(
        (
            "Extract the {k}.",
            "What is the {k}?",
            "Give the {k}.",
            "Return only the {k}.",
            "Find the {k} in the text.",
            "Copy the {k} from the text.",
            "Which {k} is given?",
        )
    )
    style = rng.randrange(4)
    if style == 0:
        text = "\n".join(f"{k}: {v}" for k, v in record.items())
    elif style == 1:
        text = ", ".join(f"{k} {v}" for k, v in record.items()) + "."
    elif style == 2:
        text = " ".join(f"The {k} is {v}." for k, v in record.items())
    else:
        text = "; ".join(f"{k} = {v}" for k, v in record.items())
    turns: Conversation = []
    for index, key in enumerate(rng.sample(list(record), rng.randint(1, len(record)))):
        ask = order.format(k=key)
        if index == 0:
            ask = rng.choice((f"{ask}\n\n{text}", f"{text}\n\n{ask}", f"Text: {text}\n{ask}"))
        turns += [("user", ask), ("assistant", record[key])]
    return with_system(rng, turns)


def typed_extraction(rng: Random, pool: Pool) -> Conversation:
    """Take the person, place, price, date or code out of free sentences that follow one another."""
    kinds = {"name": "name", "place": "place", "price": "amount", "date": "date", "code": "code"}
    frames = (
        "{name} came to {place} on {date} and paid {price} for ticket {code}.",
        "On {date}, {name} sold box {code} for {price} in {place}.",
        "The order {code} of {name} from {place} costs {price} and arrives on {date}.",
        "In {place} {name} bought a lamp for {price} on {date} (code {code}).",
    )
    wanted = rng.choice(list(kinds))
    order = rng.choice(
        (
            "Extract the {k}.",
            "Return only the {k}.",
            "Which {k} does the text mention?",
            "Give the {k} in the text.",
        )
    )
    turns: Conversation = []
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.5:
            wanted = rng.choice(list(kinds))
        record = {k: facts.KINDS[v](rng, pool) for k, v in kinds.items()}
        ask = f"{order.format(k=wanted)}\n\n{rng.choice(frames).format(**record)}"
        turns += [("user", ask), ("assistant", record[wanted])]
    return with_system(rng, turns)


def structured(rng: Random, pool: Pool) -> Conversation:
    """A JSON object or list filled from a text."""
    turns: Conversation = []
    listing = rng.random() < 0.4
    keys = rng.sample(lexicon.NOUNS, rng.randint(1, 4))
    order = rng.choice(
        (
            "Return a JSON object with the keys {k}.",
            "Write the {k} as JSON.",
            "Answer in JSON with {k}.",
            "Extract {k} as a JSON object.",
            "Fill a JSON object. Keys: {k}.",
        )
    )
    list_order = rng.choice(
        (
            "Return the items as a JSON list.",
            "List what was bought as JSON.",
            "Write a JSON list of the things.",
            "Extract all items as a JSON list.",
            "Answer with a list in JSON.",
        )
    )
    for index in range(rng.randint(1, 3)):
        if listing:
            items = [item(rng, pool) for _ in range(rng.randint(1, 5))]
            joined = items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
            text = rng.choice(
                (
                    "{n} bought {j}.",
                    "We need {j}.",
                    "In the box are {j}.",
                    "Please bring {j} to the office.",
                    "{n} has {j}.",
                )
            )
            ask, answer = text.format(j=joined, n=words.name(rng, pool)), json.dumps(items)
            head = list_order
        else:
            record = {key: item(rng, pool) for key in keys}
            shuffled = rng.sample(list(record.items()), len(record))
            style = rng.randrange(3)
            ask = (
                " ".join(f"The {k} is {v}." for k, v in shuffled)
                if style == 0
                else ", ".join(f"{k} {v}" for k, v in shuffled)
                if style == 1
                else "\n".join(f"{k}: {v}" for k, v in shuffled)
            )
            answer = json.dumps({k: int(v) if v.isdigit() else v for k, v in record.items()})
            head = order.format(k=", ".join(keys))
        if index == 0 or rng.random() < 0.3:
            ask = (
                rng.choice((f"{head}\n\n{ask}", f"{ask}\n\n{head}"))
                if index
                else f"{head}\n\n{ask}"
            )
        turns += [("user", ask), ("assistant", answer)]
    return with_system(rng, turns)


def arithmetic(rng: Random, pool: Pool) -> Conversation:
    """Sums and differences of small whole numbers."""
    turns: Conversation = []
    for _ in range(rng.randint(2, 6)):
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        if rng.random() < 0.5:
            ask = rng.choice(
                (
                    "What is {a} + {b}?",
                    "{a} + {b} =",
                    "Add {a} and {b}.",
                    "How much is {a} plus {b}?",
                )
            )
            answer = a + b
        else:
            a, b = max(a, b), min(a, b)
            ask = rng.choice(
                (
                    "What is {a} - {b}?",
                    "{a} - {b} =",
                    "Take {b} from {a}.",
                    "How much is {a} minus {b}?",
                )
            )
            answer = a - b
        turns += [("user", ask.format(a=a, b=b)), ("assistant", str(answer))]
    return with_system(rng, turns)


def wrapped(rng: Random, pool: Pool) -> Conversation:
    """Answer from a statement in a form that the system prompt (or the user) names."""
    mark = rng.choice((words.thing(rng, pool), rng.choice(lexicon.NOUNS), "Answer", "Result"))
    form, order = rng.choice(
        (
            ("{m}: {v}", 'Start every answer with "{m}:".'),
            ("{v} {m}", 'End every answer with "{m}".'),
            ("<{m}>{v}</{m}>", "Put the answer between <{m}> and </{m}>."),
            ("({v})", "Put the answer in round brackets."),
            ("[{v}]", "Put the answer in square brackets."),
            ('"{v}"', "Write the answer in quotes."),
            ("- {v}", "Begin the answer with a dash."),
            ("{v}.", "End the answer with a full stop."),
            ("{m} = {v}", "Answer in the form {m} = answer."),
        )
    )
    turns: Conversation = []
    for _ in range(rng.randint(1, 4)):
        made = facts.draw(rng, rng.randint(1, 3), pool)
        fact = rng.choice(made)
        ask = f"{' '.join(f.statement for f in made)} {rng.choice(fact.questions)}"
        turns += [("user", ask), ("assistant", form.format(m=mark, v=fact.value))]
    order = order.format(m=mark)
    if rng.random() < 0.6:
        return [("system", order), *turns]
    role, content = turns[0]
    return [(role, f"{order}\n\n{content}"), *turns[1:]]


def conditional(rng: Random, pool: Pool) -> Conversation:
    """Label a text by which of the named words it mentions; or say whether it mentions a word."""
    cues = words.distinct(rng, rng.randint(2, 4), pool, rng.choice((1, 2)))
    labels = (
        rng.sample(lexicon.NOUNS, len(cues))
        if rng.random() < 0.5
        else words.distinct(rng, len(cues), pool, 1)
    )
    yes_no = rng.random() < 0.35
    if yes_no:
        order = "Does the text mention the word? Answer yes or no."
    else:
        frame = rng.choice(
            (
                "If the text mentions {c}, answer {l}.",
                "Texts with {c} get the label {l}.",
                "{c} means {l}.",
            )
        )
        order = " ".join(
            frame.format(c=cue, l=label) for cue, label in zip(cues, labels, strict=True)
        )
    turns: Conversation = []
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(cues))
        text = f"{filler(rng)} {cues[at]} {filler(rng)}."
        if yes_no:
            asked = rng.choice(cues)
            turns += [
                ("user", f"{text} Word: {asked}"),
                ("assistant", "yes" if asked == cues[at] else "no"),
            ]
        else:
            turns += [("user", text), ("assistant", labels[at])]
    if rng.random() < 0.5:
        return [("system", order), *turns]
    role, content = turns[0]
    return [(role, f"{order}\n\n{content}"), *turns[1:]]


def plain(rng: Random, pool: Pool) -> Conversation:
    """Chat-like small turns whose answer repeats part of the question."""
    who = words.name(rng, pool)
    ask, answer = rng.choice(
        (
            (f"Hello, I am {who}.", f"Hello {who}."),
            (f"My name is {who}. What is my name?", who),
            (f"Good morning from {who}.", f"Good morning {who}."),
            (f"Thank you, says {who}.", f"You are welcome {who}."),
        )
    )
    return with_system(rng, [("user", ask), ("assistant", answer)])
