"""More than one pair: simultaneous limits, and alternatives to the best baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError
from tunewise.verdict.compare import compare
from tunewise.verdict.corpus import CorpusMetric
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.words import Method

PairMetric = Callable[[str, str], CorpusMetric]
"""Gives the ``CorpusMetric`` of a pair by the names of its first and second candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimultaneousComparison:
    """The best fine-tuned candidate against the best other one, chosen on the test rows.

    Attributes:
        comparison: as ``compare`` gives it for the two, with limits and p-value corrected for
            the choice.
        with_name, without_name: the two candidates with the best scores.
    """

    comparison: PairedComparison
    with_name: str
    without_name: str


def simultaneous(
    fine_tuned: Mapping[str, npt.ArrayLike],
    others: Mapping[str, npt.ArrayLike],
    *,
    clusters: Sequence[object] | npt.NDArray[np.generic] | None = None,
    binary: bool,
    corpus_metric: PairMetric | None = None,
    repeats: Literal["seeds", "samples"] = "seeds",
    alpha: float = 0.05,
    resamples: int = 10_000,
    rng_seed: int = 0,
) -> SimultaneousComparison:
    """Limits that hold although both champions were chosen on the rows they are tested on.

    With J fine-tuned and K other candidates: ``L = max_j min_i L_ji`` at z(1 − alpha/2J),
    ``U = max_j min_i U_ji`` at z(1 − alpha/2K), ``p = min(1, J·min_j max_i p_ji)``. With one
    candidate a side this is ``compare``. ``z`` stands for the quantile of whichever method
    ``compare`` takes for the pair.

    Args:
        fine_tuned, others: scores by name, as in ``compare``; all on the same rows.

    Raises:
        DataError: as ``compare``, or when a side is empty.
    """
    if not fine_tuned or not others:
        raise DataError(
            "a comparison needs a candidate with fine-tuning and one without",
            hint="Mark recorded candidates that were fine-tuned with `fine_tuned: true`.",
        )

    def pair(j: str, i: str, alpha: float) -> PairedComparison:
        return compare(
            fine_tuned[j],
            others[i],
            clusters=clusters,
            binary=binary,
            corpus_metric=corpus_metric(j, i) if corpus_metric is not None else None,
            repeats=repeats,
            alpha=alpha,
            resamples=resamples,
            rng_seed=rng_seed,
        )

    pairs = {(j, i): pair(j, i, alpha / len(fine_tuned)) for j in fine_tuned for i in others}
    if len(fine_tuned) == len(others):
        upper = pairs
    else:
        upper = {(j, i): pair(j, i, alpha / len(others)) for j, i in pairs}
    best = max(fine_tuned, key=lambda j: pairs[j, next(iter(others))].with_score)
    rival = max(others, key=lambda i: pairs[best, i].without_score)
    chosen = pair(best, rival, alpha)
    if len(pairs) == 1:
        return SimultaneousComparison(comparison=chosen, with_name=best, without_name=rival)
    p = min(max(pairs[j, i].p_value for i in others) for j in fine_tuned)
    corrected = replace(
        chosen,
        low=max(min(pairs[j, i].low for i in others) for j in fine_tuned),
        high=max(min(upper[j, i].high for i in others) for j in fine_tuned),
        p_value=min(1.0, len(fine_tuned) * p),
        method=Method.SIMULTANEOUS,
        warnings=(
            *chosen.warnings,
            f"The best of {len(fine_tuned)} fine-tuned and of {len(others)} other candidates were "
            "chosen on the test rows; the interval is widened for that.",
        ),
    )
    return SimultaneousComparison(comparison=corrected, with_name=best, without_name=rival)


def against_best(
    best: str,
    baselines: Mapping[str, npt.ArrayLike],
    *,
    clusters: Sequence[object] | npt.NDArray[np.generic] | None = None,
    folds: Sequence[int] | None = None,
    binary: bool,
    corpus_metric: PairMetric | None = None,
    repeats: Literal["seeds", "samples"] = "seeds",
    alpha: float = 0.05,
    resamples: int = 10_000,
    rng_seed: int = 0,
) -> dict[str, PairedComparison]:
    """Every other baseline minus the best one, with Bonferroni limits (z(1 − alpha/2K)).

    ``decide`` reads from their lower limits which cheaper baseline would do as well.

    Args:
        best: the name of the best baseline.
        baselines: scores by name, ``best`` among them; all on the same rows.
    """
    rivals = [name for name in baselines if name != best]
    return {
        name: compare(
            baselines[name],
            baselines[best],
            clusters=clusters,
            folds=folds,
            binary=binary,
            corpus_metric=corpus_metric(name, best) if corpus_metric is not None else None,
            repeats=repeats,
            alpha=alpha / len(rivals),
            resamples=resamples,
            rng_seed=rng_seed,
        )
        for name in rivals
    }
