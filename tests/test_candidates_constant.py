"""The constant answer: what it is for each form of answer, and that it costs nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from candidates_kit import row
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.build import with_floor
from tunewise.candidates.constant import Constant
from tunewise.data.chat import Completion, Example
from tunewise.scoring.base import ItemScore
from tunewise.scoring.registry import get_scorer
from tunewise.study.schema import CandidateSpec


def rows(answers: Sequence[str], prefix: str = "r") -> list[Example]:
    return [row(f"{prefix}{i}", f"question {i}", answer) for i, answer in enumerate(answers)]


def given(metric: str, answers: Sequence[str], **options: Any) -> str:
    fitted = Constant("constant", get_scorer(metric, options)).fit(rows(answers), [])
    return fitted.answer(rows(["?"]))[0].text


@pytest.mark.parametrize(
    ("metric", "answers", "expected"),
    [
        ("accuracy", ["no", "yes", "yes", "maybe"] * 20, "yes"),
        ("exact_match", ["a", "b", "a"], "a"),
        ("numeric", ["1", "12", "12", "900"] * 5, "12"),
        ("list_f1", ['["a", "b"]', '["a", "c"]', '["a", "d"]', '["a", "b", "c"]'], '["a", "b"]'),
        (
            "json_fields",
            [json.dumps({"kind": "x", "id": i, "open": i % 3 > 0}) for i in range(9)],
            '{"kind": "x", "id": 1, "open": true}',
        ),
    ],
)
def test_the_best_fixed_answer_of_each_form(metric: str, answers: list[str], expected: str) -> None:
    scorer = get_scorer(metric, {})

    def score(answer: str) -> float:
        items = [scorer.score(e, Completion(text=answer)) for e in rows(answers)]
        return scorer.aggregate(items)

    found = given(metric, answers)
    assert score(found) >= score(expected) > 0
    assert score(found) >= max(score(answer) for answer in answers)


def test_the_metric_decides_not_the_count() -> None:
    """Close to all is better than equal to some, where closeness counts."""
    answers = ["0"] * 3 + ["50", "51", "49", "50.5", "49.5"]
    assert given("numeric", answers) == "0"
    assert given("numeric", answers, tolerance=2.0) != "0"


def call(name: str, key: str, place: int) -> Example:
    function = {"name": name, "arguments": "{}"}
    calls = [{"id": f"call-{place}", "type": "function", "function": function}] if name else []
    answer = {"role": "assistant", "content": "" if calls else "hello", "tool_calls": calls}
    return Example(id=key, messages=({"role": "user", "content": key}, answer))


def test_where_tools_are_called_no_call_is_among_the_constants() -> None:
    train = [call("" if i % 5 < 3 else f"f{i}", f"r{i}", i) for i in range(50)]
    fitted = Constant("constant", get_scorer("tool_calls", {})).fit(train, train)
    assert not fitted.answer(train[:1])[0].tool_calls
    assert fitted.chosen()["train_score"] == pytest.approx(0.6)

    same = [call("look" if i % 5 < 3 else "", f"r{i}", i) for i in range(50)]
    fitted = Constant("constant", get_scorer("tool_calls", {})).fit(same, same)
    assert fitted.answer(same[:1])[0].tool_calls  # calls with other ids are the same call


def test_it_is_chosen_on_train_and_only_measured_on_dev() -> None:
    train, dev = rows(["yes", "yes", "no"]), rows(["no", "no", "no", "yes"], "d")
    fitted = Constant("constant", get_scorer("accuracy", {})).fit(train, dev)
    assert [c.text for c in fitted.dev_completions or []] == ["yes"] * 4
    chosen = fitted.chosen()
    assert chosen["share"] == pytest.approx(2 / 3)
    assert chosen["dev_evaluations"] == 0
    json.dumps(chosen)


def test_it_is_the_commonest_label_of_all_rows() -> None:
    draw = random.Random(4)
    labels = draw.choices([f"label {i}" for i in range(40)], k=3000)
    fitted = Constant("constant", get_scorer("accuracy", {})).fit(rows(labels), [])
    (best, _), *_ = Counter(labels).most_common(1)
    assert fitted.answer(rows(["?"]))[0].text == best


@pytest.mark.parametrize("metric", ["token_f1", "rouge_l", "bleu", "chrf", "macro_f1"])
def test_long_answers_take_no_long_time(metric: str) -> None:
    draw = random.Random(0)
    words = [f"word{i}" for i in range(50)]
    answers = [" ".join(draw.choices(words, k=draw.randrange(20, 200))) for _ in range(400)]
    fitted = Constant("constant", get_scorer(metric, {})).fit(rows(answers), [])
    assert fitted.chosen()["train_score"] > 0


def several(*answers: str, key: str) -> Example:
    first, *others = answers
    further = tuple({"role": "assistant", "content": other} for other in others)
    return replace(row(key, f"question {key}", first), references=further)


@pytest.mark.parametrize(
    ("metric", "shared", "own"),
    [
        ("exact_match", "yes", ["of course", "certainly", "it is so", "indeed"]),
        ("token_f1", "in the north", ["one a", "two b", "three c", "four d"]),
        ("list_f1", '["a", "b"]', ['["c"]', '["d"]', '["e"]', '["f"]']),
        ("list_f1", "a, b", ['["c"]', '["d"]', '["e"]', '["f"]']),
        ("json_fields", '{"a": 1, "b": 2}', ['{"a": 9}', '{"b": 8}', '{"c": 7}', '{"d": 6}']),
    ],
)
def test_of_several_right_answers_any_may_be_the_constant(
    metric: str, shared: str, own: list[str]
) -> None:
    """What is right in each row stands nowhere as the first of its answers."""
    train = [several(first, f"other {i}", shared, key=f"r{i}") for i, first in enumerate(own)]
    fitted = Constant("constant", get_scorer(metric, {})).fit(train, [])
    assert fitted.answer(train[:1])[0].text == shared
    assert (fitted.chosen()["share"], fitted.chosen()["train_score"]) == (1.0, 1.0)


class Asking:
    """A metric that would ask somebody about each answer."""

    name, binary, corpus = "asking", False, False

    def score(self, example: Example, completion: Completion) -> ItemScore:
        raise AssertionError("asked")

    def score_all(self, examples: object, completions: object, progress: object = None) -> Any:
        raise AssertionError("asked")

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        raise AssertionError("asked")


def test_it_never_costs_anything() -> None:
    specs = (CandidateSpec(name="zero_shot", kind="zero_shot"),)
    assert with_floor(specs, Asking(), train=rows(["a"]), dev=[]) == specs
    with pytest.raises(NotOfferedError, match="asking"):
        Constant("constant", Asking()).fit(rows(["a"]), [])


def test_it_stands_once_in_a_study_under_a_free_name() -> None:
    scorer = get_scorer("accuracy", {})
    named = CandidateSpec(name="mine", kind="constant")
    assert with_floor([named], scorer, train=rows(["a"]), dev=[]) == (named,)
    other = CandidateSpec(name="constant", kind="zero_shot")
    specs = with_floor([other], scorer, train=rows(["a"]), dev=[])
    assert [(s.name, s.is_constant) for s in specs] == [("constant", False), ("constant_2", True)]
    assert with_floor([other], scorer, train=[row("r", "q", None)], dev=[]) == (other,)


def test_scores_that_no_answer_can_have_make_no_constant() -> None:
    with pytest.raises(NotOfferedError, match="no fixed answer"):
        Constant("constant", get_scorer("recorded", {})).fit(rows(["a"]), [])
