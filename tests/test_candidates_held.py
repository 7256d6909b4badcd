"""Models are held to the form of the training answers, and prompts are searched for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from candidates_kit import LIMITS, Exact, LookingEngine, row
from models_support import save_model
from tunewise.candidates.answers import shape_of
from tunewise.candidates.few_shot import FewShot
from tunewise.candidates.fine_tuned import FineTuned, FineTunedRag
from tunewise.candidates.held import held_form
from tunewise.candidates.phrasings import Labels, phrasings
from tunewise.candidates.zero_shot import ZeroShot
from tunewise.data.chat import AnswerForm, Completion, Example, Request
from tunewise.data.documents import Document
from tunewise.models.loading import load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model

INTENTS = ("lost_card", "lost_card_abroad", "new card", "Überweisung")


def answered(*answers: str) -> list[Example]:
    return [row(f"r{i}", f"question {i}", answer) for i, answer in enumerate(answers)]


LABELLED = answered(*[INTENTS[i % 4] for i in range(24)])
RECORDS = answered(
    *[
        json.dumps(
            {"intent": ["ask", "tell"][i % 2], "name": f"person {i}", "count": i}
            | ({"tags": [f"t{i}"] * (i % 3)} if i % 4 else {"tags": [], "note": None})
        )
        for i in range(20)
    ]
)
LISTS = answered(
    *[json.dumps([f"item {i}", f"thing {k}"][: 1 + i % 2]) for i in range(9) for k in [i]]
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    folder = save_model(tmp_path_factory.mktemp("model"))
    return LocalEngine(load_local(parse_model(str(folder))))


def held_answers(engine: LocalEngine, rows: Sequence[Example]) -> list[Completion]:
    held = held_form(shape_of(rows), rows)
    assert held is not None
    requests = [
        Request(({"role": "user", "content": f"What about {i}?"},), max_tokens=200, form=held.form)
        for i in range(12)
    ]
    return engine.answer(requests)


def test_a_model_that_knows_nothing_answers_with_a_label(engine: LocalEngine) -> None:
    answers = held_answers(engine, LABELLED)
    assert {a.error for a in answers} == {None}
    assert {a.text for a in answers} <= set(INTENTS)
    assert {a.finish_reason for a in answers} == {"stop"}


def test_a_label_that_can_only_be_one_is_not_computed_to_its_end(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewise.models.constraint import SchemaGuide
    from tunewise.models.decoding import Decoder

    rows = answered(*["the red cat sees the house", "seven green dogs like Anna"] * 9)
    steps = 0
    choose = Decoder._choose

    def counted(self: Decoder, *arguments: Any) -> list[int]:
        nonlocal steps
        steps += 1
        return choose(self, *arguments)

    monkeypatch.setattr(Decoder, "_choose", counted)
    quick, few = held_answers(engine, rows), steps
    monkeypatch.setattr(SchemaGuide, "rest", lambda _: [])
    steps = 0
    slow = held_answers(engine, rows)
    assert [a.text for a in quick] == [a.text for a in slow]
    assert few <= 2 < steps
    # What is billed is the answer, however it came about.
    assert all(a.completion_tokens is not None and a.completion_tokens > 2 for a in quick)


def test_it_answers_with_a_number_or_with_json_of_the_rows_form(engine: LocalEngine) -> None:
    for answer in held_answers(engine, answered(*[str(7 * i - 3) for i in range(9)])):
        assert answer.error is None
        assert answer.finish_reason == "length" or isinstance(json.loads(answer.text), int | float)
    held = held_form(shape_of(RECORDS), RECORDS)
    assert held is not None
    whole = [a for a in held_answers(engine, RECORDS) if a.finish_reason == "stop"]
    assert whole
    for answer in whole:
        found = json.loads(answer.text)
        jsonschema.validate(found, dict(held.form.schema))
        assert found["intent"] in ("ask", "tell")


@pytest.mark.parametrize("rows", [LABELLED, RECORDS, LISTS], ids=["labels", "objects", "lists"])
def test_every_wanted_answer_keeps_the_form(rows: list[Example]) -> None:
    held = held_form(shape_of(rows), rows)
    assert held is not None
    for one in rows:
        value = one.answer if held.form.bare else json.loads(one.answer)
        jsonschema.validate(value, dict(held.form.schema))


def test_texts_and_calls_have_no_form() -> None:
    texts = answered(*[f"The answer to {i} is as long as it has to be." for i in range(9)])
    assert held_form(shape_of(texts), texts) is None


def test_without_constrain_the_model_writes_what_it_will() -> None:
    for constrain in (True, False):
        engine = LookingEngine()
        fitted = ZeroShot("z", engine, Exact(), LIMITS, constrain=constrain).fit(
            LABELLED, LABELLED[:4]
        )
        assert {request.form is not None for request in engine.asked} == {constrain}
        chosen = fitted.chosen()
        assert any("one of 4 labels" in note for note in chosen["notes"]) == constrain
        assert ("held_to" in chosen) == constrain


def test_a_schema_of_the_study_stands(engine: LocalEngine) -> None:
    asked = LookingEngine()
    limits = replace(LIMITS, json_schema={"type": "string"})
    ZeroShot("z", asked, Exact(), limits, constrain=True).fit(LABELLED, LABELLED[:4])
    assert all(request.form is None for request in asked.asked)


@pytest.mark.parametrize("rows", [LABELLED, RECORDS, LISTS], ids=["labels", "objects", "lists"])
@pytest.mark.parametrize("constrain", [True, False])
def test_the_tuned_model_is_held_to_what_prompted_ones_are(
    rows: list[Example], constrain: bool
) -> None:
    prompted, tuned = LookingEngine(), LookingEngine()
    documents = [Document("d", "Some text on what is asked.")]
    ZeroShot("z", prompted, Exact(), LIMITS, constrain=constrain).fit(rows, rows[:4])
    for candidate in (
        FineTuned("t", tuned, Exact(), LIMITS, constrain=constrain),
        FineTunedRag(
            name="r",
            engine=tuned,
            scorer=Exact(),
            limits=LIMITS,
            constrain=constrain,
            documents=documents,
        ),
    ):
        fitted = candidate.fit(rows, rows[:4])
        request = fitted.request(rows[0])
        assert request is not None
        asked = [*prompted.asked, *tuned.asked, request]
        forms = {json.dumps(r.form.schema) if r.form else None for r in asked}
        assert len(forms) == 1 and (forms == {None}) == (not constrain)
        told = [note for note in fitted.chosen()["notes"] if "held to the form" in note]
        assert len(told) == int(constrain)


def test_a_tuned_model_that_was_taught_to_think_may_think() -> None:
    taught = [
        replace(one, messages=(*one.prompt, {**one.messages[-1], "reasoning_content": "Well."}))
        for one in LABELLED
    ]
    for rows, tried in ((LABELLED, {"one of 4 labels"}), (taught, {"one of 4 labels", None})):
        fitted = FineTuned("t", LookingEngine(), Exact(), LIMITS, constrain=True).fit(rows, rows)
        assert {t["held_to"] for t in fitted.chosen()["tried"]} == tried


def test_a_tuned_model_elsewhere_may_answer_as_it_learnt_to() -> None:
    """Servers put a label into an object, which a model that learnt bare labels never saw."""
    engine = LookingEngine()
    engine.wraps = True  # type: ignore[attr-defined]
    for rows, tried in (
        (LABELLED, {"one of 4 labels", None}),
        (RECORDS, {"a JSON object of 5 keys"}),
    ):
        fitted = FineTuned("t", engine, Exact(), LIMITS, constrain=True).fit(rows, rows[:4])
        assert {t["held_to"] for t in fitted.chosen()["tried"]} == tried
        prompted = ZeroShot("z", engine, Exact(), LIMITS, constrain=True).fit(rows, rows[:4])
        assert {t["held_to"] for t in prompted.chosen()["tried"]} == tried - {None}


def test_numbers_may_also_be_worked_out() -> None:
    rows = answered(*[str(i * i) for i in range(9)])
    engine = LookingEngine()
    for kind in (ZeroShot, FineTuned):
        fitted = kind("z", engine, Exact(), LIMITS, constrain=True).fit(rows, rows[:3])
        assert {t["held_to"] for t in fitted.chosen()["tried"]} == {"a number", None}


def test_a_form_that_this_model_cannot_be_held_to_is_left_out(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewise.models.constraint import SchemaCompiler, SchemaError

    def refuse(*_: object) -> None:
        raise SchemaError("this tokenizer cannot be read")

    monkeypatch.setattr(SchemaCompiler, "form", refuse)
    fitted = ZeroShot("z", engine, Exact(), replace(LIMITS, max_tokens=4), constrain=True).fit(
        LABELLED, LABELLED[:4]
    )
    assert fitted.dev_completions is not None
    assert {c.error for c in fitted.dev_completions} == {None}


def test_equal_requests_without_a_form_keep_their_keys() -> None:
    plain = Request(({"role": "user", "content": "Hi"},))
    assert "form" not in plain.as_dict()
    bound = replace(plain, form=AnswerForm({"enum": ["a"]}, bare=True))
    loose = replace(plain, form=AnswerForm({"enum": ["a"]}))
    assert len({plain.key, bound.key, loose.key}) == 3


# --- the search over instructions -------------------------------------------------------------


def test_more_prompts_are_tried_and_counted() -> None:
    rows = [row(f"t{i}", f"the word is {c} today", c) for i in range(30) for c in ("red", "blue")]
    train, dev = rows[:40], rows[40:]
    for number in (0, 3):
        candidate = ZeroShot("z", LookingEngine(), Exact(), LIMITS, phrasings=number)
        chosen = candidate.fit(train, dev).chosen()
        assert chosen["prompts_tried"] == len(chosen["tried"]) == 2 + number
        told = [note for note in chosen["notes"] if "prompts tried on dev" in note]
        assert told == ([f"{2 + number} prompts tried on dev (`prompt_search`)"] if number else [])
    shots = FewShot("f", LookingEngine(), Exact(), LIMITS, k=[2], phrasings=4).fit(train, dev)
    assert shots.chosen()["prompts_tried"] == 2 + 2


@pytest.mark.parametrize("rows", [LABELLED, RECORDS, LISTS, answered("3", "14", "15", "92")])
def test_phrasings_differ_and_come_from_training_rows_alone(rows: list[Example]) -> None:
    dev = rows[:3]
    made = phrasings(shape_of(rows), rows, dev, seed=0)
    notes = [one.note(dev[0]) for one in made]
    assert len(made) >= 3
    assert len(set(notes)) == len({one.name for one in made}) == len(made)
    assert not any(f"question {i}”" in note for i in range(3) for note in notes)
    again = [one.note(dev[0]) for one in phrasings(shape_of(rows), rows, dev, seed=0)]
    assert again == notes


def test_of_many_labels_the_nearest_are_named() -> None:
    train = [row(f"t{i}-{k}", f"about topic{i} now", f"L{i}") for i in range(150) for k in range(3)]
    labels = Labels(shape_of(train).labels, train)
    named = labels.of(row("q", "what of topic77", None))
    assert "L77" in named
    assert len(named) == 20
    candidate = ZeroShot("z", LookingEngine(), Exact(), LIMITS)
    dev = [row("d", "what of topic77", "L77")]
    candidate.fit(train, dev)
    engine: Any = candidate.engine
    assert any("L77" in str(request.messages[0]["content"]) for request in engine.asked)


def test_a_use_case_stands_where_there_are_no_instructions() -> None:
    engine = LookingEngine()
    candidate = ZeroShot(
        "z", engine, Exact(), LIMITS, phrasings=2, use_case="Sort the post by its subject."
    )
    candidate.fit(LABELLED, LABELLED[:4])
    assert any("Sort the post" in str(r.messages[0]["content"]) for r in engine.asked)
