"""One test or folds: chosen by what a test of so many rows can show."""

from __future__ import annotations

from tunewise.data.split import Split
from tunewise.study.schema import SplitSpec, Study
from tunewise.verdict.planning import GUESSED_DISCORDANCE, mde_from_discordance
from tunewise.words import plural

AUTO_FOLDS = 5
AUTO_MDE = 10.0
"""``auto`` takes folds where one test could only show larger gains than this, in points."""


def folds_of(study: Study, split: Split) -> tuple[int | None, str]:
    """How many folds the rows are tested in, and why; None for one split.

    Args:
        split: as the rows would be split once.
    """
    n, tested = len(split.train) + len(split.dev) + len(split.test), len(split.test)
    setting = study.data.split
    if isinstance(setting, SplitSpec):
        return setting.folds, "That is what `data.split` says."
    once = mde_from_discordance(GUESSED_DISCORDANCE, max(1, tested))
    all_rows = mde_from_discordance(GUESSED_DISCORDANCE, max(1, n))
    if split.how.get("method") != "hash" or study.data.max_test_rows:
        return None, ""
    told = (
        f"One test of {tested:,} of the {n:,} rows shows gains from about {once:.1f} points on, "
        f"{AUTO_FOLDS} folds test them all and show gains from about {all_rows:.1f} points on"
    )
    if once <= AUTO_MDE or n < 3 * AUTO_FOLDS:
        enough = f"One test of {plural(tested, 'row')} shows gains from about {once:.1f} points on."
        return None, enough
    if setting == "auto":
        return AUTO_FOLDS, f"{told}."
    return (
        None,
        f"{told}, at {AUTO_FOLDS} times the training (`data.split: {{folds: {AUTO_FOLDS}}}`).",
    )
