"""From items on disk to the numbers that the verdict rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewise.data.chat import canonical_hash
from tunewise.data.thoughts import without_thoughts
from tunewise.pipeline.store import Item, Store
from tunewise.scoring.answers import calls_as_text
from tunewise.scoring.base import ItemScore, ResampledScorer, Scorer
from tunewise.scoring.normalize import squash
from tunewise.study.schema import CandidateSpec, Study
from tunewise.verdict.compare import compare
from tunewise.verdict.corpus import CorpusMetric, corpus_metric_of
from tunewise.verdict.intervals import FloatArray
from tunewise.verdict.multiple import PairMetric, against_best, simultaneous
from tunewise.verdict.result import PairedComparison
from tunewise.verdict.single import effective_rows, score_interval

_FEWEST_ANSWERS = 20


@dataclass(frozen=True, slots=True)
class Alike:
    """The commonest of several answers, as first written; its share of them (0..1); how many."""

    text: str
    share: float
    n: int


def commonest(texts: Sequence[str]) -> Alike:
    """The answer that is given most often, whatever its case and spacing.

    Args:
        texts: at least one.
    """
    counts = Counter(map(squash, texts))
    answer, count = counts.most_common(1)[0]
    return Alike(next(t for t in texts if squash(t) == answer), count / len(texts), len(texts))


@dataclass(frozen=True)
class Arm:
    """One candidate's answers on one split.

    Attributes:
        ids: of the rows, in the order of ``scores``' second axis.
        scores: 0..1, shape (runs, n); a row without an answer is 0 and failed.
        items: per run, in row order; None for a row without an answer.
        failed: share of answers (0..1) that failed.
    """

    spec: CandidateSpec
    ids: tuple[str, ...]
    scores: FloatArray
    items: tuple[tuple[Item | None, ...], ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def failures(self) -> int:
        return sum(i is None or i.error is not None for run in self.items for i in run)

    @property
    def failed(self) -> float:
        return self.failures / max(1, self.scores.size)

    def rows(self, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> Arm:
        """The arm on some of its rows."""
        places = np.flatnonzero(keep)
        return Arm(
            self.spec,
            tuple(self.ids[i] for i in places),
            self.scores[:, places],
            tuple(tuple(run[i] for i in places) for run in self.items),
        )

    def alike(self) -> Alike | None:
        """The commonest of its answers; None where too few are known to speak of any.

        Failed requests gave no answer, and of a recorded score there is none to see.
        """
        texts = [
            without_thoughts(i.answer) or calls_as_text(i.tool_calls)
            for i in self.answered()
            if i.error is None and not i.details.get("recorded")
        ]
        return commonest(texts) if len(texts) >= _FEWEST_ANSWERS else None

    def item_scores(self) -> list[list[ItemScore]]:
        """What corpus metrics are computed from, per run."""
        return [
            [
                ItemScore(0.0) if i is None else ItemScore(i.score, details=i.details, data=i.data)
                for i in run
            ]
            for run in self.items
        ]

    def answered(self) -> list[Item]:
        """All items of all runs."""
        return [i for run in self.items for i in run if i is not None]


def load_arm(
    store: Store, spec: CandidateSpec, split: str, ids: Sequence[str], under: str | None = None
) -> Arm | None:
    """A candidate's items on a split as an arm over ``ids``; None where it was not asked.

    Args:
        under: the name that the items stand under, where it is not the candidate's own.
    """
    items = store.items(under or spec.name, split)
    if not items:
        return None
    seeds: dict[int | None, dict[str, Item]] = {}
    for item in items:
        seeds.setdefault(item.seed, {})[item.id] = item
    runs = tuple(tuple(by_id.get(id_) for id_ in ids) for by_id in seeds.values())
    scores = np.array([[0.0 if i is None else i.score for i in run] for run in runs])
    return Arm(spec, tuple(ids), scores, runs)


@dataclass
class Bench:
    """How arms are scored and compared: the metric, the groups of the rows, the seed.

    Attributes:
        folds: the fold of each test row, where the rows were tested fold by fold.
        alpha: 1 − the level of the intervals of comparisons (``sequential.look_alpha`` on test).
    """

    study: Study
    scorer: Scorer
    clusters: Mapping[str, str] | None = None
    alpha: float = 0.05
    folds: Mapping[str, int] | None = None

    def groups(self, arm: Arm) -> list[str] | None:
        """The group of each row; None where groups are unknown."""
        if self.clusters is None:
            return None
        return [self.clusters.get(id_, id_) for id_ in arm.ids]

    def folds_of(self, arm: Arm) -> list[int] | None:
        """The fold of each row; None where one system answered them all."""
        if self.folds is None:
            return None
        return [self.folds[id_] for id_ in arm.ids]

    def binary(self, *arms: Arm) -> bool:
        """Whether all scores are 0 or 1 (recorded scores may be, whatever the metric says)."""
        if self.scorer.corpus:
            return False
        return all(bool(np.isin(arm.scores, (0.0, 1.0)).all()) for arm in arms)

    def corpus(self, *arms: Arm) -> CorpusMetric | None:
        """The metric of picked sets, where it is not the mean of the rows."""
        if not self.scorer.corpus:
            return None
        stack = [item for arm in arms for run in arm.item_scores() for item in run]
        scorer = self.scorer
        if not isinstance(scorer, ResampledScorer):
            return corpus_metric_of(scorer.aggregate, stack)
        return lambda picks: scorer.aggregate_indices(stack, picks)

    def score(self, arm: Arm) -> float:
        """The arm's score in points, runs averaged."""
        if self.scorer.corpus:
            return 100 * float(np.mean([self.scorer.aggregate(r) for r in arm.item_scores()]))
        return 100 * float(arm.scores.mean())

    def interval(self, arm: Arm) -> tuple[float, float]:
        """The score's 95 % interval in points."""
        limits = score_interval(
            arm.scores,
            clusters=self.groups(arm),
            corpus_metric=self.corpus(arm),
            rng_seed=self.study.seed,
        )
        return limits.low, limits.high

    def effective_rows(self, arm: Arm) -> float:
        """What grouped rows are worth as independent ones."""
        from tunewise.verdict.clusters import cluster_rows

        groups = self.groups(arm)
        clusters = cluster_rows(groups, len(arm.ids)) if groups is not None else None
        return effective_rows(arm.scores.mean(axis=0), clusters)

    def compare(self, with_: Arm, without: Arm) -> PairedComparison:
        """With fine-tuning against without, on the same rows."""
        return compare(
            with_.scores,
            without.scores,
            clusters=self.groups(with_),
            folds=self.folds_of(with_),
            binary=self.binary(with_, without),
            corpus_metric=self.corpus(with_, without),
            alpha=self.alpha,
            rng_seed=self.study.seed,
        )

    def best_of_all(
        self, tuned: Sequence[Arm], others: Sequence[Arm]
    ) -> tuple[PairedComparison, str, str]:
        """Champions chosen on the very test rows, with limits widened for that."""
        arms = {arm.name: arm for arm in (*tuned, *others)}
        result = simultaneous(
            {a.name: a.scores for a in tuned},
            {a.name: a.scores for a in others},
            clusters=self.groups(tuned[0]),
            binary=self.binary(*arms.values()),
            corpus_metric=self._pair_metric(arms) if self.scorer.corpus else None,
            alpha=self.alpha,
            rng_seed=self.study.seed,
        )
        return result.comparison, result.with_name, result.without_name

    def against_best(self, best: Arm, baselines: Sequence[Arm]) -> dict[str, PairedComparison]:
        """Every other baseline against the best, with Bonferroni limits."""
        arms = {arm.name: arm for arm in baselines}
        return against_best(
            best.name,
            {name: arm.scores for name, arm in arms.items()},
            clusters=self.groups(best),
            folds=self.folds_of(best),
            binary=self.binary(*baselines),
            corpus_metric=self._pair_metric(arms) if self.scorer.corpus else None,
            alpha=self.alpha,
            rng_seed=self.study.seed,
        )

    def _pair_metric(self, arms: Mapping[str, Arm]) -> PairMetric:
        def metric(one: str, other: str) -> CorpusMetric:
            found = self.corpus(arms[one], arms[other])
            assert found is not None
            return found

        return metric


def champion(bench: Bench, arms: Sequence[Arm]) -> Arm | None:
    """The best arm on dev; at equal scores the one with fewer tokens, then the simpler kind.

    The simpler way costs less and breaks less.
    """
    if not arms:
        return None

    def rank(arm: Arm) -> tuple[float, float, int, str]:
        tokens = mean_tokens(arm) or 0.0
        complexity = arm.spec.traits.complexity
        return (-round(bench.score(arm), 9), tokens, complexity, arm.name)

    return min(arms, key=rank)


def mean_tokens(arm: Arm) -> float | None:
    """Prompt and answer tokens of a request, on average; None where they were not counted."""
    counts = [
        (i.prompt_tokens or 0) + (i.completion_tokens or 0)
        for i in arm.answered()
        if i.prompt_tokens is not None
    ]
    return float(np.mean(counts)) if counts else None


def averaged_items(arm: Arm) -> list[Item]:
    """One item a row for costs: tokens and times averaged over the runs."""
    rows = []
    for place, id_ in enumerate(arm.ids):
        items = [run[place] for run in arm.items]
        found = [i for i in items if i is not None and i.error is None]

        def mean(values: Sequence[float | None]) -> float | None:
            known = [v for v in values if v is not None]
            return float(np.mean(known)) if known and len(known) == len(values) else None

        prompt = mean([i.prompt_tokens for i in found])
        completion = mean([i.completion_tokens for i in found])
        cached = mean([i.cached_tokens for i in found])
        static = mean([i.static_tokens for i in found])
        rows.append(
            Item(
                id=id_,
                candidate=arm.name,
                split="test",
                score=0.0,
                prompt_tokens=None if prompt is None else round(prompt),
                completion_tokens=None if completion is None else round(completion),
                cached_tokens=None if cached is None else round(cached),
                static_tokens=None if static is None else int(static),
                latency_s=mean([i.latency_s for i in found]),
                error=None if found else "no answer",
            )
        )
    return rows


def dev_by_hash(keys: Sequence[str], fraction: float, seed: int) -> set[str]:
    """The share of recorded rows that plays dev: by hash of id or group, whatever the order."""
    limit = int(fraction * 2**32)
    return {k for k in keys if int(canonical_hash([seed, k])[:8], 16) < limit}
