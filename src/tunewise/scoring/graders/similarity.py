"""Text similarity: how alike an input and a reference are, in 0..1.

Each is the field's usual definition: BLEU of one sentence as sacrebleu computes it; GLEU (Wu et
al. 2016, 1609.08144, section 4.3); METEOR (Banerjee and Lavie 2005); ROUGE-N and ROUGE-L as F1
(Lin 2004) without stemming; ``fuzzy_match`` is rapidfuzz's ratio: 1 minus the normalised number of
insertions and deletions; ``cosine`` is that of two embeddings where an embedding model is given,
else of the texts' counts of character n-grams.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any, Literal

from tunewise.scoring.answers import f_measure
from tunewise.scoring.corpus import Bleu
from tunewise.scoring.normalize import words
from tunewise.scoring.text import RougeL

Metric = Literal[
    "cosine",
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]

_GLEU_ORDERS = 4
_COSINE_ORDERS = (2, 3, 4)


def similarity(metric: Metric, text: str, reference: str) -> float:
    """The similarity, in 0..1; ``cosine`` here is that of character n-grams."""
    if metric.startswith("rouge_") and metric != "rouge_l":
        return rouge_n(text, reference, int(metric[-1]))
    return _METRICS[metric](text, reference)


def fuzzy_match(text: str, reference: str) -> float:
    """Rapidfuzz's ratio as a share; two empty texts are equal."""
    from rapidfuzz.fuzz import ratio

    return float(ratio(text, reference)) / 100.0


def bleu(text: str, reference: str) -> float:
    """BLEU-4 of one sentence (Papineni et al. 2002), as the project's metric shows it for a row."""
    return _bleu().compare(reference, text).value


def gleu(text: str, reference: str) -> float:
    """GLEU: the smaller of precision and recall over all runs of one to four words.

    Words are those of sacrebleu's ``13a`` tokenizer; case and punctuation count.
    """
    given, wanted = _tokens(text), _tokens(reference)
    counts = [
        Counter(chain.from_iterable(_runs(side, n) for n in range(1, _GLEU_ORDERS + 1)))
        for side in (given, wanted)
    ]
    most = max(counts[0].total(), counts[1].total())
    return (counts[0] & counts[1]).total() / most if most else 1.0


def meteor(text: str, reference: str) -> float:
    """METEOR of Banerjee and Lavie 2005: weighted F of matched words, less a fragment penalty.

    Modules: exact words, then Porter stems. The paper's third module, WordNet's synonyms, is left
    out, for nothing is downloaded to compute a metric; so a paraphrase scores lower here than with
    it. Among the alignments with most matches the one that pairs words from the end is taken, as
    nltk does, not the one with fewest crossings.
    """
    given, wanted = words(text), words(reference)
    if not given or not wanted:
        return float(given == wanted)
    pairs = _aligned(given, wanted)
    matches = len(pairs)
    if not matches:
        return 0.0
    precision, recall = matches / len(given), matches / len(wanted)
    weighted = 10 * precision * recall / (recall + 9 * precision)
    follow = sum(b == (a[0] + 1, a[1] + 1) for a, b in pairwise(pairs))
    penalty = 0.5 * ((matches - follow) / matches) ** 3
    return weighted * (1 - penalty)


def rouge_n(text: str, reference: str, n: int) -> float:
    """ROUGE-N as F1 over runs of ``n`` words; texts too short for a run score 1 where equal."""
    given, wanted = words(text), words(reference)
    counts = [Counter(_runs(side, n)) for side in (given, wanted)]
    if not counts[0] and not counts[1]:
        return float(given == wanted)
    if not counts[0] or not counts[1]:
        return 0.0
    shared = (counts[0] & counts[1]).total()
    return f_measure(shared / counts[0].total(), shared / counts[1].total())


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L as F1 of the longest common subsequence of words."""
    return RougeL().compare(reference, text).value


def ngram_cosine(text: str, reference: str) -> float:
    """Cosine of the counts of runs of two to four characters inside words, case ignored."""
    if text.split() == reference.split():
        return 1.0
    # scikit-learn counts the same, but takes seconds to import, in the middle of a request.
    one, other = _character_runs(text), _character_runs(reference)
    length = math.sqrt(_dot(one, one) * _dot(other, other))
    return min(1.0, _dot(one, other) / length) if length else 0.0


def vector_cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Cosine of two embeddings, in -1..1; 0 where one has no length."""
    import numpy as np

    a, b = np.asarray(one, float), np.asarray(other, float)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


_METRICS: dict[str, Callable[[str, str], float]] = {
    "cosine": ngram_cosine,
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    "rouge_l": rouge_l,
}


def _runs(items: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(items[k:] for k in range(n)), strict=False))


def _aligned(given: Sequence[str], wanted: Sequence[str]) -> list[tuple[int, int]]:
    """Places of matched words (in ``given``, in ``wanted``), ordered by the first."""
    pairs: list[tuple[int, int]] = []
    for form in (lambda word: word, _stem):
        free = set(range(len(wanted))) - {j for _, j in pairs}
        places: dict[str, list[int]] = {}
        for j in sorted(free):
            places.setdefault(form(wanted[j]), []).append(j)
        taken = {i for i, _ in pairs}
        for i in reversed(range(len(given))):
            here = places.get(form(given[i]))
            if i not in taken and here:
                pairs.append((i, here.pop()))
    return sorted(pairs)


@functools.lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


@functools.cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("porter")


@functools.cache
def _bleu() -> Bleu:
    return Bleu(tokenize="13a", lowercase=False)


@functools.cache
def _tokenizer() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    made: Callable[[], Any] = Tokenizer13a
    return made()


def _tokens(text: str) -> list[str]:
    return str(_tokenizer()(text)).split()


def _character_runs(text: str) -> Counter[str]:
    words_with_edges = [f" {word} " for word in text.lower().split()]
    return Counter(
        word[k : k + n]
        for word in words_with_edges
        for n in _COSINE_ORDERS
        for k in range(len(word) - n + 1)
    )


def _dot(one: Counter[str], other: Counter[str]) -> int:
    return sum(count * other[run] for run, count in one.items())
