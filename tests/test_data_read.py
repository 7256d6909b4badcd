"""Files as people really have them: every encoding, every cut, every size."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tunewise.data.findings import Problem
from tunewise.data.lines import MAX_LINE
from tunewise.data.read import read_examples
from tunewise.errors import DataError, TunewiseError
from tunewise.study.schema import Columns

ROWS = [{"input": f"Frage {i} für Öl", "output": f"{i}"} for i in range(5)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def collect(path: Path, **options: Any) -> tuple[list[str], list[Problem]]:
    problems: list[Problem] = []
    rows = [r.answer for r in read_examples(path, on_problem=problems.append, **options)]
    return rows, problems


def error(path: Path | str, **options: Any) -> str:
    with pytest.raises(TunewiseError) as caught:
        list(read_examples(path, **options))
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_marked_encodings_in_every_text_format(tmp_path: Path, kind: str, encoding: str) -> None:
    texts = {
        "jsonl": JSONL,
        "json": json.dumps(ROWS, ensure_ascii=False, indent=2),
        "csv": "input,output\r\n" + "".join(f'"{r["input"]}",{r["output"]}\r\n' for r in ROWS),
        "tsv": "input\toutput\n" + "".join(f"{r['input']}\t{r['output']}\n" for r in ROWS),
    }
    path = write(tmp_path / f"rows.{kind}", texts[kind].encode(encoding))
    rows = list(read_examples(path))
    assert [(r.user_text, r.answer) for r in rows] == [(r["input"], r["output"]) for r in ROWS]
    lines = {"jsonl": 1, "json": 2, "csv": 2, "tsv": 2}
    assert rows[0].source == f"{path}:{lines[kind]}"


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    assert len(list(read_examples(write(tmp_path / "rows.json", JSONL)))) == 5


def test_another_encoding_names_byte_line_and_likely_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "latin.jsonl", JSONL.encode("windows-1252"))
    message = error(path)
    offset = JSONL.encode("windows-1252").index("ü".encode("windows-1252"))
    assert f"{path}:1" in message and f"byte offset {offset}" in message
    assert "windows-1252" in message and "data.encoding" in message
    assert [r.user_text for r in read_examples(path, encoding="windows-1252")] == [
        r["input"] for r in ROWS
    ]
    array = write(tmp_path / "latin.json", json.dumps(ROWS, ensure_ascii=False).encode("latin-1"))
    assert "byte offset" in error(array)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("これはペンです、そしてそれはりんごです", "shift_jis"),
        ("这是一个很长的句子我们在这里写字", "gb18030"),
        ("Это довольно длинное предложение", "windows-1251"),
    ],
)
def test_likely_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    path = write(tmp_path / "rows.jsonl", text.encode(encoding))
    assert f"`data.encoding: {encoding}`" in error(path)


def test_utf16_without_a_mark_and_unknown_encodings(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", JSONL.encode("utf-16-le"))
    assert "utf-16-le" in error(path)
    assert len(list(read_examples(path, encoding="utf-16-le"))) == 5
    assert "no encoding is called 'klingon'" in error(path, encoding="klingon")


def test_a_truncated_line(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.jsonl", JSONL[:-9])
    assert f"{path}:5: the file ends in the middle of a row" in error(path)
    rows, problems = collect(path)
    assert rows == ["0", "1", "2", "3"] and [p.code for p in problems] == ["truncated_line"]


@pytest.mark.parametrize("cut", [1, 9, 60, 100])
def test_a_truncated_array(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "cut.json", json.dumps(ROWS)[:-cut])
    assert "cut off" in error(path)


def test_nul_bytes_and_rows_that_are_no_objects(tmp_path: Path) -> None:
    lines = JSONL.splitlines(keepends=True)
    path = write(tmp_path / "bad.jsonl", lines[0] + "[1]\n\n" + "{\0}\n" + "oops\n" + lines[1])
    rows, problems = collect(path)
    assert rows == ["0", "1"]
    assert [(p.code, p.where.rpartition(":")[2]) for p in problems] == [
        ("data_type", "2"),
        ("nul_byte", "4"),
        ("invalid_json", "5"),
    ]


def test_a_huge_line_is_skipped_without_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b'{"input": "q", "output": "')
        for _ in range(200):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + JSONL.encode())
    tracemalloc.start()
    rows, problems = collect(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 5 and [p.code for p in problems] == ["line_too_long"]
    assert peak < 4 * MAX_LINE
    assert f"{path}:1: the line is longer than 10 MB" in error(path)


def test_deep_nesting(tmp_path: Path) -> None:
    path = write(tmp_path / "deep.jsonl", "[" * 100_000 + "\n" + JSONL)
    assert [p.code for p in collect(path)[1]] == ["invalid_json"]
    assert "nested" in error(write(tmp_path / "deep.json", "[" * 100_000))


def test_equal_rows_and_given_ids(tmp_path: Path) -> None:
    rows = list(read_examples(write(tmp_path / "twice.jsonl", JSONL + JSONL)))
    assert [r.id for r in rows[5:]] == [f"{r.id}-2" for r in rows[:5]]
    text = "".join(json.dumps({"id": "a", **row}) + "\n" for row in ROWS[:3])
    path = write(tmp_path / "ids.jsonl", text)
    assert f"{path}:2" in error(path) and "same id" in error(path)
    problems: list[Problem] = []
    kept = list(read_examples(path, on_problem=problems.append))
    assert [r.id for r in kept] == ["a", "a-2", "a-3"]
    assert [p.code for p in problems] == ["duplicate_id"] * 2


def test_csv_cells_stay_text(tmp_path: Path) -> None:
    text = 'input,output,id\n"=1+1","=cmd|\' /C calc\'!A0",x1\n"two\nlines","say ""hi""",x2\n'
    rows = list(read_examples(write(tmp_path / "t.csv", text)))
    assert [r.user_text for r in rows] == ["=1+1", "two\nlines"]
    assert rows[0].answer == "=cmd|' /C calc'!A0" and rows[1].answer == 'say "hi"'
    assert [str(r.source).rpartition(":")[2] for r in rows] == ["2", "3"]


def test_csv_with_messages_semicolons_and_broken_rows(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    cell = messages.replace('"', '""')
    path = write(tmp_path / "m.csv", f'messages;group\n"{cell}";g1\n1;2;3\n"{cell}";g2\n"open;g\n')
    rows, problems = collect(path)
    assert rows == ["a", "a"]
    assert [(p.code, p.where.rpartition(":")[2]) for p in problems] == [
        ("invalid_csv", "3"),
        ("invalid_csv", "5"),
    ]
    assert "name each column once" in error(write(tmp_path / "h.csv", "a,a\n1,2\n"))


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import datetime

    import pyarrow.parquet as pq

    chat = [{"role": "user", "content": "q", "name": None}, {"role": "assistant", "content": "a"}]
    day = datetime.date(2026, 1, 2)
    table = pa.table({"messages": [chat, chat], "time": [day, day], "n": [1, None]})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    rows = list(read_examples(path))
    assert rows[0].messages[0] == {"role": "user", "content": "q"} and rows[0].time == "2026-01-02"
    assert [r.metadata for r in rows] == [{"n": 1}, {}]
    assert rows[1].id == f"{rows[0].id}-2"
    assert "no Parquet file" in error(write(tmp_path / "no.parquet", "PAR1 or not"))


def test_a_folder_knows_its_splits(tmp_path: Path) -> None:
    for name in ("train-00000", "train-00001", "my_validation_set", "test"):
        write(tmp_path / f"{name}.jsonl", JSONL)
    write(tmp_path / "SOURCE.json", "{}")
    problems: list[Problem] = []
    rows = list(read_examples(tmp_path, on_problem=problems.append))
    assert [r.split for r in rows] == ["train"] * 10 + ["dev"] * 5 + ["test"] * 5
    assert [p.code for p in problems] == ["file_not_used"]
    assert len({(r.split, r.id) for r in rows}) == 20


def test_nothing_there(tmp_path: Path) -> None:
    assert "there is no such file" in error(tmp_path / "none.jsonl")
    assert "there is no such file" in error("data/none.jsonl")
    assert "holds no data" in error(tmp_path)
    assert "there are no rows" in error(write(tmp_path / "empty.jsonl", "\n \n"))
    assert "there are no rows" in error(write(tmp_path / "empty.csv", ""))
    assert "there are no rows" in error(write(tmp_path / "empty.json", "[]"))
    assert "no Excel workbook" in error(write(tmp_path / "rows.xlsx", "x"))
    assert "not a JSON array" in error(write(tmp_path / "text.json", "hello"))


def test_columns_that_are_missing_in_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", '{"f": "q", "a": "x"}\n{"f": "q"}\n')
    _, problems = collect(path, columns=Columns(input="f", output="a"))
    assert [(p.code, p.fatal) for p in problems] == [("missing_column", True)]


def test_long_arrays_are_read_piece_by_piece(tmp_path: Path) -> None:
    rows = [{"input": f"{i} " + "x" * 1000, "output": str(i)} for i in range(8_000)]
    path = write(tmp_path / "long.json", json.dumps(rows, indent=1))
    del rows
    tracemalloc.start()
    count = last = 0
    for row in read_examples(path):
        count += 1
        last = int(str(row.source).rpartition(":")[2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8_000 and last == 2 + 4 * 7_999
    assert peak < 6 * 2**20 < path.stat().st_size


def test_the_hub_is_asked_for_names_and_failure_is_told() -> None:
    code = (
        "from tunewise.data.read import read_examples\n"
        "from tunewise.errors import DataError\n"
        "try:\n    list(read_examples('hf://tunewise-nobody/nothing:train'))\n"
        "except DataError as error:\n    print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PATH": "/usr/bin"}
    pytest.importorskip("datasets")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "hf://tunewise-nobody/nothing" in done.stdout, done.stderr
    assert "cannot be had from the hub" in done.stdout


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys, tunewise.data.audit, tunewise.data.split, tunewise.data.propose\n"
        "import tunewise.data.fix, tunewise.data.documents\n"
        "heavy = {'torch', 'numpy', 'scipy', 'datasketch', 'pyarrow', 'datasets', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_real_files_read_without_a_problem(shared: Path) -> None:
    for name in ("recipes", "banking77", "snips", "wnut17"):
        problems: list[Problem] = []
        files = list((shared / "data" / name).glob("*.jsonl"))
        rows = sum(1 for f in files for _ in read_examples(f, on_problem=problems.append))
        assert files and rows == sum(len(f.read_bytes().splitlines()) for f in files)
        assert problems == []
    with pytest.raises(DataError, match="continued pretraining"):
        list(read_examples(shared / "data" / "xquad_en" / "corpus.jsonl"))
