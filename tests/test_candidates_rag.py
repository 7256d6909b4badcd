"""Passages, retrieval, and the candidates that use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candidates_kit import LIMITS, Exact, LookingEngine, jsonl, row
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.dense import _refuse_foreign_modules
from tunewise.candidates.fine_tuned import FineTuned, FineTunedRag
from tunewise.candidates.passages import cut
from tunewise.candidates.rag import INSTRUCTION, Rag
from tunewise.candidates.retrieval import Ranking, Retrieval
from tunewise.candidates.search import TextIndex, best
from tunewise.data.chat import Example
from tunewise.errors import DataError, MissingExtraError, ModelError, TrainingError


@dataclass(frozen=True)
class Doc:
    id: str
    text: str
    title: str | None = None


COLOURS = ("red", "green", "blue", "grey")
NAMES = [
    a + b for a in ("bol", "dam", "fik", "gur", "hel", "jos") for b in ("an", "ex", "ip", "um")
]


def _world(hard: bool = False) -> tuple[list[Doc], list[Example]]:
    """Documents with one fact each. ``hard``: decoys hold the question's words without the fact."""
    docs, rows = [], []
    for i, name in enumerate(NAMES):
        colour = COLOURS[i % 4]
        docs.append(Doc(f"d{i}", f"Many things are old. The colour of {name} is {colour}."))
        question = f"Which colour has the thing called {name}?"
        if hard:
            docs.append(Doc(f"x{i}", f"Which thing called {name}? The thing called {name}."))
        rows.append(row(f"r{i}", question, colour, documents=[f"d{i}"]))
    return docs, rows


def _rag(docs: list[Doc], engine: LookingEngine, **more: object) -> Rag:
    return Rag("rag", engine, Exact(), LIMITS, documents=docs, **more)  # type: ignore[arg-type]


ends = st.lists(st.sampled_from(["", "", "", ".", "!", "\n\n", "\n", "."]), max_size=60)


def _text(endings: list[str]) -> str:
    """Words that differ, so that a passage has one place only."""
    return " ".join(f"w{i:03d}{end}" for i, end in enumerate(endings))


@given(st.lists(ends.map(_text), max_size=3), st.integers(1, 12), st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_passages_hold_every_word_and_no_more_than_asked(
    texts: list[str], size: int, overlap: int
) -> None:
    docs = [Doc(str(i), text) for i, text in enumerate(texts)]
    found = cut(docs, size, overlap)
    for doc in docs:
        own = [p for p in found if p.document == doc.id]
        assert [p.number for p in own] == list(range(len(own)))
        assert all(p.text in doc.text and p.text.strip() for p in own)
        at = 0
        for passage in own:  # in order, with nothing but space between one and the next
            start = doc.text.index(passage.text)
            assert not doc.text[at:start].strip()
            at = start + len(passage.text)
            assert len(passage.text.split()) <= size
        assert not doc.text[at:].strip()
        shared = sum(len(p.text.split()) for p in own) - len(doc.text.split())
        assert 0 <= shared <= overlap * max(0, len(own) - 1)


def test_passages_of_scripts_without_spaces() -> None:
    found = cut([Doc("d", "漢字を書く。本を読む。")], 6, 0)
    assert [p.text for p in found] == ["漢字を書く。", "本を読む。"]
    assert [p.text for p in cut([Doc("d", "漢字を書く")], 2, 0)] == ["漢字", "を書", "く"]


def test_passages_end_at_sentences_and_paragraphs() -> None:
    text = "One two three. Four five six.\n\nSeven eight nine ten. Eleven twelve."
    assert [p.text for p in cut([Doc("d", text)], 8, 0)] == [
        "One two three. Four five six.",
        "Seven eight nine ten. Eleven twelve.",
    ]
    text = "A b c. D e f. G h i. J k l."
    assert [p.text for p in cut([Doc("d", text)], 6, 3)] == [
        "A b c. D e f.",
        "D e f. G h i.",
        "G h i. J k l.",
    ]
    assert [p.text for p in cut([Doc("d", "a b c d e")], 2, 0)] == ["a b", "c d", "e"]


def test_search_ranks_and_breaks_ties_by_place() -> None:
    index = TextIndex(["the cat sat", "a dog", "the cat and the dog", "", "a dog"])
    assert index.top("dog", 3) == [1, 4, 2]
    assert index.top("unheard words", 2) == [0, 1]
    assert index.top("", 9) == [0, 1, 2, 3, 4]
    assert TextIndex([]).top("x", 3) == []
    assert TextIndex(["", "!"]).top("x", 1) == [0]
    assert TextIndex(["漢字を書く", "本を読む"]).top("本が好き", 1) == [1]
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, 200).astype(np.float32)
    assert best(scores, 50) == sorted(range(200), key=lambda i: (-scores[i], i))[:50]


def test_rag_chooses_how_many_passages() -> None:
    """The fact is in the second passage for every question: one passage never holds it."""
    docs, rows = _world(hard=True)
    fitted = _rag(docs, LookingEngine()).fit(rows[:8], rows[8:])
    chosen = fitted.chosen()
    assert chosen["k"] == 3
    assert chosen["dev_score"] == 1.0
    assert {t["k"]: t["dev_score"] for t in chosen["tried"]}[1] == 0.0
    assert chosen["recall"] == {"1": 0.0, "3": 1.0, "5": 1.0}
    assert chosen["retrieval_problem"] is False and chosen["recall_rows"] == 16
    assert fitted.dev_completions == fitted.answer(rows[8:])
    request = fitted.request(rows[8])
    assert INSTRUCTION in request.messages[0]["content"]
    assert request.messages[-1]["content"].endswith(f"\n\n{rows[8].user_text}")
    json.dumps(chosen)


def test_low_recall_is_called_a_retrieval_problem() -> None:
    docs, rows = _world()
    blind = [row(r.id, "Tell me, please?", r.answer, documents=r.documents) for r in rows]
    chosen = _rag(docs, LookingEngine(), k=[1]).fit(blind[:8], blind[8:]).chosen()
    assert chosen["retrieval_problem"] is True
    assert "recall@1 is 0.00: below 0.8" in chosen["warning"]


def test_documents_that_are_not_there_count_as_not_found() -> None:
    docs, rows = _world()
    odd = [row("o", rows[9].user_text, "green", documents=["d9", "nowhere"])]
    chosen = _rag(docs, LookingEngine()).fit(rows[:8], odd).chosen()
    assert chosen["recall"]["5"] == 0.5
    assert chosen["unknown_documents"] == {"count": 1, "ids": ["nowhere"]}


def test_rag_without_named_documents_says_that_recall_is_unknown() -> None:
    docs, rows = _world()
    bare = [row(r.id, r.user_text, r.answer) for r in rows]
    chosen = _rag(docs, LookingEngine()).fit(bare[:8], bare[8:]).chosen()
    assert chosen["dev_score"] == 1.0 and chosen["recall"] is None


def test_passages_that_do_not_fit_are_left_out() -> None:
    docs, rows = _world(hard=True)
    engine = LookingEngine(context_length=70)
    chosen = _rag(docs, engine, k=[5]).fit(rows[:8], rows[8:]).chosen()
    assert chosen["dev_score"] == 1.0
    assert chosen["notes"] == ["16 rows were too long for all 5 passages and were asked with fewer"]


def test_rag_needs_documents_with_text() -> None:
    with pytest.raises(NotOfferedError, match="no documents"):
        _rag([], LookingEngine()).fit([], [])
    with pytest.raises(DataError, match="no text"):
        _rag([Doc("d", " \n ")], LookingEngine()).fit([], [])


def test_reciprocal_rank_fusion_by_hand(shared: Path) -> None:
    docs = [Doc("a", "money in the bank"), Doc("b", "a river bank"), Doc("c", "cash account")]
    model = str(shared / "models" / "potion-base-4m-int8")
    retrieval = Retrieval.over(docs, dense=model)
    sparse = retrieval.corpus.index.scores("cash money")
    assert retrieval.corpus.encoder is not None and retrieval.corpus.vectors is not None
    dense = retrieval.corpus.vectors @ retrieval.corpus.encoder(["cash money"])[0]
    expected = np.zeros(3)
    for scores in (sparse, dense):
        for rank, place in enumerate(np.argsort(-scores, kind="stable"), 1):
            expected[place] += (scores[place] > 0) / (60 + rank)
    fused = retrieval.ranked(Ranking("rrf"))._scores("cash money")
    np.testing.assert_allclose(fused, expected, rtol=1e-5)
    top = [p.document for p in retrieval.ranked(Ranking("rrf")).top("cash money", 3)]
    assert top[-1] == "b"


def _xquad(shared: Path) -> tuple[list[Doc], list[Example]]:
    folder = shared / "data" / "xquad_en"
    docs = jsonl(folder / "corpus.jsonl")
    qa = jsonl(folder / "qa.jsonl")
    return (
        [Doc(str(d["id"]), d["text"], d["title"]) for d in docs],
        [row(q["id"], q["input"], q["output"], documents=[str(q["doc_id"])]) for q in qa],
    )


def test_bm25_finds_the_paragraph_of_real_questions(shared: Path) -> None:
    docs, rows = _xquad(shared)
    recall = Retrieval.over(docs).recall(rows, [1, 5])
    assert recall[1] > 0.88 and recall[5] > 0.97


def test_ranking_is_chosen_by_recall_on_dev(shared: Path) -> None:
    docs, rows = _xquad(shared)
    dev = rows[::12]
    model = str(shared / "models" / "potion-base-4m-int8")
    fitted = _rag(docs, LookingEngine(), dense=model).fit(rows[1::12], dev)
    chosen = fitted.chosen()
    tried = chosen["rankings_tried"]
    assert [t["ranking"] for t in tried] == ["bm25", "rrf", "convex", "convex", "convex"]
    means = [sum(t["recall"].values()) for t in tried]
    best_tried = tried[means.index(max(means))]
    assert chosen["ranking"] == best_tried["ranking"]
    assert chosen["recall"] == best_tried["recall"]


def test_dense_models_that_cannot_be_used(tmp_path: Path) -> None:
    docs, _ = _world()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="sentence_transformers"):
            Retrieval.over(docs, dense=str(other))
    _refuse_foreign_modules(other)
    (other / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    _refuse_foreign_modules(other)
    (other / "modules.json").write_text('[{"type": "subprocess.Popen"}]')
    with pytest.raises(ValueError, match=r"subprocess\.Popen"):
        _refuse_foreign_modules(other)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "model2vec"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        Retrieval.over(docs, dense=str(broken))


def test_tuned_model_is_asked_as_it_was_trained() -> None:
    train = [row(f"t{i}", f"say {n}", n, system="Help.") for i, n in enumerate(NAMES)]
    tuned = FineTuned("ft", LookingEngine(), Exact(), LIMITS, prompts=["Reply briefly.", "Other."])
    fitted = tuned.fit(train[:16], train[16:])
    assert fitted.chosen()["dev_score"] == 1.0
    assert fitted.dev_completions == fitted.answer(train[16:])
    for example, trained in zip(train[:16], tuned.training_examples(train[:16]), strict=True):
        assert trained.prompt == fitted.request(example).messages
        assert trained.answer == example.answer


def test_untrained_candidate_gives_training_rows_and_no_answers() -> None:
    train = [row(f"t{i}", f"say {n}", n) for i, n in enumerate(NAMES)]
    tuned = FineTuned("ft", None, Exact(), LIMITS)
    assert len(tuned.training_examples(train)) == len(train)
    with pytest.raises(TrainingError, match="no tuned model"):
        tuned.fit(train, train)


def test_tuned_model_with_passages_sees_distractors_and_mostly_the_source() -> None:
    docs, rows = _world(hard=True)
    rows = [
        row(f"{r.id}-{i}", r.user_text, r.answer, documents=r.documents)
        for r in rows
        for i in range(10)
    ]
    tuned = FineTunedRag("ft+rag", LookingEngine(), Exact(), LIMITS, documents=docs, k=[1, 2])
    dev = rows[::10]
    assert tuned.fit(rows, dev).chosen()["k"] == 2
    trained = tuned.training_examples(rows, dev)
    fitted = tuned.fit(rows, dev)
    assert [t.prompt for t in trained] == [fitted.request(r).messages for r in rows]
    assert all(t.prompt[-1]["content"].count("[") == 2 for t in trained)

    # With one passage retrieval always misses: four rows of five get their source all the same.
    single = FineTunedRag("ft+rag", LookingEngine(), Exact(), LIMITS, documents=docs, k=[1])
    trained = single.training_examples(rows, dev)
    share = sum("The colour of" in t.prompt[-1]["content"] for t in trained) / len(trained)
    assert 0.7 < share < 0.9
    assert trained == single.training_examples(rows, dev)
    assert single.fit(rows, dev).chosen()["retrieval_problem"] is True
