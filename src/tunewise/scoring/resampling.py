"""Sums of per-row statistics over many picked sets of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def resampled_sums(statistics: Any, index_matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Column sums over each picked set, shape (sets, columns).

    Args:
        statistics: dense or sparse, shape (rows, columns).
        index_matrix: row numbers, repeats allowed, shape (sets, rows per set).
    """
    import numpy as np
    from scipy.sparse import csr_array, issparse

    sets, size = index_matrix.shape
    # A sparse row per set with a 1 for each pick (repeats add up): no copy of picked statistics.
    picks = csr_array(
        (np.ones(index_matrix.size), index_matrix.ravel(), np.arange(0, sets * size + 1, size)),
        shape=(sets, statistics.shape[0]),
    )
    sums = picks @ statistics
    return np.asarray(sums.toarray() if issparse(sums) else sums, dtype=np.float64)
