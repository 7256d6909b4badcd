"""Graders as people write them: every accepted shape, and errors with the path of what is bad."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.scoring.graders import GraderError, parse_grader
from tunewise.scoring.graders.schema import Multi, ScoreModel
from tunewise.scoring.graders.templates import MissingValueError, parse_template

CHECK = {
    "type": "string_check",
    "name": "check",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
SCORE = {
    "type": "score_model",
    "name": "score",
    "model": "judge",
    "input": [{"role": "user", "content": "Grade {{sample.output_text}}"}],
}
LABEL = {
    **SCORE,
    "type": "label_model",
    "name": "label",
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
PYTHON = {"type": "python", "name": "py", "source": "def grade(sample, item): return 1"}


def multi(graders: Any, formula: str = "check", **more: Any) -> dict[str, Any]:
    return {
        "type": "multi",
        "name": "m",
        "graders": graders,
        "calculate_output": formula,
        **more,
    }


@pytest.mark.parametrize(
    "graders",
    [
        {"check": CHECK},
        [CHECK],
        CHECK,
        {"check": {k: v for k, v in CHECK.items() if k != "name"}},
    ],
)
def test_the_graders_of_a_multi_in_each_shape(graders: Any) -> None:
    parsed = parse_grader(multi(graders))
    assert isinstance(parsed, Multi)
    assert list(parsed.graders) == ["check"]


def test_the_key_names_a_grader_in_the_formula_whatever_its_own_name() -> None:
    parsed = parse_grader(multi({"key": {**CHECK, "name": "a long name"}}, "key"))
    assert isinstance(parsed, Multi)
    assert parsed.graders["key"].name == "a long name"


def test_undocumented_fields_are_taken() -> None:
    extra = {
        "pass_threshold": 0.5,
        "response_format": {"type": "json_schema"},
        "invalid_grade": 0.0,
        "something_else": [1],
    }
    for grader in (CHECK, SCORE, PYTHON, multi([CHECK])):
        assert parse_grader({**grader, **extra}).pass_threshold == 0.5


def test_every_kind_of_message_content() -> None:
    contents: list[Any] = [
        "text",
        {"type": "input_text", "text": "{{item.q}}"},
        {"type": "output_text", "text": "x"},
        ["a", {"type": "input_text", "text": "b"}],
    ]
    messages = [{"role": "developer", "content": c, "type": "message"} for c in contents]
    parsed = parse_grader({**SCORE, "input": messages, "range": [1, 7]})
    assert isinstance(parsed, ScoreModel)
    assert [m.texts for m in parsed.input] == [("text",), ("{{item.q}}",), ("x",), ("a", "b")]
    assert parsed.range == [1, 7]


@pytest.mark.parametrize(
    ("grader", "where", "told"),
    [
        (None, "grader", "object with a `type`"),
        ([], "grader", "object"),
        ({}, "grader.type", "missing"),
        ({"type": "no_such"}, "grader.type", "no grader of type 'no_such'"),
        ({"type": ["python"]}, "grader.type", "no grader of type"),
        ({**CHECK, "operation": "eqq"}, "grader.operation", "'eq', 'ne'"),
        ({**CHECK, "input": 5}, "grader.input", "text"),
        ({**CHECK, "name": 5}, "grader.name", "text"),
        ({**CHECK, "input": "{{x}}"}, "grader.input", "neither `item` nor `sample`"),
        ({**CHECK, "reference": "{{item.a + 1}}"}, "grader.reference", "no path"),
        ({**CHECK, "input": "{{sample.text}}"}, "grader.input", "has no 'text'"),
        ({**CHECK, "pass_treshold": 1}, "grader.pass_treshold", "`pass_threshold`"),
        ({**PYTHON, "source": "#" * 300_000}, "grader.source", "256 KiB"),
        ({**SCORE, "range": [1]}, "grader.range", ""),
        ({**SCORE, "range": [1, 1]}, "grader.range", "must rise"),
        ({**SCORE, "range": [0, float("inf")]}, "grader.range[1]", "finite"),
        ({**SCORE, "input": []}, "grader.input", ""),
        ({**SCORE, "input": [{"role": "user", "content": "{{"}, {"role": "x", "content": "a"}]},
         "grader.input[1].role", "'user'"),
        ({**SCORE, "input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": "http://x"}]}]},
         "grader.input[0].content", "input_image cannot be graded"),
        ({**SCORE, "sampling_params": {"top_p": 2}}, "grader.sampling_params.top_p", "less"),
        (LABEL, "grader", "only inside a multi"),
        (multi({"l": {**LABEL, "passing_labels": ["fine"]}}, "l"),
         "grader.graders.l.passing_labels", "'fine' is none"),
        (multi({"l": {**LABEL, "labels": ["good", "good"]}}, "l"),
         "grader.graders.l.labels", "twice"),
        (multi({}), "grader.graders", "1 to 64"),
        (multi(5), "grader.graders", "maps names"),
        (multi({"check": 5}), "grader.graders.check", "object"),
        (multi([CHECK, CHECK]), "grader.graders[1]", "two graders"),
        (multi([CHECK, {**CHECK, "name": "9"}]), "grader.graders[1]", "begin with a letter"),
        (multi({"min": CHECK}, "min"), "grader.graders.min", "function of formulas"),
        (multi({"check": multi([CHECK])}), "grader.graders.check", "inside another"),
        (multi({"check": {**CHECK, "input": "{{ }}"}}), "grader.graders.check.input", "neither"),
        (multi([CHECK], "chek"), "grader.calculate_output", "Graders: check"),
        (multi([CHECK], 5), "grader.calculate_output", "text"),
        ({"type": "multi", "name": "m", "calculate_output": "1"}, "grader.graders", "missing"),
    ],
)  # fmt: skip
def test_what_is_bad_is_told_with_its_path(grader: Any, where: str, told: str) -> None:
    with pytest.raises(GraderError) as caught:
        parse_grader(grader)
    assert caught.value.where == where
    assert told in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(
    st.sampled_from([CHECK, SCORE, LABEL, PYTHON, multi([CHECK]), multi({"l": LABEL}, "l")]),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_any_change_to_a_grader_is_accepted_or_told(grader: dict[str, Any], data: Any) -> None:
    changed = dict(grader)
    changed[data.draw(st.sampled_from(sorted(grader)))] = data.draw(JSON)
    try:
        parse_grader(changed)
    except GraderError as error:
        assert error.where and error.where.startswith("grader")


SPACES = {
    "item": {"x": "X", "n": 5, "yes": True, "none": None, "a b": "S", "list": [{"y": "Y"}, "L"],
             "deep": {"1": "one"}, "template": "{{item.x}}", "item": "I", "{{": "braces"},
    "sample": {"output_text": "T", "output_json": {"a": {"b": [1, 2]}, "": "empty"},
               "output_tools": [], "choices": []},
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{item.x}}", "X"),
        ("{{ item.x }} and {{item.x}}", "X and X"),
        ("{{\titem . x\n}}", "X"),
        ("{{sample.output_text}}", "T"),
        ("{{sample.output_json.a.b}}", "[1, 2]"),
        ("{{sample.output_json.a.b[1]}}", "2"),
        ("{{sample.output_json.a.b.1}}", "2"),
        ("{{sample.output_json['a'][\"b\"][0]}}", "1"),
        ("{{item.list[0].y}}{{item.list.1}}", "YL"),
        ("{{item['a b']}}", "S"),
        ("{{item.deep.1}}{{item.deep[1]}}", "oneone"),
        ("{{item.n}} {{item.yes}} {{item.none}}", "5 true null"),
        ("{{item.item}}", "I"),
        ("{{item.template}}", "{{item.x}}"),
        ("plain { text } %s {x} {% if %}", "plain { text } %s {x} {% if %}"),
        ("{{ unclosed", "{{ unclosed"),
        ("", ""),
    ],
)
def test_templates(template: str, wanted: str) -> None:
    assert parse_template(template, "here").render(SPACES) == wanted


@pytest.mark.parametrize(
    "template",
    [
        "{{item.__class__}}",
        "{{item.x.__class__.__mro__}}",
        "{{item.list[7]}}",
        "{{item.list.y}}",
        "{{item.x.y}}",
        "{{item.list[999999999]}}",
        "{{item.missing}}",
        "{{sample.output_json.keys}}",
        "{{sample.output_json.a.b.append}}",
    ],
)
def test_a_path_leads_to_data_only(template: str) -> None:
    with pytest.raises(MissingValueError):
        parse_template(template, "here").render(SPACES)


@pytest.mark.parametrize(
    "template",
    [
        "{{}}",
        "{{ }}",
        "{{os.environ}}",
        "{{items.x}}",
        "{{item.x|upper}}",
        "{{item.x()}}",
        "{{item.x + 1}}",
        "{{item..x}}",
        "{{item.}}",
        "{{item.x y}}",
        "{{item[x]}}",
        "{{item[-1]}}",
        "{{item[0:5]}}",
        "{{item['x}}",
        "{{sample.__class__}}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{item.x}} {{config}}",
        "{{{item.x}}}",
        "x" * 1_000_001,
    ],
)
def test_a_template_that_is_no_path_is_refused(template: str) -> None:
    with pytest.raises(GraderError) as caught:
        parse_template(template, "here")
    assert caught.value.where == "here"


@pytest.mark.timeout(20)
def test_hostile_templates_take_no_time() -> None:
    for template in ("{{" * 200_000, "{{item" + "." * 100_000, "{{item" + "[0]" * 50_000 + "x}}",
                     "{{item." + " " * 100_000 + "}}"):  # fmt: skip
        try:
            parse_template(template, "here").render(SPACES)
        except (GraderError, MissingValueError):
            continue


@given(st.text(alphabet="{}item.sample[]'\"0x ", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_template_renders_or_is_told(text: str) -> None:
    try:
        assert isinstance(parse_template(text, "here").render(SPACES), str)
    except (GraderError, MissingValueError):
        return


def test_a_grader_without_a_name_is_called_by_its_type() -> None:
    nameless = {k: v for k, v in CHECK.items() if k != "name"}
    single = parse_grader(nameless)
    assert not isinstance(single, Multi) and single.name == "string_check"
    parsed = parse_grader(multi([nameless, PYTHON], "string_check + py"))
    assert isinstance(parsed, Multi) and list(parsed.graders) == ["string_check", "py"]
    with pytest.raises(GraderError, match="two graders are called 'string_check'"):
        parse_grader(multi([nameless, nameless], "1"))
