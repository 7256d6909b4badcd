"""What people bring: files as other programs write them, and what their rows get wrong."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunewise.data.audit import AuditReport, audit
from tunewise.data.findings import Finding, Problem
from tunewise.data.fix import fix_file
from tunewise.data.read import read_examples
from tunewise.errors import DataError, StudyError, TunewiseError
from tunewise.study.yaml_source import parse_yaml


def finding(report: AuditReport, code: str) -> Finding:
    return next(f for f in report.findings if f.code == code)


def jsonl(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


ROWS = [{"input": f"question {n}", "output": f"answer {n}"} for n in range(12)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_files_with_carriage_returns_alone_are_read(
    tmp_path: Path, name: str, encoding: str
) -> None:
    path = tmp_path / name
    texts = {
        "rows.csv": 'input,output\ra,"b\rc"\rd,é\r',
        "rows.jsonl": '{"input":"a","output":"b"}\r{"input":"d","output":"é"}\r',
        "rows.json": '[{"input":"a","output":"b"},\r{"input":"d","output":"é"}]\r',
    }
    path.write_bytes(texts[name].encode(encoding))
    found = list(read_examples(path))
    assert [(r.user_text, r.answer) for r in found] == [
        ("a", "b\rc" if name == "rows.csv" else "b"),
        ("d", "é"),
    ]
    if name == "rows.jsonl":
        assert found[1].source == f"{path}:2"


def test_a_header_that_cannot_be_read_is_told_and_no_row_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("größe,output\na,b\nc,d\n".encode("windows-1252"))
    with pytest.raises(DataError, match="not UTF-8") as error:
        list(read_examples(path))
    assert error.value.where == f"{path}:1"
    path.write_bytes(b"input,output\ra,b\nc,d\n")  # line ends of both kinds
    with pytest.raises(DataError, match="header"):
        list(read_examples(path))


@pytest.mark.parametrize("encoding", ["hex", "rot13", "no such"])
def test_encodings_that_are_none_are_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(DataError, match="no encoding is called"):
        list(read_examples(jsonl(tmp_path / "a.jsonl", *ROWS), encoding=encoding))


@pytest.mark.parametrize("wrap", ["lines", "array"])
@pytest.mark.parametrize(
    ("row", "code"),
    [
        ('{"input": "a", "output": NaN}', "not_a_number"),
        ('{"input": "a", "output": -Infinity}', "not_a_number"),
        ('{"input": "a", "output": 1e999}', "not_a_number"),
        ('{"input": "a", "input": "b", "output": "c"}', "duplicate_key"),
        ('{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "duplicate_key"),
    ],
)
def test_json_that_readers_disagree_about_is_told_with_its_line(
    tmp_path: Path, row: str, code: str, wrap: str
) -> None:
    rows = [*map(json.dumps, ROWS), row, json.dumps({"input": "z", "output": "last"})]
    path = tmp_path / "rows.json"
    path.write_text("[" + ",\n".join(rows) + "]" if wrap == "array" else "\n".join(rows) + "\n")
    report = audit(path)
    assert finding(report, code).rows == (f"{path}:13",)
    assert (report.rows["train"], report.left_out) == (13, 1)


def test_a_key_that_stands_twice_with_one_value_loses_nothing(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", '{"input": "a", "output": "b", "input": "a"}')
    assert [r.answer for r in read_examples(path)] == ["b"]


def test_rows_wrapped_in_an_object_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": 1.1, "name": "x", "data": ROWS}, indent=1))
    assert [r.answer for r in read_examples(path)] == [r["output"] for r in ROWS]
    path.write_text('{"messages": [{"role": "user", "content": "a"},')
    with pytest.raises(DataError, match="middle of a row"):
        list(read_examples(path))


def test_parquet_writes_nan_for_an_empty_cell(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"input": ["a", "b"], "output": ["c", "d"], "score": [1.5, float("nan")]}), path
    )
    assert [row.metadata["score"] for row in read_examples(path)] == [1.5, None]


def test_answers_of_several_kinds_are_told_with_their_lines(tmp_path: Path) -> None:
    odd: list[Any] = [1, True, ["a"], {"a": 1}]
    path = jsonl(tmp_path / "a.jsonl", *ROWS, *({"input": f"odd {o}", "output": o} for o in odd))
    found = finding(audit(path), "mixed_answers")
    assert found.rows == tuple(f"{path}:{n}" for n in (13, 14, 15, 16))
    assert found.severity == "warning" and "a number" in found.message
    numbers = jsonl(tmp_path / "b.jsonl", *({"input": f"q{n}", "output": n} for n in range(12)))
    assert audit(numbers).count("mixed_answers") == 0


def test_labels_in_several_spellings_are_told_and_mended(tmp_path: Path) -> None:
    path, out = tmp_path / "labels.csv", tmp_path / "clean.jsonl"
    labels = ['" yes"', '"yes "', "no", "No", "maybe.", "maybe", "maybe", "C", "C#", "1.5", "15"]
    lines = [f"row {n},{labels[n % len(labels)]}" for n in range(88)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    report = audit(path)
    found = finding(report, "label_spelling")
    assert found.severity == "warning" and found.safe_fix
    assert "'no' = 'No'" in found.message and "'yes' " not in found.message
    assert f"{path}:5" in found.rows  # the first "No"
    # "C#" is no "C", and "1.5" no "15".
    assert set(report.spellings.values()) == {"yes", "no", "maybe"}
    fixes = fix_file(path, out, spellings=report.spellings)
    assert fixes.counts["label_spelling"] == found.count == 32
    assert Counter(r.answer for r in read_examples(out)) == {
        "yes": 16, "no": 16, "maybe": 24, "C": 8, "C#": 8, "1.5": 8, "15": 8,
    }  # fmt: skip
    assert audit(out).count("label_spelling") == 0


def test_pairs_of_one_answer_are_told_and_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(12)]
    rows[3]["rejected"] = "a3 "
    path, out = jsonl(tmp_path / "dpo.jsonl", *rows), tmp_path / "out.jsonl"
    found = finding(audit(path), "same_answers")
    assert found.rows == (f"{path}:4",) and found.safe_fix
    assert fix_file(path, out).counts["same_answers"] == 1
    assert len(list(read_examples(out))) == 11


@pytest.mark.parametrize(("labels", "severity"), [((False,), "error"), ((True,), "warning")])
def test_labelled_answers_of_one_kind_are_told(
    tmp_path: Path, labels: tuple[bool, ...], severity: str
) -> None:
    rows = [{"prompt": f"q{n}", "completion": f"a{n}", "label": labels[0]} for n in range(12)]
    report = audit(jsonl(tmp_path / "kto.jsonl", *rows))
    assert finding(report, "one_class").severity == severity
    assert report.count("unwanted_answer") == (0 if labels[0] else 12)
    rows[0]["label"] = not labels[0]
    assert audit(jsonl(tmp_path / "both.jsonl", *rows)).count("one_class") == 0


def test_one_row_reads_as_one(tmp_path: Path) -> None:
    report = audit(jsonl(tmp_path / "a.jsonl", ROWS[0]))
    assert finding(report, "missing_system").message == "the only row has no system message"
    assert "have 1 row;" in finding(report, "few_rows").message


SEEDS = [
    b'input,output\r\n"a, b",c\r\n"d\ne",f\r\n',
    'Frage;Antwort;kto_tag\nWie groß?;"1;2";true\n'.encode(),
    b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "y"}]}\n',
    b'[{"prompt": "a", "chosen": "b", "rejected": "c"},\n {"prompt": 1e5, "completion": [1, 2]}]',
    '\ufeff{"input": "ä", "output": {"a": NaN}}\r{"input": 1, "output": -0}\r'.encode("utf-16"),
    b'{"version": 1, "data": [{"instruction": "a", "input": "", "output": "b"}]}',
]
PIECES = [
    b"\r", b"\n", b"\r\n", b"\0", b'"', b'""', b";", b"\t", b"{", b"}", b"[", b"]", b"\\", b",",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\\ud800", b"NaN", b"1e999", b"9" * 5000, b"[" * 3000,
    b'"data":[', b"null", b"true",
]  # fmt: skip


def mutated(seed: bytes, random: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at:at] = random.choice(PIECES)
            case 1:
                del data[at : at + random.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([random.randrange(256)])
            case _:
                end = at + random.randint(1, 30)
                data[at:at] = data[at:end]
    return bytes(data)


def test_whatever_a_data_file_holds_there_are_rows_problems_or_an_error(tmp_path: Path) -> None:
    chance = random.Random(0)
    outcomes = Counter[str]()
    paths = [tmp_path / f"rows.{suffix}" for suffix in ("csv", "tsv", "json", "jsonl")]
    for _ in range(3000):
        path = chance.choice(paths)
        path.write_bytes(mutated(chance.choice(SEEDS), chance))
        problems: list[Problem] = []
        try:
            rows = list(
                read_examples(
                    path,
                    encoding=chance.choice([None, None, None, "utf-16", "windows-1252"]),
                    on_problem=problems.append,
                )
            )
        except TunewiseError as error:
            assert error.message and error.where
            outcomes["error"] += 1
            continue
        outcomes["rows" if rows else "nothing"] += 1
        outcomes["problems"] += any(p.fatal for p in problems)
    # Each end is met often: else the mutations would test but one of them.
    assert min(outcomes[end] for end in ("error", "rows", "problems")) > 100, outcomes


def test_whatever_a_study_file_holds_there_is_a_value_or_an_error() -> None:
    chance = random.Random(0)
    seed = (
        b"name: a\ndata: {examples: rows.jsonl}\nmetric: accuracy\nseed: 0x1f\n"
        b"candidates:\n  - &a zero_shot\n  - {kind: few_shot, k: [1, 2], name: *a}\n"
        b"target: {minimal_gain: 1.5e1}\nprompt: |\n  Say\n  it\n"
    )
    pieces = [b"0x" + b"f" * 9000, b"7" * 9000, b"*a", b"&a ", b"!!x ", b": ", b"- ", b"<<: "]
    outcomes = Counter[str]()
    for _ in range(3000):
        text = mutated(seed, chance)
        if chance.random() < 0.3:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(pieces) + text[at:]
        try:
            json.dumps(parse_yaml(text.decode("utf-8", "replace"), "study.yaml").value)
            outcomes["value"] += 1
        except StudyError as error:
            assert error.message and error.where
            outcomes["error"] += 1
    assert min(outcomes.values()) > 100, outcomes


@pytest.mark.parametrize("number", ["0x" + "f" * 9000, "9" * 9000, "0o" + "7" * 9000])
def test_numbers_of_thousands_of_digits_are_refused_with_their_line(number: str) -> None:
    with pytest.raises(StudyError, match="digits") as error:
        parse_yaml(f"name: a\nseed: {number}\n", "study.yaml")
    assert error.value.where == "study.yaml:2:7"
