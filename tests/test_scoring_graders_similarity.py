"""Each similarity against a library that computes it, or against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.scoring.graders.similarity import (
    bleu,
    fuzzy_match,
    gleu,
    meteor,
    ngram_cosine,
    rouge_l,
    rouge_n,
    similarity,
    vector_cosine,
)
from tunewise.scoring.normalize import words

# Few words and long texts, so that runs of several words are shared and words repeat.
SENTENCES = st.lists(
    st.sampled_from(["the", "a", "cat", "cats", "sat", "sits", "on", "mat", "running", "runs"]),
    min_size=1,
    max_size=14,
).map(" ".join)
ANY = st.text(max_size=60)
METRICS = (
    *("cosine", "fuzzy_match", "bleu", "gleu", "meteor"),
    *("rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"),
)


@given(SENTENCES, SENTENCES)
@settings(max_examples=150, deadline=None)
def test_rouge_is_that_of_the_rouge_package(text: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    names = [*(f"rouge{n}" for n in range(1, 6)), "rougeL"]
    wanted = scorer.RougeScorer(names).score(reference, text)
    for n in range(1, 6):
        if min(len(words(text)), len(words(reference))) >= n:
            assert rouge_n(text, reference, n) == pytest.approx(wanted[f"rouge{n}"].fmeasure)
    assert rouge_l(text, reference) == pytest.approx(wanted["rougeL"].fmeasure)


def test_rouge_of_the_paper() -> None:
    # Lin 2004, section 3.1: S1 "police killed the gunman", S2 and S3 against it.
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert rouge_n("police kill the gunman", reference, 2) == pytest.approx(1 / 3)
    assert rouge_n("the gunman kill police", reference, 2) == pytest.approx(1 / 3)


@given(SENTENCES, SENTENCES)
@settings(max_examples=150, deadline=None)
def test_gleu_is_that_of_nltk(text: str, reference: str) -> None:
    module = pytest.importorskip("nltk.translate.gleu_score", reason="nltk is not installed")
    wanted = module.sentence_gleu([reference.split()], text.split())
    assert gleu(text, reference) == pytest.approx(wanted)


def test_gleu_by_hand() -> None:
    # 4 words have 10 runs of one to four. "a b c d" and "a b x d" share a, b, d and "a b".
    assert gleu("a b x d", "a b c d") == pytest.approx(4 / 10)
    # The longer side divides: 1 run against 10.
    assert gleu("a", "a b c d") == gleu("a b c d", "a") == pytest.approx(1 / 10)


class _NoSynonyms:
    """A WordNet without words, so that nltk's third module finds nothing."""

    def synsets(self, word: str) -> list[object]:
        return []


class _Porter:
    """The stemmer of ours in the shape that nltk asks for; nltk's own extends Porter's rules."""

    def stem(self, word: str) -> str:
        import snowballstemmer

        stemmed: str = snowballstemmer.stemmer("porter").stemWord(word)
        return stemmed


@given(SENTENCES, SENTENCES)
@settings(max_examples=150, deadline=None)
def test_meteor_is_that_of_nltk_without_synonyms(text: str, reference: str) -> None:
    module = pytest.importorskip("nltk.translate.meteor_score", reason="nltk is not installed")
    wanted = module.meteor_score(
        [reference.split()], text.split(), stemmer=_Porter(), wordnet=_NoSynonyms()
    )
    assert meteor(text, reference) == pytest.approx(wanted)


def test_meteor_by_hand() -> None:
    # Banerjee and Lavie 2005, section 2.2: "the president spoke to the audience" against "the
    # president then spoke to the audience": 6 matches in two chunks.
    precision, recall = 6 / 6, 6 / 7
    weighted = 10 * precision * recall / (recall + 9 * precision)
    wanted = weighted * (1 - 0.5 * (2 / 6) ** 3)
    text = "the president spoke to the audience"
    assert meteor(text, "the president then spoke to the audience") == pytest.approx(wanted)
    # Stems match where words do not: one chunk of one match.
    assert meteor("runs", "running") == pytest.approx(0.5)
    assert meteor("dogs", "cats") == 0.0


def test_porter_stems_are_those_of_the_paper() -> None:
    pairs = {"caresses": "caress", "ponies": "poni", "relational": "relat", "hopping": "hop"}
    for word, stem in pairs.items():
        assert _Porter().stem(word) == stem


@given(SENTENCES, SENTENCES)
@settings(max_examples=60, deadline=None)
def test_bleu_is_that_of_sacrebleu(text: str, reference: str) -> None:
    import sacrebleu

    wanted = sacrebleu.sentence_bleu(text, [reference], use_effective_order=True).score / 100
    if text != reference:
        assert bleu(text, reference) == pytest.approx(wanted)


def test_fuzzy_match_counts_insertions_and_deletions() -> None:
    # kitten -> sitting keeps i, t, t, n: 4 of 6 and of 7 letters.
    assert fuzzy_match("kitten", "sitting") == pytest.approx(2 * 4 / 13)
    assert fuzzy_match("", "") == 1.0
    assert fuzzy_match("", "a") == 0.0


@given(SENTENCES, SENTENCES)
@settings(max_examples=60, deadline=None)
def test_cosine_of_ngrams_is_that_of_scikit_learn(text: str, reference: str) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    counts = CountVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(
        [text, reference]
    )
    wanted = cosine_similarity(counts[0], counts[1])[0, 0]
    assert ngram_cosine(text, reference) == pytest.approx(wanted)


def test_cosine_of_vectors() -> None:
    assert vector_cosine([1, 0], [1, 1]) == pytest.approx(1 / math.sqrt(2))
    assert vector_cosine([1, 0], [-2, 0]) == pytest.approx(-1)
    assert vector_cosine(np.zeros(2).tolist(), [1, 1]) == 0.0


@given(st.sampled_from(METRICS), ANY, ANY)
@settings(max_examples=300, deadline=None)
def test_any_text_has_a_similarity_and_equal_texts_have_one(
    metric: str, text: str, reference: str
) -> None:
    value = similarity(metric, text, reference)  # type: ignore[arg-type]
    assert 0.0 <= value <= 1.0
    if metric != "meteor":  # its penalty takes something even from one chunk
        assert similarity(metric, text, text) == pytest.approx(1.0)  # type: ignore[arg-type]
