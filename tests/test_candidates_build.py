"""From a study's words to candidates."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from candidates_kit import LIMITS, Exact, LookingEngine, row
from tunewise.candidates.build import build_candidate, training_examples
from tunewise.candidates.context import BuildContext
from tunewise.candidates.few_shot import FewShot
from tunewise.candidates.offers import default_candidates, offers
from tunewise.candidates.passages import Passage
from tunewise.candidates.rag import Rag
from tunewise.data.chat import Example
from tunewise.errors import StudyError
from tunewise.study.parts import KINDS, traits_of
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


def test_a_study_s_words_for_a_kind_of_another_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oracle_candidate.py").write_text(
        "from tunewise.candidates.base import Traits\n"
        "class Oracle:\n"
        "    traits = Traits(needs_model=False, options=('depth',))\n"
        "    def __init__(self, name, depth): self.name, self.depth = name, depth\n"
        "    @classmethod\n"
        "    def from_study(cls, spec, context): return cls(spec.name, **spec.options)\n"
        "class Mute: traits = None\n"
        "class Odd: traits, from_study = {}, None\n"
    )
    info = tmp_path / "oracle-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tunewise.candidates]\noracle = oracle_candidate:Oracle\nmute = oracle_candidate:Mute\n"
        "odd = oracle_candidate:Odd\nlost = no_such_module:Lost\nrag = oracle_candidate:Oracle\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = _spec(name="oracle", options={"depth": 3})  # a name that is a kind says both
    assert spec.kind == "oracle" and not spec.traits.needs_model and not spec.is_fine_tuned
    candidate = build_candidate(spec, context=_context())
    assert (candidate.name, vars(candidate)["depth"]) == ("oracle", 3)
    for values, words in (
        ({"kind": "oracle", "options": {"deep": 3}}, "no option `deep`; its options: `depth`"),
        ({"kind": "zero_shot", "options": {"deep": 3}}, "it has none under `options`"),
        ({"kind": "oracel"}, "'oracle'"),
        ({"kind": "mute"}, "has no `from_study`.*oracle 1.0"),
        ({"kind": "odd"}, "`traits` are no `Traits`.*oracle 1.0"),
        ({"kind": "lost"}, "cannot be loaded: No module named 'no_such_module'.*oracle 1.0"),
        ({"kind": "rag"}, "two packages .*'rag': tunewise .* and oracle 1.0"),
    ):
        with pytest.raises(ValidationError, match=words):
            _spec(**values)
    assert _spec(kind="few_shot").traits.shows_examples  # the others are none the worse
    there = {"has_documents": False, "has_model": True, "can_train": True}
    assert "oracle" not in default_candidates(FREE, **there)  # a package changes no study
    with pytest.raises(StudyError, match="two packages bring a kind of candidate called 'rag'"):
        default_candidates(FREE, **{**there, "has_documents": True})
    sys.modules.pop("oracle_candidate")


def test_what_the_kinds_declare_holds_together() -> None:
    kinds = {name: traits_of(name) for name in KINDS.names()}
    assert {k for k, t in kinds.items() if t.trained} == {"fine_tuned", "fine_tuned+rag"}
    assert {k for k, t in kinds.items() if not t.needs_model} == {
        "constant",
        "classifier",
        "recorded",
    }
    assert {k for k, t in kinds.items() if not t.asks} == {
        "constant",
        "classifier",
        "recorded",
    }
    by_complexity = sorted(kinds, key=lambda kind: kinds[kind].complexity)
    assert by_complexity.index("classifier") < by_complexity.index("zero_shot")
    assert by_complexity.index("few_shot") < by_complexity.index("fine_tuned")
    assert len({t.complexity for t in kinds.values()}) == len(kinds)


@pytest.mark.parametrize(
    ("train", "flags", "expected"),
    [
        (LABELLED, (0, 1, 1), ["classifier", "zero_shot", "few_shot", "fine_tuned"]),
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
