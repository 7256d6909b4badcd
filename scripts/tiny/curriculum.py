"""The pretraining mix: which task family how often, and in which stage."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from tiny import forms, shots, tasks
from tiny.tasks import Conversation, Task
from tunewise.synthetic.words import Pool

STAGES = ("repeat", "symbols", "language", "long")
Symbolic = Literal["repeated", "look_ups", "pattern"]


def _bind(most: int, asked: int) -> Task:
    def reading(rng: Random, pool: Pool) -> Conversation:
        return tasks.reading(rng, pool, rng.randint(1, most), rng.randint(1, asked))

    return reading


def _shots(rng: Random, pool: Pool) -> Conversation:
    return shots.shots(rng, pool)


MIX: dict[str, tuple[tuple[Task | Symbolic, float], ...]] = {
    "repeat": (("repeated", 1.0),),
    "symbols": (
        ("repeated", 0.1),
        ("look_ups", 0.45),
        ("pattern", 0.15),
        (tasks.first_look_ups, 0.1),
        (shots.records, 0.1),
        (shots.first_patterns, 0.1),
    ),
    "language": (
        ("repeated", 0.03),
        ("look_ups", 0.1),
        (tasks.first_look_ups, 0.08),
        (_bind(8, 5), 0.25),
        (forms.extraction, 0.07),
        (forms.typed_extraction, 0.06),
        (forms.copying, 0.06),
        (_shots, 0.2),
        (forms.structured, 0.1),
        (forms.wrapped, 0.04),
        (forms.conditional, 0.05),
        (forms.arithmetic, 0.02),
        (forms.plain, 0.01),
    ),
    "long": (
        ("repeated", 0.02),
        ("look_ups", 0.03),
        (tasks.first_look_ups, 0.05),
        (_bind(12, 8), 0.42),
        (forms.extraction, 0.06),
        (forms.typed_extraction, 0.05),
        (forms.copying, 0.03),
        (_shots, 0.2),
        (forms.structured, 0.07),
        (forms.wrapped, 0.03),
        (forms.conditional, 0.02),
        (forms.arithmetic, 0.01),
        (forms.plain, 0.01),
    ),
}


@dataclass(frozen=True)
class Mixer:
    """Draws conversations of one stage, or names a family over random tokens."""

    stage: str

    def draw(self, rng: Random, pool: Pool = "train") -> Conversation | Symbolic:
        """One conversation of a family drawn by its share, or the name of a symbolic family."""
        families = MIX[self.stage]
        task = rng.choices([t for t, _ in families], [w for _, w in families])[0]
        return task if isinstance(task, str) else task(rng, pool)
