"""Metrics of whole sets against sacrebleu and scikit-learn, and over resampled sets."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn.metrics import f1_score

from tunewise.data.chat import Completion, Example
from tunewise.scoring.base import ItemScore, ResampledScorer
from tunewise.scoring.registry import get_scorer

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "stood",
    "on",
    "under",
    "mat",
    "table",
    ",",
    ".",
    "red",
    "blue",
    "3.5",
    "don't",
]


def sentences(n: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    golds = [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(n)]
    answers = []
    for gold in golds:
        kept = [w if rng.random() < 0.7 else rng.choice(WORDS) for w in gold.split()]
        answers.append(" ".join(kept[: rng.randint(0, 14)]))
    return golds, answers


def items_of(scorer: Any, golds: Sequence[str], answers: Sequence[str]) -> list[ItemScore]:
    return [
        scorer.score(Example("row", ({"role": "assistant", "content": gold},)), Completion(answer))
        for gold, answer in zip(golds, answers, strict=True)
    ]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_bleu_is_sacrebleus(n: int, lowercase: bool) -> None:
    theirs = BLEU(effective_order=True, lowercase=lowercase)
    scorer = get_scorer("bleu", {"lowercase": lowercase})
    for seed in range(8):
        golds, answers = sentences(n, seed)
        expected = theirs.corpus_score(answers, [golds]).score / 100
        items = items_of(scorer, golds, answers)
        assert scorer.aggregate(items) == pytest.approx(expected, abs=1e-9)
        for gold, answer, item in zip(golds, answers, items, strict=True):
            if gold != answer:
                single = theirs.sentence_score(answer, [gold]).score / 100
                assert item.value == pytest.approx(single, abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"word_order": 2}, {"beta": 3, "char_order": 4}])
def test_chrf_is_sacrebleus(options: dict[str, Any]) -> None:
    theirs = CHRF(**options)
    scorer = get_scorer("chrf", options)
    for n in (1, 2, 40):
        for seed in range(5):
            golds, answers = sentences(n, seed)
            expected = theirs.corpus_score(answers, [golds]).score / 100
            items = items_of(scorer, golds, answers)
            assert scorer.aggregate(items) == pytest.approx(expected, abs=1e-9)


def test_macro_f1_is_scikit_learns() -> None:
    rng = random.Random(0)
    scorer, accuracy = get_scorer("macro_f1"), get_scorer("accuracy")
    for labels in ("ab", "abcdefg"):
        golds = [rng.choice(labels) for _ in range(60)]
        answers = [g if rng.random() < 0.6 else rng.choice([*labels, "invented"]) for g in golds]
        expected = f1_score(golds, answers, labels=sorted(set(golds)), average="macro")
        items = items_of(scorer, golds, answers)
        assert scorer.aggregate(items) == pytest.approx(expected)
        again = items_of(accuracy, golds, answers)
        share = sum(g == a for g, a in zip(golds, answers, strict=True)) / 60
        assert accuracy.aggregate(again) == pytest.approx(share)
        assert accuracy.figures(again)["macro_f1"] == pytest.approx(expected)  # type: ignore[attr-defined]


def test_macro_f1_by_hand() -> None:
    scorer = get_scorer("macro_f1")
    items = items_of(scorer, ["a", "a", "b", "c"], ["a", "b", "b", "zzz"])
    # a: 2·1/(2+1), b: 2·1/(1+2), c: 0.
    assert scorer.aggregate(items) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_a_failed_request_counts_as_no_label() -> None:
    scorer = get_scorer("macro_f1")
    example = Example("row", ({"role": "assistant", "content": "a"},))
    good = scorer.score(example, Completion("a"))
    bad = scorer.score(example, Completion("a", error="lost"))
    assert scorer.aggregate([good, bad]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["bleu", "chrf", "macro_f1"])
def test_resampled_sets_are_recomputed(name: str) -> None:
    """Each picked set scores what ``aggregate`` gives for its items, repeats and all."""
    scorer = get_scorer(name)
    assert isinstance(scorer, ResampledScorer)
    golds, answers = sentences(30, 3)
    if name == "macro_f1":
        golds, answers = [g[:1] for g in golds], [a[:1] for a in answers]
    items = items_of(scorer, golds, answers)
    picks = np.random.default_rng(0).integers(0, 30, size=(50, 30))
    fast = scorer.aggregate_indices(items, picks)
    slow = [scorer.aggregate([items[i] for i in row]) for row in picks]
    np.testing.assert_allclose(fast, slow, atol=1e-12)
    one = scorer.aggregate_indices(items, np.array([[0], [7]]))
    assert one.shape == (2,)
    assert ((fast >= 0) & (fast <= 1)).all()


@pytest.mark.parametrize("name", ["bleu", "macro_f1"])
def test_resampling_is_fast(name: str) -> None:
    """10,000 resamples of 1,000 rows, as the verdict's bootstrap asks for in blocks."""
    scorer = get_scorer(name)
    assert isinstance(scorer, ResampledScorer)
    golds, answers = sentences(1000, 5)
    if name == "macro_f1":
        rng = random.Random(0)
        golds = [f"label{rng.randrange(77)}" for _ in golds]
        answers = [g if rng.random() < 0.7 else f"label{rng.randrange(77)}" for g in golds]
    items = items_of(scorer, golds, answers)
    rng2 = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(5):
        scorer.aggregate_indices(items, rng2.integers(0, 1000, size=(2000, 1000)))
    assert time.process_time() - start < 10


def test_statistics_are_json_values() -> None:
    for name in ("bleu", "chrf"):
        (item,) = items_of(get_scorer(name), ["a cat"], ["a dog"])
        assert all(type(count) is int for count in item.data)
    assert get_scorer("bleu").aggregate([]) == 0
    assert get_scorer("macro_f1").aggregate([]) == 0
