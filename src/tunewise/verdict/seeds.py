"""Several training runs: the error of the rows and the error of the runs, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunewise.verdict.clusters import Clusters, clustered_variance
from tunewise.verdict.intervals import FloatArray

FEWEST_SEEDS = 3
"""With fewer runs the comparison is about these weights, not about the recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLevel:
    """Variance of a difference of means over rows and over runs.

    Attributes:
        variance: row part plus run part.
        row_variance: the part that more rows would shrink.
        seed_variance: the part that only more runs would shrink.
        df: degrees of freedom for t.
    """

    variance: float
    row_variance: float
    seed_variance: float
    df: float


def row_variance(differences: FloatArray, clusters: Clusters | None) -> tuple[float, float]:
    """Variance of the mean of ``differences`` and its degrees of freedom."""
    n = len(differences)
    if clusters is not None and not clusters.singletons:
        return clustered_variance(differences, clusters), clusters.df
    return float(np.var(differences, ddof=1)) / n, float(n - 1)


def two_level(arms: Sequence[FloatArray], clusters: Clusters | None = None) -> TwoLevel:
    """Crossed runs (Satterthwaite 1946): ``V = A + Σ max(0, B − C)`` over the arms with runs.

    A is the variance of the mean of the rows' differences (clustered where groups are known),
    ``B = Var(run means)/S`` and ``C = MS_residual/(nS)`` the share of B that is only the rows'
    noise. ``df = V²/(A²/df_A + B²/(S−1) + C²/((n−1)(S−1)))``, at least S − 1; df_A where no arm
    has B > C. With runs in one arm this is the method's formula; runs of the other arm (orders
    of examples) are independent of them and simply add their part.

    Args:
        arms: the first minus the second arm, or one arm of differences; each (runs, rows).
    """
    n = arms[0].shape[1]
    means = [arm.mean(axis=0) for arm in arms]
    differences = means[0] - means[1] if len(means) == 2 else means[0]
    rows, rows_df = row_variance(differences, clusters)
    seed_part = 0.0
    denominator = rows**2 / rows_df
    least_df: float | None = None
    for arm in arms:
        runs = arm.shape[0]
        if runs < 2:
            continue
        run_means = arm.mean(axis=1, keepdims=True)
        residual = arm - run_means - arm.mean(axis=0) + arm.mean()
        noise_df = (n - 1) * (runs - 1)
        between = float(np.var(run_means, ddof=1)) / runs
        noise = float((residual**2).sum()) / noise_df / (n * runs)
        if between > noise:
            seed_part += between - noise
            denominator += between**2 / (runs - 1) + noise**2 / noise_df
            least_df = runs - 1 if least_df is None else min(least_df, runs - 1)
    variance = rows + seed_part
    if least_df is None or not np.isfinite(variance):
        df = rows_df
    else:
        df = max(least_df, variance**2 / denominator)
    return TwoLevel(variance=variance, row_variance=rows, seed_variance=seed_part, df=df)


def seed_sd(arm: FloatArray) -> float | None:
    """Standard deviation of the run means of an arm (runs, rows); None for a single run."""
    return float(np.std(arm.mean(axis=1), ddof=1)) if arm.shape[0] > 1 else None


def flip_rate(arm: FloatArray) -> float | None:
    """Share of rows on which the runs do not all score the same; None for a single run."""
    return float(np.mean(np.ptp(arm, axis=0) > 0)) if arm.shape[0] > 1 else None
