"""Rows that share a source (document, user, template) are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError
from tunewise.verdict.intervals import FloatArray, two_sided_z


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Which row belongs to which cluster.

    Attributes:
        codes: cluster number of each row, 0 … count − 1, shape (n,).
        sizes: rows of each cluster, shape (count,).
    """

    codes: npt.NDArray[np.int64]
    sizes: FloatArray

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def singletons(self) -> bool:
        """Every row is its own cluster: the rows are known to be independent."""
        return self.count == len(self.codes)

    @property
    def typical_size(self) -> float:
        """``Σm²/Σm``: the cluster size that the average row sees."""
        return float((self.sizes**2).sum() / self.sizes.sum())

    @property
    def df(self) -> float:
        """``max(1, n²/Σm² − 1)``: about the number of clusters, less where sizes are skewed."""
        n = float(self.sizes.sum())
        return max(1.0, n * n / float((self.sizes**2).sum()) - 1.0)

    def sums(self, values: FloatArray) -> FloatArray:
        """Sum of ``values`` in each cluster, shape (count,)."""
        sums = np.bincount(self.codes, weights=values, minlength=self.count)
        return np.asarray(sums, dtype=np.float64)


def cluster_rows(labels: Sequence[object] | npt.NDArray[np.generic], n: int) -> Clusters:
    """Number the clusters of ``n`` rows in order of first appearance.

    Raises:
        DataError: when there is not exactly one label per row.
    """
    if len(labels) != n:
        raise DataError(
            f"{len(labels)} group labels were given for {n} rows",
            hint="Give one group per row, in the order of the rows.",
        )
    numbers: dict[object, int] = {}
    codes = np.fromiter((numbers.setdefault(x, len(numbers)) for x in labels), np.int64, count=n)
    sizes = np.bincount(codes, minlength=len(numbers)).astype(np.float64)
    return Clusters(codes=codes, sizes=sizes)


def clustered_variance(differences: FloatArray, clusters: Clusters) -> float:
    """Variance of the mean of clustered rows: ``V = Σ (r_g/(1 − h_g))²/n²``.

    ``r_g = Σ_{i∈g}(d_i − D)`` and ``h_g = m_g/n``. This is the jackknife over clusters,
    ``Σ (D − D_without_g)²`` (CR3, Bell & McCaffrey 2002), which unlike the plain sandwich holds
    its level with skewed cluster sizes. Infinite with a single cluster.
    """
    n = len(differences)
    share = clusters.sizes / n
    if clusters.count < 2:
        return float("inf")
    residual = clusters.sums(differences - differences.mean())
    return float(((residual / (1 - share)) ** 2).sum()) / n**2


def design_effect(cluster_size: float, icc: float) -> float:
    """``1 + (m − 1)·ICC``: factor on the variance; m is ``Clusters.typical_size``."""
    return 1.0 + (cluster_size - 1.0) * icc


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenGrouping:
    """What it would mean if rows that were taken as independent share sources.

    Attributes:
        rows: rows per source in the example.
        icc: correlation of two rows of one source in the example.
        widening: factor on the interval's width in the example.
        flips_above: the verdict flips if the variance is inflated by more than this factor;
            None where the gain's limit does not stand clear of the minimal gain anyway.
    """

    rows: int
    icc: float
    widening: float
    flips_above: float | None

    def sentence(self) -> str:
        text = (
            f"Rows were treated as independent; if {self.rows} rows share a source at ICC "
            f"{self.icc:g}, the interval is {self.widening:.2f} times wider"
        )
        if self.flips_above is None:
            return text + "."
        return (
            text + "; this verdict flips if hidden grouping inflates the variance by more than "
            f"{self.flips_above:.1f} times."
        )


def hidden_grouping(
    *,
    gain: float,
    se: float,
    minimal_gain: float,
    alpha: float = 0.05,
    rows: int = 5,
    icc: float = 0.3,
) -> HiddenGrouping:
    """How sensitive a verdict on ungrouped rows is to hidden groups; all figures in points."""
    factor = ((gain - minimal_gain) / (two_sided_z(alpha) * se)) ** 2 if se > 0 else None
    return HiddenGrouping(
        rows=rows,
        icc=icc,
        widening=sqrt(design_effect(rows, icc)),
        flips_above=factor if factor is not None and factor > 1.0 else None,
    )
