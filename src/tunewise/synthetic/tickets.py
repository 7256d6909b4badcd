"""Mails to a shop's support, each with the record that the shop wants of it.

Drawn from the seed, and so that nothing on the surface gives the record away: an order's number is
written in ten ways, stands among other numbers, or is missing; a mail speaks of matters of which
nothing is wanted; an angry one may be able to wait, and a friendly one not; words are misspelt.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tunewise.synthetic import ticket_wording as wording
from tunewise.synthetic import words
from tunewise.synthetic.demo import DemoFiles, distinct_rows, split_files

CATEGORIES = tuple(dict.fromkeys(issue.category for issue in wording.ISSUES))
URGENCIES = ("high", "normal", "low")
PROMPT = (
    "Read the mail to our shop and write a JSON record of it, with the keys summary (what is "
    f"wanted, in one short line), category ({', '.join(CATEGORIES)}), order (the six digits of the "
    "order that it is about, else null) and urgency (high where harm or a date is near, low where "
    "it can wait, else normal; the tone does not count)."
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "maxLength": 60},
        "category": {"enum": list(CATEGORIES)},
        "order": {"anyOf": [{"type": "string", "pattern": "^[0-9]{6}$"}, {"type": "null"}]},
        "urgency": {"enum": list(URGENCIES)},
    },
    "required": ["summary", "category", "order", "urgency"],
    "additionalProperties": False,
}
"""What the ticket system takes; all candidates are held to it."""
_NO_ORDER = 0.3
_MISSPELT = 0.45


def ticket(rng: Random) -> tuple[str, str]:
    """A mail and its record as JSON."""
    issue = rng.choice(wording.ISSUES)
    names = _names(rng)
    urgency = rng.choice(URGENCIES)
    order = None if rng.random() < _NO_ORDER else f"{rng.randint(100_000, 999_999)}"
    text = _mail(rng, issue, urgency, order, names)
    record = {
        "summary": issue.summary.format(**names),
        "category": issue.category,
        "order": order,
        "urgency": urgency,
    }
    return text, json.dumps(record)


def _names(rng: Random) -> dict[str, str]:
    item, other = rng.sample(wording.ITEMS, 2)
    day, month = rng.choice(wording.DAYS), rng.choice(words.MONTHS)
    return {
        "item": item,
        "other": other,
        "part": rng.choice(wording.PARTS),
        "day": day,
        "month": month,
        "ago": rng.choice(wording.AGO).format(day=day),
        "place": words.place(rng, "train"),
        "price": f"{rng.randint(9, 120)}.{rng.choice(('00', '50', '90', '95'))}",
        "name": words.name(rng, "train"),
        "family": words.name(rng, "train"),
    }


def _mail(
    rng: Random, issue: wording.Issue, urgency: str, order: str | None, names: dict[str, str]
) -> str:
    def said(options: tuple[str, ...], **more: str) -> str:
        return rng.choice(options).format(**names, **more)

    # What is wanted comes first, last, or in between.
    body = [said(issue.said)]
    if order is not None:
        form = rng.choice(wording.ORDER_FORMS).format(order[:3], order[3:])
        body.append(said(wording.ORDER_SAID, order=form))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        body.append(said(wording.OTHER_NUMBERS, **_number(rng)))
    if urgency != "normal":
        body.append(said(wording.HIGH if urgency == "high" else wording.LOW))
    elif rng.random() < 0.4:
        body.append(said(wording.NEUTRAL_TIMES))
    if rng.random() < 0.5:
        others = [kind for kind in CATEGORIES if kind != issue.category]
        body.append(said(wording.ASIDES[rng.choice(others)]))
    tone = rng.random()
    if tone < 0.55:
        body.append(said(wording.ANGRY if tone < 0.35 else wording.KIND))
    rng.shuffle(body)
    if rng.random() < 0.5:
        body.append(said(wording.WISHES))
    body = [sentence[:1].upper() + sentence[1:] for sentence in body]
    text = _written(rng, body)
    if rng.random() < 0.6:
        text = f"{said(wording.GREETINGS)}{rng.choice((' ', chr(10)))}{text}"
    if rng.random() < 0.4:
        text = f"Subject: {said(wording.SUBJECTS)}\n{text}"
    if rng.random() < 0.6:
        text = f"{text}{rng.choice((' ', chr(10)))}{said(wording.ENDS)}"
    return text


def _number(rng: Random) -> dict[str, str]:
    """A number of the same look as an order's, and the start of a telephone number."""
    halves = str(rng.randint(100, 999)), str(rng.randint(100, 999))
    written = rng.choice(wording.ORDER_FORMS[:6]).format(*halves)
    return {"number": written, "short": str(rng.randint(20, 99))}


def _written(rng: Random, sentences: list[str]) -> str:
    """The sentences by one hand: careful, hasty, or all in small letters."""
    joined = rng.choice((" ", " ", "\n")).join(sentences)
    if rng.random() < 0.2:
        joined = joined.lower()
    if rng.random() < 0.15:
        joined = joined.replace(". ", ", ").rstrip(".")
    if rng.random() < _MISSPELT:
        joined = " ".join(
            _misspelt(rng, word) if rng.random() < 0.12 else word for word in joined.split(" ")
        )
    return joined


def _misspelt(rng: Random, word: str) -> str:
    """Two letters swapped, one lost or one doubled; digits and short words stay."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )


CANDIDATES: list[Any] = [
    "zero_shot",
    {"name": "few_shot", "kind": "few_shot", "k": [3], "selection": ["nearest"], "orders": 1},
    "fine_tuned",
]
SIZES = {"train": 180, "dev": 30, "test": 90}


def generate_tickets(model: str, seed: int) -> DemoFiles:
    """The data and the study of the demonstration on a real model.

    One learning rate and one way of choosing shots, so that a first look takes minutes. The
    desk asks this model for nothing else, so what it forgets is not measured.

    Args:
        model: as the study writes it.
    """
    rng = Random(f"tickets/{seed}")
    rows = distinct_rows("real", lambda: ticket(rng), SIZES)
    study = {
        "name": "demo-real",
        "model": model,
        "data": {split: f"real-{split}.jsonl" for split in SIZES},
        "use_case": "Turn mails to a shop's support into records for the ticket system.",
        "prompt": PROMPT,
        "metric": "json_fields",
        "candidates": CANDIDATES,
        "fine_tune": {"adapter": "lora", "epochs": 3, "learning_rate": 2e-3},
        "target": {"minimal_gain": 2.0},
        "effort": "quick",
        "prompt_search": 0,
        # Room for indented JSON, which an untuned model may write.
        "output": {"json_schema": SCHEMA, "max_tokens": 80},
        "forgetting": {"suite": None},
    }
    return DemoFiles(split_files("real", rows), study)
