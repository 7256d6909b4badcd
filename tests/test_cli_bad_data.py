"""Data that cannot be used: the file, the line, what to do; exit code 3; nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli_support import COMMAND, environment, jsonl, no_halves, recorded, refused, tunewise

SHARES = {"tuned": 0.9, "zero_shot": 0.5}
ROW = b'{"id": "row-1", "score": 1}\n'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ["there are no recorded answers", '{"id"']),
        ('{"id": "é", "score": 1}\n'.encode("latin-1"), [":1:", "0xe9", "windows-1252"]),
        (ROW + b'{"id": "row-2", "sco', [":2:", "ends in the middle", "anew"]),
        (ROW + b"hello\n", [":2:", "not valid JSON"]),
        (b'{"id": "row-1"}\n', [":1:", "neither `answer` nor `score`"]),
        (b'{"score": 1}\n', [":1:", "no `id`", '{"id"']),
        (b'[{"id": "row-1", "score": 1}]', [":1:", "not a JSON object"]),
        (b'{"id": "row-1", "score": 85}\n', [":1:", "between 0 and 1"]),
        (b'{"id": "row-1", "score": NaN}\n', [":1:", "NaN is not a JSON value"]),
        (ROW + ROW, [":2:", "two answers", "zero_shot.jsonl:1"]),
        (b'{"id": "row-1", "answer": "x"}\n', ["without data", "`data.examples`"]),
        (bytes(range(256)), [":1:", "NUL"]),
    ],
)
def test_an_answer_file_is_wrong(tmp_path: Path, content: bytes, says: list[str]) -> None:
    study = recorded(tmp_path, SHARES, dev=10, test=20)
    (tmp_path / "zero_shot.jsonl").write_bytes(content)
    refused("run", study, "-q", cwd=tmp_path, code=3, says=says)
    assert not list((tmp_path / "home").glob("studies/*/*/"))  # a failed start leaves no study
    no_halves(tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", b"", ["rows.jsonl: 0 rows are left"]),
        ("rows.csv", b"", ["rows.csv: 0 rows are left"]),
        (
            "rows.csv",
            "frage;antwort\nwie?;größer\n".encode("cp1252"),
            ["rows.csv:2", "windows-1252"],
        ),
        ("rows.jsonl", b'{"a": 1, "b": 2}\n' * 9, ["'a', 'b'", "data.columns"]),
        ("rows.jsonl", b'{"input": "x"}\n' * 9, ["rows.jsonl"]),
        ("rows.json", b'[{"input": "x", "output": "y"}, {"inp', ["rows.json"]),
        ("rows.parquet", b"PAR1 no", ["rows.parquet"]),
    ],
)
def test_a_data_file_is_wrong(tmp_path: Path, name: str, content: bytes, says: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "study.yaml").write_text(
        f"name: s\nmodel: tunewise/tiny\ndata: {{examples: {name}}}\nmetric: exact_match\n"
        "candidates: [classifier]\n"
    )
    refused("run", "study.yaml", "-q", cwd=tmp_path, code=3, says=says)
    assert not list((tmp_path / "home").glob("studies/*/*/"))


def test_a_line_of_200_megabytes_in_bounded_memory(tmp_path: Path) -> None:
    study = recorded(tmp_path, SHARES, dev=10, test=20)
    with (tmp_path / "zero_shot.jsonl").open("wb") as file:
        file.write(ROW + b'{"id": "' + 8192 * b"x")
        file.seek(200 * 2**20, os.SEEK_CUR)  # a hole: nothing is written to the disk
        file.write(b'", "score": 1}\n')
    # A child's peak counts what its parent held when it was started, so a small one starts it.
    starter = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:]).returncode\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    run = subprocess.run(
        [sys.executable, "-c", starter, COMMAND, "run", study, "-q"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    code, kilobytes = map(int, run.stdout.split())
    assert code == 3
    assert "zero_shot.jsonl:2: the line is longer than 10 MB" in run.stderr
    assert "Traceback" not in run.stderr
    assert kilobytes < 500_000


def scored_study(folder: Path, metric: str, answers: dict[str, str], rows: int = 40) -> Path:
    """A study whose recorded answers are scored against a data file of test rows."""
    jsonl(
        folder / "rows.jsonl",
        ({"id": f"q{i}", "input": f"Question {i}?", "output": "yes"} for i in range(rows)),
    )
    lines = ["name: s", f"metric: {metric}", "data: {test: rows.jsonl}", "candidates:"]
    for name, answer in answers.items():
        jsonl(folder / f"{name}.jsonl", ({"id": f"q{i}", "answer": answer} for i in range(rows)))
        tuned = ", fine_tuned: true" if name == "tuned" else ""
        lines.append(f"  - {{name: {name}, kind: recorded, answers: {name}.jsonl{tuned}}}")
    path = folder / "study.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_pattern_that_never_ends(tmp_path: Path) -> None:
    metric = "{name: regex, options: {pattern: '(a|aa)+$'}}"
    study = scored_study(tmp_path, metric, {"tuned": "a" * 200 + "!", "zero_shot": "aaa"}, rows=8)
    run = tunewise("run", study, "--json", cwd=tmp_path)
    tuned, zero_shot, constant = run.json["candidates"]
    assert (tuned["score"], zero_shot["score"], constant["constant"]) == (0, 0, True)
    (items,) = (tmp_path / "home").rglob("tuned.test.jsonl")
    assert items.read_text().count("ran out of time") == 8
    assert run.cpu_seconds < 20


def test_cells_that_begin_like_a_formula_stay_text(tmp_path: Path) -> None:
    cell = '=HYPERLINK("http://evil.example","x")'
    quoted = cell.replace('"', '""')
    rows = "".join(f'q{i},"{quoted}",+{i}\n' for i in range(40))
    (tmp_path / "rows.csv").write_text("id,input,output\n" + rows)
    study = scored_study(tmp_path, "exact_match", {"tuned": "+1", "zero_shot": "=1"})
    study.write_text(study.read_text().replace("rows.jsonl", "rows.csv"))
    verdict = tunewise("run", study, "--json", cwd=tmp_path).json
    assert verdict["candidates"][0]["score"] == 2.5
    assert {example["input"] for example in verdict["examples"]} == {cell}
    (page,) = (tmp_path / "home").rglob("report.html")
    assert 'href="http://evil.example' not in page.read_text()


def test_rows_that_cannot_be_read_are_counted_not_lost(tmp_path: Path) -> None:
    study = scored_study(tmp_path, "exact_match", {"tuned": "yes", "zero_shot": "no"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text() + '{"id": "q40", "input": "and"}\n')
    run = tunewise("run", study, "--json", cwd=tmp_path, code=None)
    if run.code == 0:
        findings = run.json["audit"]["findings"]
        assert any("rows.jsonl:41" in str(f["rows"]) for f in findings), findings
    else:
        assert run.code == 3 and "rows.jsonl:41" in run.err
