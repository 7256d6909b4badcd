"""Study files: what is read, what is refused, and whether the error names line and key."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.errors import StudyError
from tunewise.study.json_schema import json_schema
from tunewise.study.loading import load_study
from tunewise.study.overrides import apply_overrides
from tunewise.study.yaml_source import parse_yaml

GOOD = """\
name: recipe-assistant
model: tunewise/tiny
prompt: List the ingredients.
data:
  examples: recipes.jsonl
metric: list_f1
candidates: [zero_shot, {name: few, kind: few_shot, k: [2, 4]}]
fine_tune: {learning_rate: 1e-4, epochs: 3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipes.jsonl").write_text("{}\n")
    (tmp_path / "study.yaml").write_text(GOOD)
    return tmp_path


def refused(folder: Path, text: str | bytes, *overrides: str) -> StudyError:
    file = folder / "study.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(StudyError) as caught:
        load_study(file, overrides)
    return caught.value


def test_a_good_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    loaded = load_study("study.yaml")
    assert loaded.study.data.examples == str(folder / "recipes.jsonl")
    assert loaded.study.fine_tune.learning_rate == 1e-4
    assert loaded.study.metric.name == "list_f1"
    assert loaded.directory == folder
    assert loaded.path == Path("study.yaml")
    assert loaded.raw == yaml.safe_load(GOOD) | {"fine_tune": {"learning_rate": 1e-4, "epochs": 3}}


def test_paths_are_relative_to_the_study(folder: Path) -> None:
    for name in ("docs", "tuned"):
        (folder / name).mkdir()
    for name in ("prices.yaml", "must.jsonl", "a.jsonl", "b.jsonl", "schema.json"):
        (folder / name).write_text("{}")
    text = """\
name: r
model: ./tuned
data: {train: recipes.jsonl, test: hf://owner/set:test, documents: docs}
metric: {name: json_fields, options: {schema: schema.json}}
candidates:
  - {kind: recorded, answers: [a.jsonl, b.jsonl]}
  - {name: other, kind: few_shot, model: tuned}
  - {name: hub, kind: few_shot, model: owner/name}
costs: {prices: prices.yaml}
forgetting: {suite: general, must_pass: must.jsonl}
output: {json_schema: schema.json}
"""
    (folder / "study.yaml").write_text(text)
    study = load_study(folder / "study.yaml").study
    assert study.model == str(folder / "tuned")
    assert study.data.train == str(folder / "recipes.jsonl")
    assert study.data.test == "hf://owner/set:test"
    assert study.data.documents == str(folder / "docs")
    assert study.metric.options["schema"] == str(folder / "schema.json")
    assert study.candidates is not None
    assert study.candidates[0].answers == [str(folder / "a.jsonl"), str(folder / "b.jsonl")]
    assert study.candidates[1].model == str(folder / "tuned")
    assert study.candidates[2].model == "owner/name"
    assert study.costs.prices == str(folder / "prices.yaml")
    assert study.forgetting.suite == "general"
    assert study.output.json_schema == str(folder / "schema.json")


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("  examples:", "  exmples:", "5: data.exmples", ["unknown key", "`data.examples`"]),
        ("epochs", "epoch", "8: fine_tune.epoch", ["`fine_tune.epochs`"]),
        ("metric:", "metrics:", "", ["metrics", "`metric`", "`metric` is missing"]),
        ("model:", "lora:", "2: lora", ["belongs here", "`fine_tune.lora`"]),
        ("model:", "batchsize:", "2: batchsize", ["`fine_tune.batch_size`"]),
        ("model:", "zzzzzz:", "2: zzzzzz", ["Possible here: name, use_case"]),
        ("k: [2, 4]", "k: [2, x]", "7: candidates[1].k[1]", ["a whole number, not 'x'"]),
        ("k: [2, 4]", "k: 2", "7: candidates[1].k", ["a list, not 2"]),
        ("k: [2, 4]", "K: [2]", "7: candidates[1].K", ["`candidates[1].k`"]),
        ("zero_shot,", "zero_shoot,", "7: candidates[0]", ["not 'zero_shoot'", "`zero_shot`"]),
        ("zero_shot,", "few_shot, few_shot,", "7: candidates", ["two candidates are called"]),
        ("epochs: 3", "epochs: -3", "8: fine_tune.epochs", ["greater than 0, not -3"]),
        ("epochs: 3", "epochs: inf", "8: fine_tune.epochs", ["finite"]),
        ("1e-4", "fast", "8: fine_tune.learning_rate", ["a number or a list, not 'fast'"]),
        ("List the ingredients.", "{a: 1}", "3: prompt", ["text or a list, not a mapping"]),
        ("List the ingredients.", "[x, 5]", "3: prompt[1]", ["should be text, not 5"]),
        ("recipe-assistant", "a/b", "1: name", ["letters, digits"]),
        ("recipes.jsonl", "recipe.jsonl", "5: data.examples", ["no such file", "recipes.jsonl?"]),
        ("recipes.jsonl", "qq/x.jsonl", "5: data.examples", ["There is no folder"]),
        ("name: recipe-assistant\n", "", "1: name", ["`name` is missing"]),
        ("  examples: recipes.jsonl", "", "4: data", ["a mapping"]),
        ("metric: list_f1", "metric: [list_f1]", "6: metric", ["a mapping"]),
        ("prompt:", "effort: quik\nprompt:", "3: effort", ["'quick'", "not 'quik'", "`quick`?"]),
    ],
)
def test_errors_name_line_key_and_what_was_meant(
    folder: Path, old: str, new: str, where: str, words: list[str]
) -> None:
    assert GOOD.count(old) == 1
    error = refused(folder, GOOD.replace(old, new))
    if where:
        assert error.where == f"{folder / 'study.yaml'}:{where}"
    for word in words:
        assert word in str(error)
    assert error.exit_code == 2


def test_several_errors_at_once_by_line(folder: Path) -> None:
    text = GOOD.replace("  examples", "  exmples").replace("epochs", "epoch")
    error = refused(folder, text.replace("zero_shot", "nothing") + "a: 1\nb: 2\nc: 3\nd: 4\n")
    lines = error.message.splitlines()
    assert lines[0] == "7 things are wrong:"
    assert [line.split(": ")[1] for line in lines[1:6]] == [
        "data.exmples", "candidates[0]", "fine_tune.epoch", "a", "b",
    ]  # fmt: skip
    assert lines[-1].strip() == "… and 2 more"


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("name: r\n\tdata: x\n", "2:1", ["a tab stands here", "spaces"]),
        ("name: r\ndata: x: y\n", "2:8", ["a colon"]),
        ("name: r\nname: s\n", "2:1", ["`name`", "second time", "line 1"]),
        ("data:\n  a: 1\n  a: 2\n", "3:3", ["`a`"]),
        ("a: !!python/object/apply:os.system [ls]\n", "1:4", ["tags"]),
        ("a: !secret x\n", "1:4", ["tags"]),
        ("1: x\n", "1:1", ["must be text, not '1'"]),
        ("? [a]\n: x\n", "1:3", ["a list or mapping"]),
        ("a: &a [*a]\n", "1:4", ["refers to what it stands in"]),
        ("a: 1\n---\nb: 2\n", "2:1", ["second document"]),
        ('a: "x\n', "2:1", ["end of stream"]),
        ("- a\n", "1", ["mapping"]),
        ("", "", ["empty"]),
        ("# nothing\n", "", ["empty"]),
        (b"name: caf\xe9\n", "1", ["UTF-8", "0xe9"]),
        ("a: \x07\n", "", ["not readable"]),
        ("a: " + "[" * 100_000, "", ["nested too deeply"]),
        ("a: " + "{a: " * 100_000, "", ["nested too deeply"]),
        ("".join(" " * k + "a:\n" for k in range(1200)), "", ["nested too deeply"]),
        ("a: " + "9" * 5000, "1:4", ["number"]),
        ("a: 1\n" * 300_000, "", ["1 MiB"]),
    ],
)
def test_what_is_no_study_file(
    folder: Path, text: str | bytes, where: str, words: list[str]
) -> None:
    start = time.process_time()
    error = refused(folder, text)
    assert time.process_time() - start < 4
    assert error.where == str(folder / "study.yaml") + (f":{where}" if where else "")
    for word in words:
        assert word in str(error)


def test_an_alias_bomb_is_refused_quickly(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    start = time.process_time()
    error = refused(folder, "\n".join(lines))
    assert "grows to more than" in error.message
    assert time.process_time() - start < 2


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(StudyError, match="no such study file") as caught:
        load_study(folder / "stduy.yaml")
    assert caught.value.hint == "Did you mean study.yaml?"
    with pytest.raises(StudyError, match="a folder"):
        load_study(folder)
    with pytest.raises(StudyError, match="no such study file"):
        load_study(folder / "no" / "study.yaml")
    for odd in ("x" * 5000, "a\0b"):
        with pytest.raises(StudyError):
            load_study(folder / odd)


def test_other_encodings_of_the_same_text(folder: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (folder / "study.yaml").write_bytes(GOOD.encode(encoding))
        assert load_study(folder / "study.yaml").study.name == "recipe-assistant"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2.5E3", -2500.0),
        (".5", 0.5),
        ("010", 10),
        ("0x1f", 31),
        ("1_000", "1_000"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("2026-11-01", "2026-11-01"),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("'5'", "5"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    parsed = parse_yaml(f"key: {text}", "x").value["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_merged_keys_and_shared_parts(folder: Path) -> None:
    text = GOOD + "traffic: &t {horizon_months: 6}\ntarget:\n  <<: {minimal_gain: 4}\n  score: 9\n"
    (folder / "study.yaml").write_text(text)
    study = load_study(folder / "study.yaml").study
    assert (study.target.minimal_gain, study.target.score) == (4, 9)
    shared = parse_yaml("a: &x {y: 1}\nb: *x\n", "x").value
    assert apply_overrides(shared, ["a.y=2"]) == {"a": {"y": 2}, "b": {"y": 1}}


def test_overrides(folder: Path) -> None:
    overrides = [
        "fine_tune.epochs=2", "fine_tune.lora.rank=8", "effort=quick", "candidates[1].k=[1]",
        "candidates.few.orders=1", "candidates.0=few_shot", "target={minimal_gain: 5}",
        "use_case='a=b: c'", "metric=accuracy",
    ]  # fmt: skip
    loaded = load_study(folder / "study.yaml", overrides)
    study = loaded.study
    assert (study.fine_tune.epochs, study.fine_tune.lora.rank, study.effort) == (2, 8, "quick")
    assert study.candidates is not None
    assert [c.name for c in study.candidates] == ["few_shot", "few"]
    assert (study.candidates[1].k, study.candidates[1].orders) == ([1], 1)
    assert (study.target.minimal_gain, study.use_case) == (5, "a=b: c")
    assert loaded.raw["fine_tune"] == {"learning_rate": 1e-4, "epochs": 2, "lora": {"rank": 8}}


@pytest.mark.parametrize(
    ("override", "where", "words"),
    [
        ("epochs", "--set", ["not KEY=VALUE"]),
        ("=1", "--set", ["not KEY=VALUE"]),
        ("a..b=1", "--set", ["not KEY=VALUE"]),
        ("fine_tune.epoch=1", "--set fine_tune.epoch", ["`fine_tune.epochs`"]),
        ("nothing.at.all=1", "--set nothing", ["unknown key"]),
        ("effort=quik", "--set effort", ["`quick`"]),
        ("metric.name=x", "--set metric", ["'list_f1'", "Give the whole value"]),
        ("candidates[5].k=1", "--set candidates[5]", ["counted from 0"]),
        ("candidates[5]=rag", "--set candidates[5]", ["counted from 0"]),
        ("candidates.nobody.k=1", "--set candidates.nobody", ["named"]),
        ("effort=[", "--set:1:2", ["end"]),
        ("data.examples=no.jsonl", "--set data.examples", ["no such file"]),
    ],
)
def test_wrong_overrides(folder: Path, override: str, where: str, words: list[str]) -> None:
    error = refused(folder, GOOD, override)
    assert error.where == where
    for word in words:
        assert word in str(error)


keys = st.sampled_from(["name", "data", "metric", "candidates", "fine_tune", "k", "zzz", "model"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(document=st.dictionaries(keys, values, max_size=6))
def test_any_document_gives_a_study_or_an_error_with_its_file(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    file = tmp_path_factory.mktemp("any") / "study.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    try:
        load_study(file)
    except StudyError as error:
        assert error.where is not None
        assert error.where.startswith(str(file))


@settings(max_examples=80, deadline=None)
@given(text=st.text(alphabet="abc:-[]{}&*!|>'\"#%@`,? \n\t0.e", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = parse_yaml(text, "x").value
    except StudyError:
        return
    # What is read is plain JSON.
    assert json.loads(json.dumps(value)) == value


def test_the_schema_for_editors_accepts_what_the_loader_accepts(folder: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    validator = jsonschema.Draft202012Validator(schema)
    good = parse_yaml(GOOD, "x").value
    variants = [
        {**good, "metric": {"name": "numeric", "options": {"tolerance": 0.1}}},
        {**good, "candidates": [{"kind": "few_shot"}, "rag"]},
        {**good, "candidates": [{"name": "zero_shot"}]},
        {**good, "candidates": None},
    ]
    for study in [good, *variants]:
        validator.validate(study)
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        load_study(folder / "study.yaml")
    for wrong in (
        {**good, "metrics": "x"},
        {**good, "candidates": ["few"]},
        {**good, "candidates": [{"k": [1]}]},
        {"name": "x"},
    ):
        assert not validator.is_valid(wrong)
    described = schema["properties"]["data"], schema["$defs"]["Data"]["properties"]["examples"]
    assert "description" in described[1]
