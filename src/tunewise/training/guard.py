"""When a run must stop of itself: a loss that is not a number, or far above its recent past."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewise.training.job import LossSpikeError, NotFiniteError

WINDOW = 50
"""A step's loss is compared with those of so many steps before it…"""
FEWEST = 20
"""…once there are so many."""
SPREAD_FLOOR = 0.05
"""Least spread, of the median and in nats: a loss that is nearly constant must not be touchy."""
_SHOWN = 8


def rise(before: Sequence[float], loss: float) -> float:
    """How many robust standard deviations ``loss`` lies above the recent past; 0 where unknown.

    The spread is the median absolute deviation times 1.4826 (its ratio to the standard deviation
    of a normal distribution), but at least ``SPREAD_FLOOR``.
    """
    if len(before) < FEWEST:
        return 0.0
    recent = np.asarray(before[-WINDOW:], np.float64)
    middle = float(np.median(recent))
    spread = 1.4826 * float(np.median(np.abs(recent - middle)))
    return (loss - middle) / max(spread, SPREAD_FLOOR * abs(middle), SPREAD_FLOOR)


def not_finite(what: str, step: int, rows: Sequence[str], where: str) -> NotFiniteError:
    """The error for a loss or gradient that is not a number, at step ``step`` (from 1)."""
    shown = ", ".join(map(repr, rows[:_SHOWN]))
    return NotFiniteError(
        f"the {what} is not a number at step {step}; rows {shown}",
        where=where,
        hint="A lower learning rate usually helps; look at these rows for odd content "
        "(`tunewise audit ROWS --tokens ID` shows one). The last good checkpoint is intact.",
    )


def check_spike(
    before: Sequence[float],
    loss: float,
    limit: float | None,
    each: Sequence[tuple[float, str]],
    where: str,
) -> None:
    """Stop where the loss has jumped.

    Args:
        before: the losses of all steps before this one.
        limit: of ``rise``; None lets everything pass.
        each: the loss of each item of this step, with its row.

    Raises:
        LossSpikeError: names the rows with the highest losses, and their values.
    """
    if limit is None or rise(before, loss) <= limit:
        return
    worst = ", ".join(
        f"{row!r} ({value:.3g})" for value, row in sorted(each, reverse=True)[:_SHOWN]
    )
    usual = float(np.median(before[-WINDOW:]))
    raise LossSpikeError(
        f"the loss jumped to {loss:.3g} at step {len(before) + 1}, from {usual:.3g} in the steps "
        f"before; its rows with the highest loss: {worst}",
        where=where,
        hint="Look at these rows for odd content (`tunewise audit ROWS --tokens ID` shows one), "
        "or lower the learning rate. To go on from the "
        "last checkpoint regardless, set `fine_tune.loss_spike: null`.",
    )
