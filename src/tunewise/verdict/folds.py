"""Cross-fitting: every row is tested once, by a system that learnt from the other folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tunewise.verdict.clusters import Clusters, cluster_rows
from tunewise.verdict.intervals import FloatArray
from tunewise.verdict.seeds import TwoLevel, row_variance


def fold_variance(
    differences: FloatArray, folds: npt.NDArray[np.generic], clusters: Clusters | None = None
) -> TwoLevel:
    """Variance of the mean difference where each fold was answered by a system of its own.

    The rows of a fold share one training run, so their differences hang together. Rows nested in
    folds (Satterthwaite 1946): ``V = A + max(0, B − C)`` with A the variance of the mean over rows
    (clustered where groups are known), ``B = Var(fold means)/k``, and C what B would be if the
    folds' systems were equally good. ``df = V²/(A²/df_A + B²/(k − 1) + C²/df_C)``, at least k − 1.
    That the folds' training rows overlap is not in it, and cannot be estimated (Bengio & Grandvalet
    2004): the interval speaks of these rows.

    Args:
        differences: one value a row, shape (n,).
        folds: the fold of each row, shape (n,); groups never reach into two folds.
    """
    rows, rows_df = row_variance(differences, clusters)
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    k = len(parts)
    if k < 2 or min(map(len, parts)) < 2:
        return TwoLevel(variance=rows, row_variance=rows, seed_variance=0.0, df=rows_df)
    means = np.array([differences[part].mean() for part in parts])
    within = [row_variance(differences[part], _of(clusters, part)) for part in parts]
    between = float(np.var(means, ddof=1)) / k
    noise = sum(variance for variance, _ in within) / k**2
    if not between > noise:
        return TwoLevel(variance=rows, row_variance=rows, seed_variance=0.0, df=rows_df)
    variance = rows + between - noise
    noise_df = sum(df for _, df in within)
    squares = rows**2 / rows_df + between**2 / (k - 1) + noise**2 / noise_df
    df = max(k - 1.0, variance**2 / squares)
    return TwoLevel(variance=variance, row_variance=rows, seed_variance=between - noise, df=df)


def _of(clusters: Clusters | None, part: Sequence[int] | npt.NDArray[np.int64]) -> Clusters | None:
    if clusters is None:
        return None
    return cluster_rows(clusters.codes[np.asarray(part)], len(part))
