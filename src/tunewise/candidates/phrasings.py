"""Instructions written by program, for the search over prompts: the form of the answer in several
ways, with what training rows tell of it.

No model is asked for them, so they cost nothing to make, and two runs try the same ones.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tunewise.candidates.answers import AnswerShape
from tunewise.candidates.search import TextIndex
from tunewise.data.chat import Example
from tunewise.data.content import words

MOST_LISTED = 100
"""Labels that stand in one prompt; of more, each row's nearest are named."""
_NEAREST = 20
_LONGEST_EXAMPLE = 160
_TELLING = 4
_ROLE = "You are careful and exact, and answer in the form that is asked for."

Note = Callable[[Example], str]
"""What is said about the answer's form, for one row."""


@dataclass(frozen=True)
class Phrasing:
    """One way to say what is wanted.

    Attributes:
        name: for the table of what was tried.
        note: what follows the instructions.
        lead: what stands before them; None where nothing does.
    """

    name: str
    note: Note
    lead: str | None = None


class Labels:
    """The labels that a row's prompt names: all, or where they are many, those of like rows.

    Args:
        labels: the commonest first.
        rows: labelled training rows.
    """

    def __init__(self, labels: Sequence[str], rows: Sequence[Example]) -> None:
        self._labels = list(labels)
        self._known = set(labels)
        self._rows = rows
        self._index: TextIndex | None = None

    @property
    def all_named(self) -> bool:
        """Every prompt names every label."""
        return len(self._labels) <= MOST_LISTED

    def of(self, row: Example) -> list[str]:
        """Those of one row, in an order that does not depend on it where all are named."""
        if self.all_named:
            return self._labels
        if self._index is None:
            self._index = TextIndex([one.user_text for one in self._rows])
        found: dict[str, None] = {}
        for place in self._index.top(row.user_text, 10 * _NEAREST):
            one = self._rows[place]
            if one.id != row.id and (label := one.answer.strip()) in self._known:
                found[label] = None
            if len(found) == _NEAREST:
                break
        for label in self._labels:
            if len(found) >= _NEAREST:
                break
            found[label] = None
        return sorted(found)


def phrasings(
    shape: AnswerShape, train: Sequence[Example], dev: Sequence[Example], seed: int
) -> list[Phrasing]:
    """Ways to say what is wanted, the likeliest to help first; none for tool calls.

    Args:
        train: what examples and words come from; rows of dev are left out.
        seed: of the draw of examples.
    """
    held_back = {row.id for row in dev}
    rows = [row for row in train if row.id not in held_back and row.answer.strip()]
    rows = [row for row in rows if row.desirable is not False]
    drawn = random.Random(seed).sample(rows, len(rows))
    match shape.kind:
        case "labels":
            return list(_for_labels(Labels(shape.labels, rows), drawn))
        case "tool_calls":
            return []
        case "number":
            return list(_for_values("a number", "the number alone", drawn))
        case "json_list":
            return list(_for_values("a JSON list", "the JSON list alone", drawn))
        case "json_object":
            return list(_for_values("a JSON object", "the JSON object alone", drawn))
        case _:
            return list(_for_texts(drawn))


def _for_labels(labels: Labels, drawn: Sequence[Example]) -> Iterator[Phrasing]:
    def lines(row: Example, shown: Mapping[str, str] | None = None) -> str:
        named = labels.of(row)
        tails = {label: (shown or {}).get(label) for label in named}
        return "\n".join(f"- {label}{f': {tail}' if tail else ''}" for label, tail in tails.items())

    examples = {label: f"“{text}”" for label, text in _examples(drawn).items()}
    telling = {label: ", ".join(found) for label, found in _telling(drawn).items()}
    yield Phrasing(
        "labels with an example each",
        lambda row: (
            f"Choose the one label that fits best. The labels, each with an example:\n"
            f"{lines(row, examples)}\nAnswer with the label alone."
        ),
    )
    yield Phrasing(
        "labels as a list",
        lambda row: (
            f"The labels:\n{lines(row)}\nAnswer with the one label that fits best, and "
            "nothing else."
        ),
    )
    yield Phrasing(
        "labels with their words",
        lambda row: (
            "Choose the one label that fits best. The labels, with words that tell them:\n"
            f"{lines(row, telling)}\nAnswer with the label alone."
        ),
    )
    yield Phrasing(
        "role, labels as a list",
        lambda row: f"Label: one of\n{lines(row)}",
        lead="You label texts, always with exactly one of the labels given.",
    )
    yield Phrasing(
        "question, labels in a row",
        lambda row: f"Which of these is it: {'; '.join(labels.of(row))}?",
    )


def _for_values(what: str, alone: str, drawn: Sequence[Example]) -> Iterator[Phrasing]:
    by_length = sorted(drawn[:9], key=lambda row: len(row.answer))
    if by_length:
        typical = by_length[len(by_length) // 2]
        answer, question = typical.answer.strip(), _short(typical.user_text)
        yield Phrasing(
            "form with an answer", lambda _: f"Answer with {what}, in this form: {answer}"
        )
        yield Phrasing(
            "form with an example",
            lambda _: f"For instance, to “{question}” the answer is {answer}\nAnswer with {alone}.",
        )
    yield Phrasing("form alone", lambda _: f"Write {alone}. No explanation.")
    yield Phrasing("role", lambda _: f"Answer with {alone}.", lead=_ROLE)


def _for_texts(drawn: Sequence[Example]) -> Iterator[Phrasing]:
    short = [row for row in drawn if len(row.answer) <= _LONGEST_EXAMPLE][:2]
    if short:
        listed = "\n".join(f"- {row.answer.strip()}" for row in short)
        yield Phrasing("form with answers", lambda _: f"Answers look like these:\n{listed}")
        pairs = "\n".join(f"“{_short(row.user_text)}” → {row.answer.strip()}" for row in short)
        yield Phrasing("form with examples", lambda _: f"For instance:\n{pairs}")
    yield Phrasing(
        "role",
        lambda _: "Give the answer only.",
        lead=_ROLE,
    )


def _examples(drawn: Sequence[Example]) -> dict[str, str]:
    """A short text of each label."""
    found: dict[str, str] = {}
    for row in drawn:
        text = " ".join(row.user_text.split())
        if text and len(text) <= _LONGEST_EXAMPLE:
            found.setdefault(row.answer.strip(), text)
    return found


def _telling(drawn: Sequence[Example]) -> dict[str, list[str]]:
    """Words of each label's texts that others' have less often, the most telling first."""
    by_label: dict[str, Counter[str]] = {}
    everywhere: Counter[str] = Counter()
    for row in drawn:
        found = set(words(row.user_text))
        by_label.setdefault(row.answer.strip(), Counter()).update(found)
        everywhere.update(found)
    return {
        label: [
            word
            for word, _ in sorted(
                counts.items(), key=lambda one: (-one[1] * one[1] / everywhere[one[0]], one[0])
            )
            if len(word) > 2
        ][:_TELLING]
        for label, counts in by_label.items()
    }


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST_EXAMPLE else f"{plain[: _LONGEST_EXAMPLE - 1]}…"


def nearest_note(labels: Labels) -> Note:
    """The labels in one sentence, for one row."""
    return lambda row: f"Answer with one of: {', '.join(labels.of(row))}"
