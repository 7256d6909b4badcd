"""Rows that ask the same tell little more of a system than one of them: they are one cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewise.data.chat import Example, text_of
from tunewise.data.content import calls_text, hash64, words


@dataclass(frozen=True, slots=True)
class Together:
    """Which rows belong together.

    Attributes:
        clusters: the cluster of each row that is in a group, or whose question another row asks
            too, by its id; the name of a cluster does not depend on the order of the rows.
        repeated: rows whose question another row asks too.
        questions: different questions among all rows; a row without one is its own.
    """

    clusters: Mapping[str, str]
    repeated: int
    questions: int


def question_key(row: Example) -> str | None:
    """What two rows have in common that ask the same; None where nothing is asked.

    All that the model is shown counts, tools too: under an instruction that all rows share, what
    stands in the system message may be the question. Case, spaces and ordinary punctuation do not.
    """
    parts = [
        (str(m.get("role")), " ".join(words(text_of(m))), calls_text(m.get("tool_calls") or ()))
        for m in row.prompt
    ]
    if not any(text for _, text, _ in parts):
        return None
    tools = json.dumps([dict(tool) for tool in row.tools], sort_keys=True) if row.tools else ""
    return f"question {hash64(json.dumps([parts, tools])):016x}"


def together(rows: Sequence[Example]) -> Together:
    """Rows of one group, or of one question, and whatever hangs together by both."""
    keys = [
        [key for key in (_group(row), question_key(row)) if key is not None] or [f"row {row.id}"]
        for row in rows
    ]
    asked = [row_keys[-1] for row_keys in keys]
    times: dict[str, int] = {}
    for key in asked:
        times[key] = times.get(key, 0) + 1
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for row_keys in keys:
        one, other = root(row_keys[0]), root(row_keys[-1])
        parent[max(one, other)] = min(one, other)
    return Together(
        clusters={
            row.id: root(row_keys[0])
            for row, row_keys, key in zip(rows, keys, asked, strict=True)
            if row.group is not None or times[key] > 1
        },
        repeated=sum(times[key] > 1 for key in asked),
        questions=len(times),
    )


def _group(row: Example) -> str | None:
    return None if row.group is None else f"group {row.group}"
