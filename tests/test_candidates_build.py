"""From a study's words to candidates."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from candidates_kit import LIMITS, Exact, LookingEngine, row
from tunewise.candidates.build import (
    BuildContext,
    build_candidate,
    default_candidates,
    offers,
    training_examples,
)
from tunewise.candidates.few_shot import FewShot
from tunewise.candidates.passages import Passage
from tunewise.candidates.rag import Rag
from tunewise.data.chat import Example
from tunewise.errors import StudyError
from tunewise.study.schema import CandidateSpec

LABELLED = [row(f"r{i}", f"word{i % 7} item{i}", ("yes", "no")[i % 7 % 2]) for i in range(42)]
FREE = [row(f"r{i}", f"word{i}", f"free answer {i}") for i in range(42)]


class _Doc:
    id, text, title = "d", "The colour of sky is blue. " * 20, None


def _spec(**values: Any) -> CandidateSpec:
    return CandidateSpec.model_validate(values)


def _context(**values: Any) -> BuildContext:
    return BuildContext(scorer=Exact(), limits=LIMITS, **values)


def test_every_kind_is_built_fitted_and_answers(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"id": e.id, "answer": "yes"}) + "\n" for e in LABELLED))
    context = _context(
        engine=LookingEngine(),
        tuned_engine=LookingEngine(model="tuned"),
        documents=[_Doc()],
        folder=tmp_path,
        effort="quick",
    )
    for kind in (
        "zero_shot",
        "few_shot",
        "rag",
        "classifier",
        "fine_tuned",
        "fine_tuned+rag",
        "recorded",
    ):
        more = {"answers": "answers.jsonl"} if kind == "recorded" else {}
        candidate = build_candidate(_spec(kind=kind, **more), context=context)
        assert (candidate.name, candidate.kind) == (kind, kind)
        fitted = candidate.fit(LABELLED[:30], LABELLED[30:])
        assert len(fitted.answer(LABELLED[30:])) == 12
        assert fitted.dev_completions is not None and len(fitted.dev_completions) == 12
        assert fitted.answer([]) == []
        chosen = json.loads(json.dumps(fitted.chosen()))
        assert "tried" in chosen and "dev_evaluations" in chosen and "notes" in chosen
    assert context.tuned_engine.model == "tuned"
    assert isinstance(context.tuned_engine, LookingEngine) and context.tuned_engine.asked


def test_a_candidates_own_settings_win() -> None:
    context = _context(engine=LookingEngine(), prompts=["study's"], documents=[_Doc()])
    few = build_candidate(
        _spec(kind="few_shot", name="big", prompt="own", k=[2], selection=["nearest"], orders=5),
        context=context,
    )
    assert isinstance(few, FewShot)
    assert (few.name, few.prompts, few.k) == ("big", ("own",), [2])
    assert (tuple(few.selection), few.orders) == (("nearest",), 5)
    rag = build_candidate(_spec(kind="rag", passage_words=10, k=[2]), context=context)
    assert isinstance(rag, Rag)
    assert (rag.prompts, rag.passage_words, rag.k) == (("study's",), 10, [2])
    assert rag.fit(FREE, FREE[:5]).chosen()["passages"] > 5


def test_what_is_missing_is_named() -> None:
    with pytest.raises(StudyError, match="'zero_shot' needs a model"):
        build_candidate(_spec(kind="zero_shot"), context=_context())
    with pytest.raises(StudyError, match="no documents"):
        build_candidate(_spec(kind="rag"), context=_context(engine=LookingEngine()))
    with pytest.raises(StudyError, match="is not trained"):
        training_examples(
            _spec(kind="few_shot"),
            context=_context(engine=LookingEngine()),
            train=FREE,
            dev=[],
        )


def test_training_rows_come_before_there_is_a_tuned_model() -> None:
    context = _context(prompts=["Do it."], documents=[_Doc()])
    plain = training_examples(_spec(kind="fine_tuned"), context=context, train=FREE, dev=[])
    assert [dict(m) for m in plain[0].messages] == [
        {"role": "system", "content": "Do it."},
        {"role": "user", "content": "word0"},
        {"role": "assistant", "content": "free answer 0"},
    ]
    with_passages = training_examples(
        _spec(kind="fine_tuned+rag"), context=context, train=FREE, dev=[]
    )
    assert with_passages[0].prompt[-1]["content"].startswith("[1] The colour of sky")


def test_third_party_candidates_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oracle_candidate.py").write_text(
        "from tunewise.candidates.recorded import Recorded, RecordedAnswers\n"
        "def build(spec, context):\n"
        "    return Recorded(spec.name, RecordedAnswers({None: {}}), kind=spec.kind)\n"
    )
    info = tmp_path / "oracle-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunewise.candidates]\noracle = oracle_candidate:build")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = CandidateSpec.model_construct(name="mine", kind="oracle")  # type: ignore[arg-type]
    candidate = build_candidate(spec, context=_context())
    assert (candidate.name, candidate.kind) == ("mine", "oracle")
    sys.modules.pop("oracle_candidate")
    unknown = CandidateSpec.model_construct(name="mine", kind="orcale")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="no candidate of kind 'orcale'"):
        build_candidate(unknown, context=_context())


@pytest.mark.parametrize(
    ("train", "flags", "expected"),
    [
        (LABELLED, (0, 1, 1), ["zero_shot", "few_shot", "classifier", "fine_tuned"]),
        (FREE, (0, 1, 0), ["zero_shot", "few_shot"]),
        (FREE, (1, 1, 1), ["zero_shot", "few_shot", "rag", "fine_tuned", "fine_tuned+rag"]),
        (LABELLED, (1, 0, 1), ["classifier"]),
        ([row("x", "q", None)], (1, 1, 1), ["zero_shot", "rag"]),
    ],
)
def test_default_candidates(
    train: list[Example], flags: tuple[int, int, int], expected: list[str]
) -> None:
    documents, model, can_train = map(bool, flags)
    settings = {"has_documents": documents, "has_model": model, "can_train": can_train}
    assert default_candidates(train, **settings) == expected
    for offer in offers(train, **settings):
        assert offer.offered == (offer.kind in expected)
        assert offer.reason


def test_passages_are_shown_with_their_title() -> None:
    assert Passage("d", 0, "Text.", "Title").as_text() == "Title\nText."
