"""Whatever stands in a file: an example, a finding, or an error that says what is wrong."""

from __future__ import annotations

import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewise.data.audit import audit
from tunewise.data.chat import Example
from tunewise.data.conversations import READERS
from tunewise.data.findings import Problem
from tunewise.data.formats import detect, to_example, to_row
from tunewise.data.read import read_examples
from tunewise.data.write import csv_cell, write_csv, write_jsonl
from tunewise.errors import TunewiseError, WorkspaceError

# All of Unicode, lone surrogates too: JSON can spell them.
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
NAMES = st.sampled_from(
    [
        "messages",
        "conversations",
        "role",
        "content",
        "from",
        "value",
        "input",
        "output",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "label",
        "kto_tag",
        "instruction",
        "history",
        "system",
        "tools",
        "functions",
        "tool_calls",
        "function_call",
        "weight",
        "name",
        "id",
        "group",
        "time",
        "split",
        "doc_id",
        "metadata",
        "preferred_output",
        "non_preferred_output",
        "text",
        "type",
    ]
)
SPOKEN = st.sampled_from(
    ["user", "assistant", "system", "tool", "function", "human", "gpt", "function_call"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | SPOKEN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=4),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries(
    {"role": SPOKEN | VALUES, "content": TEXT | VALUES},
    optional={"tool_calls": VALUES, "function_call": VALUES, "weight": VALUES, "name": VALUES},
)
TURN = st.fixed_dictionaries({"from": SPOKEN | VALUES, "value": TEXT | VALUES})
ROW = st.dictionaries(
    NAMES, TEXT | VALUES | st.lists(MESSAGE | TURN, max_size=3), min_size=1, max_size=6
)
SLOW = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


@SLOW
@given(ROW, st.sampled_from(sorted(READERS)))
def test_any_row_is_an_example_or_an_error(row: dict[str, Any], format: Any) -> None:
    try:
        made, _ = to_example(row, format)
    except TunewiseError as error:
        str(error).encode()  # and the error itself can be printed
        return
    assert made.target is not None
    again = to_row(made)
    assert to_example(again, detect([again]))[0].messages == made.messages


@SLOW
@given(st.lists(ROW | VALUES, max_size=8))
def test_any_file_is_audited(rows: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            report = audit(path)
        except TunewiseError as error:
            assert error.where
            return
        assert sum(report.rows.values()) + report.left_out == len(rows)


@SLOW
@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet"]))
def test_any_bytes(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_bytes(data)
        problems: list[Problem] = []
        try:
            list(read_examples(path, on_problem=problems.append))
        except TunewiseError as error:
            assert str(path) in str(error)


@SLOW
@given(st.randoms(use_true_random=False))
def test_damaged_files(rng: random.Random) -> None:
    rows = [{"input": f"q{i} ä", "output": [f"a{i}"], "id": i} for i in range(6)]
    data = bytearray(rng.choice([json.dumps(rows), "\n".join(map(json.dumps, rows))]).encode())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / rng.choice(["x.jsonl", "x.json"])
        path.write_bytes(bytes(data))
        try:
            list(read_examples(path))
        except TunewiseError as error:
            assert error.message and error.where


@SLOW
@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=5))
def test_csv_holds_no_formulas_and_loses_nothing(rows: list[list[str]]) -> None:
    rows = [[cell.encode("utf-8", "replace").decode() for cell in row] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.csv"
        write_csv(path, ["=a", "b"], rows)
        with path.open(encoding="utf-8", newline="") as file:
            back = list(csv.reader(file))
    assert back[0] == ["'=a", "b"]
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for r in back for cell in r)
    for given_row, read_row in zip(rows, back[1:], strict=True):
        for one, other in zip(given_row, read_row, strict=True):
            assert other in (one, "'" + one)


def test_csv_numbers_stay_numbers() -> None:
    assert csv_cell(-3.5) == -3.5 and csv_cell("-3.5") == "'-3.5" and csv_cell("a=b") == "a=b"


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows() -> Any:
        yield {"a": 2}
        raise WorkspaceError("stop")

    with pytest.raises(WorkspaceError, match="stop"):
        write_jsonl(path, rows())
    assert path.read_text() == '{"a": 1}\n' and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_jsonl(path / "below-a-file.jsonl", [])


def test_examples_do_not_share_state() -> None:
    row = {"input": "q", "output": "a"}
    one, other = to_example(row, "pair")[0], to_example(row, "pair")[0]
    assert isinstance(one, Example) and one.messages[0] is not other.messages[0]
