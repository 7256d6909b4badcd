"""The pretraining mix: which task family how often, and in which stage."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tiny import forms, shots, tasks
from tiny.tasks import Conversation
from tunewise.synthetic.words import Pool

STAGES = ("repeat", "records", "look up", "language", "long")


def _reading(rng: Random, pool: Pool, most: int, asked: int) -> Conversation:
    count = rng.randint(1, most)
    return tasks.reading(rng, pool, count, rng.randint(1, asked))


def _bind(most: int, asked: int) -> tasks.Task:
    return lambda rng, pool: _reading(rng, pool, most, asked)


def _shots(rng: Random, pool: Pool) -> Conversation:
    return shots.shots(rng, pool)


MIX: dict[str, tuple[tuple[str, tasks.Task, float], ...]] = {
    "records": (("records", shots.records, 0.85), ("first patterns", shots.first_patterns, 0.15)),
    "look up": (
        ("records", shots.records, 0.2),
        ("first look-ups", tasks.first_look_ups, 0.45),
        ("first patterns", shots.first_patterns, 0.25),
        ("copying", forms.copying, 0.1),
    ),
    "language": (
        ("reading", _bind(8, 5), 0.3),
        ("extraction", forms.extraction, 0.08),
        ("typed extraction", forms.typed_extraction, 0.07),
        ("copying", forms.copying, 0.07),
        ("shots", _shots, 0.24),
        ("structured", forms.structured, 0.1),
        ("wrapped", forms.wrapped, 0.05),
        ("conditional", forms.conditional, 0.05),
        ("arithmetic", forms.arithmetic, 0.03),
        ("plain", forms.plain, 0.01),
    ),
    "long": (
        ("reading", _bind(14, 4), 0.4),
        ("extraction", forms.extraction, 0.06),
        ("typed extraction", forms.typed_extraction, 0.06),
        ("copying", forms.copying, 0.05),
        ("shots", _shots, 0.2),
        ("structured", forms.structured, 0.1),
        ("wrapped", forms.wrapped, 0.05),
        ("conditional", forms.conditional, 0.04),
        ("arithmetic", forms.arithmetic, 0.03),
        ("plain", forms.plain, 0.01),
    ),
}


@dataclass(frozen=True)
class Mixer:
    """Draws conversations of one stage."""

    stage: str

    def draw(self, rng: Random, pool: Pool = "train") -> Conversation:
        """One conversation of a family drawn by its share."""
        families = MIX[self.stage]
        task = rng.choices([t for _, t, _ in families], [w for _, _, w in families])[0]
        return task(rng, pool)
