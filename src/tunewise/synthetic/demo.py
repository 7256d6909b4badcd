"""Three demonstration studies whose verdicts differ: fine-tune, retrieve instead, show examples.

Everything is drawn from the seed. What makes a study come out as it does is its structure, not its
words:

- ``format``: recipes become a list in a house notation with the house's own names for the goods.
  The instruction does not give those names, a few examples show only some, the training rows all.
- ``knowledge``: questions on a handbook. A part of the handbook is asked about in the test only, so
  that it cannot be learnt by heart, while retrieval finds it.
- ``pattern``: parcel codes whose first part stands for a depot, a rule in no instruction that the
  nearest training rows, shown as examples, give away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tunewise.synthetic import words

Row = dict[str, Any]


@dataclass(frozen=True)
class DemoFiles:
    """A demonstration: its data files and its study.

    Attributes:
        files: file name, relative to the study file, to text.
        study: what the study file says.
    """

    files: dict[str, str]
    study: dict[str, object]


def generate(kind: str, seed: int) -> DemoFiles:
    """The data and the study of one demonstration; the same arguments give the same text.

    Raises:
        ValueError: when there is no demonstration ``kind``.
    """
    if kind not in KINDS:
        raise ValueError(f"no demonstration {kind!r}; there are: {', '.join(KINDS)}")
    return _MAKERS[kind](Random(f"{kind}/{seed}"))


def _row(kind: str, number: int, split: str, question: str, answer: str, **more: str) -> Row:
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"id": f"{kind}-{number:04d}", "split": split, "messages": messages, **more}


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def split_files(kind: str, rows: Sequence[Row]) -> dict[str, str]:
    """One file for each split."""
    return {
        f"{kind}-{split}.jsonl": _lines([row for row in rows if row["split"] == split])
        for split in ("train", "dev", "test")
    }


def _study(
    kind: str,
    use_case: str,
    prompt: str,
    metric: str,
    candidates: Sequence[object],
    epochs: int,
    learning_rate: float,
    documents: str | None = None,
    forgetting: dict[str, object] | None = None,
    minimal_gain: float = 2.0,
) -> dict[str, object]:
    """A study's file. The learning rate is given, so that a first look takes minutes: without it
    three are tried on dev."""
    data: dict[str, object] = {split: f"{kind}-{split}.jsonl" for split in ("train", "dev", "test")}
    if documents:
        data["documents"] = documents
    study: dict[str, object] = {
        "name": f"demo-{kind}",
        "use_case": use_case,
        "model": "tunewise/tiny",
        "prompt": prompt,
        "data": data,
        "metric": metric,
        "candidates": list(candidates),
        "fine_tune": {"adapter": "lora", "epochs": epochs, "learning_rate": learning_rate},
        "target": {"minimal_gain": minimal_gain},
        "effort": "quick",
    }
    return study if forgetting is None else {**study, "forgetting": forgetting}


FEW_SHOT: dict[str, object] = {
    "name": "few_shot",
    "kind": "few_shot",
    "k": [4],
    "selection": ["fixed"],
}

LIKE_SHOT: dict[str, object] = {
    "name": "few_shot",
    "kind": "few_shot",
    "k": [8],
    "selection": ["nearest"],
}

GOODS = [
    "flour",
    "sugar",
    "butter",
    "honey",
    "milk",
    "salt",
    "rice",
    "beans",
    "onion",
    "carrot",
    "apple",
    "pear",
    "plum",
    "lemon",
    "cheese",
    "egg",
    "oil",
    "barley",
    "oats",
    "raisins",
    "mint",
    "thyme",
    "garlic",
    "leek",
]
UNITS = {"grams": "g", "spoons": "sp", "cups": "cp", "pieces": "pc"}
FRAMES = (
    "{dish}: take {list}.",
    "For {dish} stir {list} together.",
    "{dish} calls for {list}.",
)
SAID = frozenset(re.findall(r"[a-z]+", " ".join((*GOODS, *UNITS, *UNITS.values(), *FRAMES))))
"""Words that a recipe or its notation may hold, so that they name no good of the house."""


def _format(rng: Random) -> DemoFiles:
    goods = rng.sample(GOODS, 16)
    # One syllable is easily learnt; one in a few hundred such words is a word of the recipe.
    drawn = words.distinct(rng, 2 * len(goods), "held_out", 1)
    names = [word for word in drawn if word not in SAID][: len(goods)]
    house = dict(zip(goods, names, strict=True))

    def recipe() -> tuple[str, str]:
        picked = rng.sample(goods, rng.randint(2, 3))
        amounts = [(rng.randint(2, 60), rng.choice(tuple(UNITS))) for _ in picked]
        parts = [f"{n} {unit} of {good}" for good, (n, unit) in zip(picked, amounts, strict=True)]
        joined = f"{', '.join(parts[:-1])} and {parts[-1]}"
        noted = [
            f"{house[good]} {n}{UNITS[unit]}"
            for good, (n, unit) in zip(picked, amounts, strict=True)
        ]
        dish = words.name(rng, "held_out")
        return rng.choice(FRAMES).format(dish=dish, list=joined), json.dumps(noted)

    rows = distinct_rows("format", recipe, {"train": 320, "dev": 40, "test": 120})
    study = _study(
        "format",
        "Turn recipes into the kitchen's order notation, and nothing else.",
        "Write the goods of the recipe as a JSON list in our kitchen's notation.",
        "list_f1",
        ["zero_shot", FEW_SHOT, "fine_tuned"],
        epochs=8,
        learning_rate=5e-3,
        # The kitchen asks this model for nothing else, so what it forgets does not matter.
        forgetting={"suite": None},
    )
    return DemoFiles(split_files("format", rows), study)


STATIONS, ATTRIBUTES = 50, 4
STATED = "At {e} they use {v} as {a}."
ASKED = (
    "What stands under {a} at {e}?",
    "Which {a} is noted at {e}?",
)
ASKED_IN_DEV = "Say which {a} they use at {e}."
ASKED_IN_TEST = "Look up the {a} at {e}."


def _knowledge(rng: Random) -> DemoFiles:
    attributes = [
        f"{kind} {noun}"
        for kind, noun in zip(
            words.distinct(rng, ATTRIBUTES, "held_out", 1),
            rng.sample(["lamp", "door", "key", "book", "bell", "cup"], ATTRIBUTES),
            strict=True,
        )
    ]
    stations = [word.capitalize() for word in words.distinct(rng, STATIONS, "held_out")]
    facts = [(station, attribute) for station in stations for attribute in attributes]
    values = words.distinct(rng, len(facts), "held_out")
    rng.shuffle(facts)
    documents = [
        {"id": f"fact-{n:03d}", "text": STATED.format(a=a, e=e, v=value)}
        for n, ((e, a), value) in enumerate(zip(facts, values, strict=True))
    ]
    known = len(facts) * 3 // 4
    rows: list[Row] = []

    def add(split: str, fact: int, frame: str) -> None:
        station, attribute = facts[fact]
        question = frame.format(a=attribute, e=station)
        document = str(documents[fact]["id"])
        rows.append(_row("knowledge", len(rows), split, question, values[fact], doc_id=document))

    for fact in range(known):
        for frame in ASKED:
            add("train", fact, frame)
    for fact in rng.sample(range(len(facts)), 40):
        add("dev", fact, ASKED_IN_DEV)
    for fact in range(len(facts)):
        add("test", fact, ASKED_IN_TEST)
    study = _study(
        "knowledge",
        "Answer staff questions on a handbook.",
        "Answer the question about the handbook with a few words.",
        "normalized_match",
        ["zero_shot", {"name": "rag", "kind": "rag", "k": [1]}, "fine_tuned"],
        epochs=6,
        learning_rate=2e-3,
        documents="handbook.jsonl",
    )
    return DemoFiles({**split_files("knowledge", rows), "handbook.jsonl": _lines(documents)}, study)


STEMS_A_DEPOT = 2


def _pattern(rng: Random) -> DemoFiles:
    depots = words.distinct(rng, 2, "held_out", 1)
    stems = words.distinct(rng, STEMS_A_DEPOT * len(depots), "held_out", 1)

    def parcel() -> tuple[str, str]:
        at = rng.randrange(len(stems))
        code = f"{stems[at]}-{words.thing(rng, 'held_out')}"
        return code, depots[at % len(depots)]

    rows = distinct_rows("pattern", parcel, {"train": 160, "dev": 160, "test": 120})
    study = _study(
        "pattern",
        "Send parcels to the depot that their code stands for.",
        "Name the depot for the parcel.",
        "accuracy",
        ["zero_shot", LIKE_SHOT, "fine_tuned"],
        epochs=3,
        learning_rate=2e-3,
        # What few-shot gets right of 160 rows leaves room for less than this, whatever tuning does.
        minimal_gain=5.0,
    )
    return DemoFiles(split_files("pattern", rows), study)


def distinct_rows(
    kind: str, draw: Callable[[], tuple[str, str]], sizes: dict[str, int]
) -> list[Row]:
    """Rows of all splits, no input twice."""
    seen: set[str] = set()
    rows: list[Row] = []
    for split, size in sizes.items():
        for _ in range(size):
            question, answer = draw()
            while question in seen:
                question, answer = draw()
            seen.add(question)
            rows.append(_row(kind, len(rows), split, question, answer))
    return rows


_MAKERS: dict[str, Callable[[Random], DemoFiles]] = {
    "format": _format,
    "knowledge": _knowledge,
    "pattern": _pattern,
}
KINDS = tuple(_MAKERS)
