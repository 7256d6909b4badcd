"""What a paired comparison has to say."""

from __future__ import annotations

from dataclasses import dataclass

from tunewise.verdict.words import About, Method, SignificanceTest

FEWEST_CLUSTERS = 6
"""With fewer clusters no interval can be trusted and the verdict stays undecided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discordance:
    """The table of two 0/1 scores on the same rows."""

    both: int
    only_with: int
    only_without: int
    neither: int

    @property
    def share(self) -> float:
        """Share of rows on which the two differ, 0..1."""
        total = self.both + self.only_with + self.only_without + self.neither
        return (self.only_with + self.only_without) / total


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """What the test says about "with fine-tuning" against "without"; in points (0..100).

    Attributes:
        gain: with − without.
        low, high: limits of the gain at ``1 − alpha``; they alone decide.
        p_value: of "gain = 0"; descriptive. 1 where no test exists (one row or one cluster).
        method, test: how the limits and the p-value were made.
        n: rows. clusters: groups among them, None where no groups were given.
        folds: folds that were each answered by a system of its own; None where there are none.
        seeds, seeds_without: runs (or samples) averaged in each arm.
        about: the checkpoint, or with three or more training runs the recipe.
        with_score, without_score: the two scores.
        without_low: lower limit of the score without (for "the target is met").
        discordance: the 0/1 table; None for other scores or several runs.
        se: standard error of the gain, rows and runs together; 100 where it cannot be known.
        seed_se: its part that only more runs would shrink.
        sd_difference: ``√n`` times the row part of ``se``: the spread of one row's difference,
            clusters included; what planning needs.
        df: degrees of freedom of t; None for other methods.
        seed_sd: spread of the runs' scores with fine-tuning; None for one run.
        flip_rate: share of rows (0..1) on which those runs do not score alike.
        warnings: sentences for the reader.
    """

    gain: float
    low: float
    high: float
    p_value: float
    method: Method
    test: SignificanceTest
    alpha: float
    n: int
    clusters: int | None
    seeds: int
    seeds_without: int
    about: About
    with_score: float
    without_score: float
    without_low: float
    discordance: Discordance | None
    se: float
    seed_se: float
    sd_difference: float
    df: float | None
    seed_sd: float | None
    flip_rate: float | None
    warnings: tuple[str, ...]
    folds: int | None = None

    @property
    def too_few_clusters(self) -> bool:
        return self.clusters is not None and self.clusters < FEWEST_CLUSTERS
