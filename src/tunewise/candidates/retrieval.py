"""Retrieval: which passages go with a question, and how often they are the right ones.

BM25, or BM25 fused with a dense part: by reciprocal ranks (k = 60, Cormack et al. 2009), or by a
convex combination of min-max normalised scores, which beats it where a few labels can set the
weight (Bruch et al., 2210.11934).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tunewise.candidates.dense import Encoder, load_encoder
from tunewise.candidates.passages import HasText, Passage, cut
from tunewise.candidates.search import TextIndex, best
from tunewise.data.chat import Example
from tunewise.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Scores = np.ndarray[Any, np.dtype[np.float32]]

PASSAGE_WORDS = 120
PROBLEM_BELOW = 0.8
_RRF_K = 60
_DEPTH = 100
_WEIGHTS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Ranking:
    """How passages are ranked.

    Attributes:
        by: ``bm25``, ``rrf`` or ``convex``.
        dense_weight: share of the dense score in a convex combination.
    """

    by: Literal["bm25", "rrf", "convex"] = "bm25"
    dense_weight: float | None = None

    def as_dict(self) -> dict[str, Any]:
        weight = {} if self.dense_weight is None else {"dense_weight": self.dense_weight}
        return {"ranking": self.by, **weight}


@dataclass(frozen=True, eq=False)
class _Corpus:
    passages: Sequence[Passage]
    index: TextIndex
    encoder: Encoder | None
    vectors: Scores | None
    documents: frozenset[str]


@dataclass(frozen=True, eq=False)
class Retrieval:
    """A searchable corpus with one ranking. Deterministic; asks no language model."""

    corpus: _Corpus
    ranking: Ranking = Ranking()

    @classmethod
    def over(
        cls,
        documents: Sequence[HasText],
        *,
        passage_words: int = PASSAGE_WORDS,
        dense: str | None = None,
    ) -> Retrieval:
        """Cut and index ``documents``.

        Raises:
            DataError: when no document has text.
            MissingExtraError, ModelError: when ``dense`` cannot be loaded.
        """
        passages = cut(documents, passage_words)
        if not passages:
            raise DataError(
                "the documents for retrieval hold no text", hint="Check `data.documents`."
            )
        texts = [passage.as_text() for passage in passages]
        encoder = load_encoder(dense) if dense else None
        vectors = encoder(texts) if encoder else None
        held = frozenset(passage.document for passage in passages)
        return cls(_Corpus(passages, TextIndex(texts), encoder, vectors, held))

    def __len__(self) -> int:
        """How many passages there are."""
        return len(self.corpus.passages)

    def ranked(self, ranking: Ranking) -> Retrieval:
        """The same corpus under another ranking."""
        return replace(self, ranking=ranking)

    def rankings(self, *, labelled: bool) -> list[Ranking]:
        """The rankings to choose from; weights only where labels can set them."""
        found = [Ranking()]
        if self.corpus.encoder is not None:
            found.append(Ranking("rrf"))
            if labelled:
                found.extend(Ranking("convex", weight) for weight in _WEIGHTS)
        return found

    def top(self, query: str, k: int) -> list[Passage]:
        """The ``k`` best passages for ``query``, best first; ties by their order."""
        return [self.corpus.passages[i] for i in best(self._scores(query), k)]

    def within(self, query: str, document: str) -> Passage | None:
        """The best passage of one document."""
        places = [i for i, p in enumerate(self.corpus.passages) if p.document == document]
        if not places:
            return None
        scores = self._scores(query)
        return self.corpus.passages[max(places, key=lambda i: (scores[i], -i))]

    def unknown(self, examples: Sequence[Example]) -> list[str]:
        """Document ids that rows name and that are not in the corpus, sorted."""
        named = {document for example in examples for document in example.documents}
        return sorted(named - self.corpus.documents)

    def recall(self, examples: Sequence[Example], ks: Sequence[int]) -> dict[int, float]:
        """recall@k: the share of a row's named documents among its first k passages, averaged.

        Rows that name no document do not count; named documents that are not in the corpus count
        as not found. Empty where no row names one.
        """
        rows = [e for e in examples if e.documents]
        if not rows:
            return {}
        sums = dict.fromkeys(ks, 0.0)
        for row in rows:
            wanted = set(row.documents)
            found = [passage.document for passage in self.top(row.user_text, max(ks))]
            for k in ks:
                sums[k] += len(wanted & set(found[:k])) / len(wanted)
        return {k: total / len(rows) for k, total in sums.items()}

    def _scores(self, query: str) -> Scores:
        import numpy as np

        sparse = self.corpus.index.scores(query)
        if self.ranking.by == "bm25" or self.corpus.encoder is None:
            return sparse
        assert self.corpus.vectors is not None
        dense: Scores = self.corpus.vectors @ self.corpus.encoder([query])[0]
        if self.ranking.by == "rrf":
            fused = np.zeros(len(sparse), dtype=np.float32)
            for scores in (sparse, dense):
                for rank, place in enumerate(best(scores, _DEPTH), 1):
                    if scores[place] > 0:
                        fused[place] += 1 / (_RRF_K + rank)
            return fused
        weight = np.float32(self.ranking.dense_weight or 0.0)
        return weight * _normalised(dense) + (1 - weight) * _normalised(sparse)


def choose_ranking(
    retrieval: Retrieval, dev: Sequence[Example], ks: Sequence[int]
) -> tuple[Retrieval, list[Mapping[str, Any]]]:
    """The ranking with the best recall on dev, averaged over ``ks``; and what was tried.

    Needs dev rows that name documents; asks no language model.
    """
    tried: list[Mapping[str, Any]] = []
    leader, top_score = retrieval, -1.0
    for ranking in retrieval.rankings(labelled=True):
        candidate = retrieval.ranked(ranking)
        recall = candidate.recall(dev, ks)
        tried.append({**ranking.as_dict(), "recall": {str(k): v for k, v in recall.items()}})
        score = sum(recall.values()) / len(recall)
        if score > top_score:
            leader, top_score = candidate, score
    return leader, tried


def recall_report(
    retrieval: Retrieval, rows: Sequence[Example], ks: Sequence[int], k: int
) -> dict[str, Any]:
    """recall@k for the report, with a warning where retrieval itself is the problem."""
    recall = retrieval.recall(rows, ks)
    if not recall:
        return {"recall": None, "recall_rows": 0, "retrieval_problem": None}
    low = recall[k] < PROBLEM_BELOW
    report: dict[str, Any] = {
        "recall": {str(at): value for at, value in recall.items()},
        "recall_rows": sum(1 for row in rows if row.documents),
        "retrieval_problem": low,
    }
    if unknown := retrieval.unknown(rows):
        report["unknown_documents"] = {"count": len(unknown), "ids": unknown[:20]}
    if low:
        report["warning"] = (
            f"recall@{k} is {recall[k]:.2f}: below {PROBLEM_BELOW} a low score is a retrieval "
            "problem, not a verdict on retrieval"
        )
    return report


def _normalised(scores: Scores) -> Scores:
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else scores * 0
