"""What must be read together with the headline: figures that are likely not what they seem."""

from __future__ import annotations

from collections.abc import Mapping

from tunewise.data.thoughts import UNFINISHED
from tunewise.pipeline.evidence import Arm
from tunewise.pipeline.measured import Measured
from tunewise.words import some_of, verb

MOST_UNFINISHED = 0.02
"""Share of answers without room for their thoughts from which a score is not the model's."""
_LOW = 50.0
_HIGH = 95.0
_SHOWN = 60


def cautions(measured: Measured) -> list[str]:
    """Candidates that answer nearly always alike, and scores that stand out as no score does."""
    arms = measured.test or measured.dev
    return [*_collapsed(measured, arms), *_unfinished(arms), *_implausible(measured, arms)]


def _collapsed(measured: Measured, arms: Mapping[str, Arm]) -> list[str]:
    found = []
    for arm in arms.values():
        alike = measured.collapsed(arm)
        if alike is not None:
            text = alike.text if len(alike.text) <= _SHOWN else f"{alike.text[: _SHOWN - 1]}…"
            given = repr(text) if text.strip() else "nothing"
            found.append(
                f"{arm.name} answers {given} in {round(alike.share * alike.n):,} of {alike.n:,} "
                "rows, where the wanted answers differ: it has collapsed to one answer."
            )
    return found


def _unfinished(arms: Mapping[str, Arm]) -> list[str]:
    """Candidates whose thoughts had no room: each of those answers counts as wrong."""
    found = []
    for arm in arms.values():
        items = arm.answered()
        open_ = sum(item.details.get("reason") == UNFINISHED for item in items)
        if open_ > MOST_UNFINISHED * len(items):
            found.append(
                f"{arm.name}: {some_of(open_, len(items), 'answer')} ended inside a thought, and "
                f"{verb(open_, 'counts', 'count')} as wrong: raise `output.max_tokens`."
            )
    return found


def _implausible(measured: Measured, arms: Mapping[str, Arm]) -> list[str]:
    """An arm at 0, or above 95, where every other is under 50."""
    found = []
    scores = {name: measured.bench.score(measured.kept(arm)) for name, arm in arms.items()}
    for name, score in scores.items():
        others = [other for key, other in scores.items() if key != name]
        if arms[name].spec.is_constant or not others or max(others) >= _LOW:
            continue
        if score == 0 and max(others) > 0:
            found.append(
                f"{name} scores 0.0: look at its answers. A wrong column, a form of answer that "
                "the metric does not read, or a broken model is likelier than no right answer."
            )
        elif score > _HIGH:
            found.append(
                f"{name} scores {score:.1f} where every other candidate is under {_LOW:g}: look "
                "for a leak or a wrong column before believing it."
            )
    return found
