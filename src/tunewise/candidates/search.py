"""Search over texts: BM25 (Robertson & Zaragoza 2009, by bm25s) and near-duplicates."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewise.data.content import words

if TYPE_CHECKING:
    import numpy as np

NEAR_DUPLICATE = 0.8


class TextIndex:
    """Texts that can be ranked by BM25 for a query, and compared with it.

    Attributes:
        texts: what is searched.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
        self.texts = list(texts)
        tokens = [words(text) for text in self.texts]
        self._frequency = Counter(word for row in tokens for word in set(row))
        self._bm25: Any = None
        if self._frequency:
            self._bm25 = bm25s.BM25(method="lucene", backend="numpy")
            self._bm25.index(tokens, show_progress=False)

    def __len__(self) -> int:
        return len(self.texts)

    def scores(self, query: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """BM25 score of every text for ``query``; 0 where no word is shared."""
        import numpy as np

        known = [word for word in words(query) if word in self._frequency]
        if not known:
            return np.zeros(len(self.texts), dtype=np.float32)
        result: np.ndarray[Any, np.dtype[np.float32]] = self._bm25.get_scores(known)
        return result

    def top(self, query: str, n: int) -> list[int]:
        """Places of the ``n`` best texts, best first; ties by place."""
        return best(self.scores(query), n)

    def near_duplicates(self, place: int, text: str) -> bool:
        """Whether the text at ``place`` and ``text`` say the same.

        Equal words, or a weighted Jaccard similarity of 0.8 and more. Words weigh by inverse
        document frequency, so that a template which all rows share does not make them alike.
        """
        one, other = words(self.texts[place]), words(text)
        if one == other:
            return True
        left, right = set(one), set(other)
        union = sum(map(self._weight, left | right))
        return union > 0 and sum(map(self._weight, left & right)) >= NEAR_DUPLICATE * union

    def has_near_duplicate(self, text: str, look_at: int = 3) -> bool:
        """Whether one of the ``look_at`` texts most like ``text`` is its near-duplicate."""
        return any(self.near_duplicates(place, text) for place in self.top(text, look_at))

    def _weight(self, word: str) -> float:
        return math.log((len(self.texts) + 1) / (self._frequency[word] + 0.5))


def best(scores: np.ndarray[Any, Any], n: int) -> list[int]:
    """Places of the ``n`` highest scores, highest first; ties by place."""
    import numpy as np

    n = min(n, len(scores))
    if n <= 0:
        return []
    if n < len(scores):
        # A full sort of a large corpus for each query would cost more than the search.
        threshold = np.partition(scores, len(scores) - n)[len(scores) - n]
        places = np.flatnonzero(scores >= threshold)
    else:
        places = np.arange(len(scores))
    order = places[np.lexsort((places, -scores[places]))]
    return [int(place) for place in order[:n]]
