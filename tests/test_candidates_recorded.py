"""Recorded answers: reading, matching, every way a file can be wrong; no torch anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from candidates_kit import row
from tunewise.candidates.recorded import (
    Recorded,
    examples_from_recorded,
    read_recorded,
    recorded_answers,
)
from tunewise.errors import DataError
from tunewise.study.schema import CandidateSpec


def _file(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_answers_are_matched_by_id(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "a.jsonl",
        [
            {"id": "b", "answer": "B", "prompt_tokens": 10, "completion_tokens": 2},
            {"id": "a", "answer": "A", "latency_s": 0.25, "split": "dev"},
            {"id": 7, "answer": "seven"},
            {"id": "z", "answer": "extra", "note": "?"},
        ],
    )
    fitted = Recorded("r", read_recorded([path])).fit([], [row("a", "q", "A")])
    found = fitted.answer([row("7", "q", "x"), row("gone", "q", "x"), row("b", "q", "B")])
    assert [c.text for c in found] == ["seven", "", "B"]
    assert found[1].error == "no answer was recorded for this row"
    assert (found[2].prompt_tokens, found[2].completion_tokens) == (10, 2)
    assert fitted.dev_completions is not None
    assert (fitted.dev_completions[0].text, fitted.dev_completions[0].latency_s) == ("A", 0.25)
    chosen = fitted.chosen()
    assert chosen["missing"] == {"count": 1, "ids": ["gone"]}
    assert chosen["extra"] == {"count": 1, "ids": ["z"]}
    assert chosen["notes"] == ["1 line has the key 'note', which means nothing here"]
    assert fitted.request(row("a", "q", "A")) is None
    json.dumps(chosen)


def test_several_seeds_are_kept(tmp_path: Path) -> None:
    one = _file(tmp_path / "1.jsonl", [{"id": k, "score": 1, "seed": 1} for k in "ab"])
    two = _file(tmp_path / "2.jsonl", [{"id": "a", "score": 0.5, "seed": 0}])
    fitted = Recorded("r", read_recorded([one, two])).fit([], [])
    rows = [row("a", "q", None), row("b", "q", None)]
    assert fitted.seeds == [0, 1]
    found = fitted.answer_all_seeds(rows)
    assert [(c.score, c.seed, c.error is None) for c in found[0]] == [
        (0.5, 0, True),
        (None, 0, False),
    ]
    assert [(c.score, c.seed) for c in found[1]] == [(1, 1), (1, 1)]
    assert fitted.missing == ["b"] and fitted.extra == []


def test_rows_in_another_split_are_told(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.jsonl", [{"id": "a", "answer": "x", "split": "test"}])
    fitted = Recorded("r", read_recorded([path])).fit([row("a", "q", "x")], [])
    assert "1 row is in another split here" in fitted.chosen()["notes"][0]


def test_examples_from_scores_alone(tmp_path: Path) -> None:
    one = read_recorded(
        [
            _file(
                tmp_path / "1.jsonl",
                [{"id": k, "score": 1, "split": s} for k, s in (("a", "dev"), ("b", "test"))],
            )
        ]
    )
    two = read_recorded([_file(tmp_path / "2.jsonl", [{"id": k, "score": 0} for k in "bc"])])
    examples = examples_from_recorded([one, two])
    assert [(e.id, e.split) for e in examples] == [("a", "dev"), ("b", "test"), ("c", None)]
    other = read_recorded([_file(tmp_path / "3.jsonl", [{"id": "a", "score": 0, "split": "test"}])])
    with pytest.raises(DataError, match="'a' is in dev for one candidate and in test"):
        examples_from_recorded([one, other])
    texts = read_recorded([_file(tmp_path / "4.jsonl", [{"id": "a", "answer": "x"}])])
    with pytest.raises(DataError, match="without data"):
        examples_from_recorded([one, texts])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"answer": "x"}], "no `id`"),
        ([{"id": "", "answer": "x"}], "no `id`"),
        ([{"id": True, "answer": "x"}], "no `id`"),
        ([{"id": "a"}], "neither `answer` nor `score`"),
        ([{"id": "a", "answer": "x", "score": 1}], "both `answer` and `score`"),
        ([{"id": "a", "answer": ["x"]}], "is not text"),
        ([{"id": "a", "score": 1.01}], "between 0 and 1"),
        ([{"id": "a", "score": -0.1}], "between 0 and 1"),
        ([{"id": "a", "score": float("nan")}], "NaN is not a JSON value"),
        ([{"id": "a", "score": True}], "between 0 and 1"),
        ([{"id": "a", "score": "1"}], "between 0 and 1"),
        ([{"id": "a", "score": 10**400}], "between 0 and 1"),
        ([{"id": "a", "answer": "", "latency_s": -1}], "`latency_s` is -1"),
        ([{"id": "a", "answer": "", "latency_s": float("inf")}], "Infinity is not a JSON"),
        ([{"id": "a", "answer": "", "seed": 1.5}], "whole number"),
        ([{"id": "a", "answer": "", "prompt_tokens": "7"}], "whole number"),
        ([{"id": "a", "answer": "", "split": "validation"}], "unknown"),
        ([["a", "x"]], "not a JSON object"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, lines: list[Any], message: str) -> None:
    path = _file(tmp_path / "a.jsonl", [{"id": "fine", "answer": "x"}, *lines])
    with pytest.raises(DataError, match=message) as error:
        read_recorded([path])
    assert error.value.where == f"{path}:2"


def test_duplicates(tmp_path: Path) -> None:
    lines = [{"id": "a", "score": 1, "seed": s} for s in (1, 2, 1)]
    path = _file(tmp_path / "a.jsonl", lines)
    with pytest.raises(DataError, match="'a' with seed 1 has two answers") as error:
        read_recorded([path])
    assert error.value.where == f"{path}:3" and f"{path}:1" in error.value.message
    again = _file(tmp_path / "b.jsonl", lines[:1])
    with pytest.raises(DataError, match="two answers"):
        read_recorded([again, again])
    split = [{"id": "a", "score": 1, "seed": i, "split": s} for i, s in enumerate(("dev", "test"))]
    with pytest.raises(DataError, match="'a' is in test here and in dev before"):
        read_recorded([_file(tmp_path / "c.jsonl", split)])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_recorded([tmp_path / "none.jsonl"])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    with pytest.raises(DataError, match="no recorded answers"):
        read_recorded([empty])
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"id": "a", "answer": "x"}\n{"id": "b", "ans')
    with pytest.raises(DataError) as error:
        read_recorded([cut])
    assert error.value.where == f"{cut}:2"
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"id": "a", "answer": "é"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_recorded([latin])
    marked = tmp_path / "marked.jsonl"
    marked.write_text('{"id": "a", "answer": "é"}\n', encoding="utf-8-sig")
    assert read_recorded([marked]).by_seed[None]["a"].text == "é"


def test_paths_start_at_the_study_and_a_thousand_by_four_load_at_once(tmp_path: Path) -> None:
    names = [f"c{n}.jsonl" for n in range(4)]
    for n, name in enumerate(names):
        lines = [
            {"id": f"row-{i}", "answer": "word " * 40, "seed": n, "split": "test"}
            for i in range(1000)
        ]
        _file(tmp_path / name, lines)
    spec = CandidateSpec.model_validate({"name": "r", "kind": "recorded", "answers": names})
    begin = time.perf_counter()
    answers = recorded_answers(spec, tmp_path)
    rows = [row(f"row-{i}", "q", None) for i in range(1000)]
    found = Recorded("r", answers).fit([], []).answer_all_seeds(rows)
    assert time.perf_counter() - begin < 0.8
    assert sum(len(f) for f in found.values()) == 4000


def test_recorded_answers_load_nothing_heavy(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.jsonl", [{"id": "a", "score": 1}])
    code = (
        "import sys, pathlib\n"
        "from tunewise.candidates.build import *\n"
        "from tunewise.candidates.recorded import *\n"
        f"a = read_recorded([pathlib.Path({str(path)!r})])\n"
        "Recorded('r', a).fit([], examples_from_recorded([a]))\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = out.stdout
    for heavy in ("torch", "transformers", "sklearn", "scipy", "bm25s", "pandas", "numpy"):
        assert f"'{heavy}'" not in loaded
