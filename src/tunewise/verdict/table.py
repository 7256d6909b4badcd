"""The heart of the decision as data: class of the gain × class of the saving → verdict."""

from __future__ import annotations

from tunewise.verdict.words import Because, CostClass, GainClass, Verdict

_FT, _NOT, _OPEN = Verdict.FINE_TUNE, Verdict.DO_NOT_FINE_TUNE, Verdict.UNDECIDED
_UNDERPOWERED = (_OPEN, (Because.UNDERPOWERED,))
_GAIN = (_FT, (Because.GAIN,))
_NO_GAIN = (_NOT, (Because.NO_GAIN,))
_WORSE = (_NOT, (Because.WORSE,))

_SAVES, _DEARER, _UNCLEAR, _UNKNOWN = (
    CostClass.SAVES,
    CostClass.DEARER,
    CostClass.UNCLEAR,
    CostClass.UNKNOWN,
)

TABLE: dict[tuple[GainClass, CostClass], tuple[Verdict, tuple[Because, ...]]] = {
    (GainClass.BETTER, _SAVES): (_FT, (Because.GAIN, Because.COST)),
    (GainClass.BETTER, _DEARER): _GAIN,  # unless its net benefit says otherwise
    (GainClass.BETTER, _UNCLEAR): _GAIN,  # unless its net benefit says otherwise
    (GainClass.BETTER, _UNKNOWN): _GAIN,
    (GainClass.EQUIVALENT, _SAVES): (_FT, (Because.COST,)),
    (GainClass.EQUIVALENT, _DEARER): (_NOT, (Because.NO_GAIN, Because.COST)),
    (GainClass.EQUIVALENT, _UNCLEAR): (_OPEN, (Because.COST,)),
    (GainClass.EQUIVALENT, _UNKNOWN): _NO_GAIN,
    (GainClass.NOT_WORSE, _SAVES): (_FT, (Because.COST,)),
    (GainClass.NOT_WORSE, _DEARER): _UNDERPOWERED,
    (GainClass.NOT_WORSE, _UNCLEAR): _UNDERPOWERED,
    (GainClass.NOT_WORSE, _UNKNOWN): _UNDERPOWERED,
    (GainClass.NOT_BETTER, _SAVES): _UNDERPOWERED,
    (GainClass.NOT_BETTER, _DEARER): _NO_GAIN,
    (GainClass.NOT_BETTER, _UNCLEAR): _UNDERPOWERED,
    (GainClass.NOT_BETTER, _UNKNOWN): _NO_GAIN,
    (GainClass.WORSE, _SAVES): _WORSE,
    (GainClass.WORSE, _DEARER): _WORSE,
    (GainClass.WORSE, _UNCLEAR): _WORSE,
    (GainClass.WORSE, _UNKNOWN): _WORSE,
    (GainClass.UNRESOLVED, _SAVES): _UNDERPOWERED,
    (GainClass.UNRESOLVED, _DEARER): _UNDERPOWERED,
    (GainClass.UNRESOLVED, _UNCLEAR): _UNDERPOWERED,
    (GainClass.UNRESOLVED, _UNKNOWN): _UNDERPOWERED,
}
"""Row 6: what the interval of the gain and the class of the saving say together."""


def gain_class(low: float, high: float, minimal_gain: float) -> GainClass:
    """Where [low, high] lies; every interval with low ≤ high has exactly one class (M ≥ 0)."""
    if low > minimal_gain:
        return GainClass.BETTER
    if low > -minimal_gain:
        return GainClass.EQUIVALENT if high <= minimal_gain else GainClass.NOT_WORSE
    if high < 0:
        return GainClass.WORSE
    return GainClass.NOT_BETTER if high <= minimal_gain else GainClass.UNRESOLVED
