"""Rows that cannot be read are counted wherever a verdict is shown, and too many stop the run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from cli_support import jsonl, refused, tunewise
from tunewise.data.propose import propose
from tunewise.data.read import read_examples
from tunewise.data.split import read_split
from tunewise.data.unreadable import Unreadable, encoding_that_reads
from tunewise.errors import DataError
from tunewise.pipeline.quick import training_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.training_rows import read_training_rows
from tunewise.study.schema import CandidateSpec, Columns, Data

LABELS = ("größer", "kleiner", "gleich")


def table(n: int) -> str:
    return "input,output\n" + "".join(
        f"Ist {i} größer als {i % 7}?,{LABELS[i % 3]}\n" if i % 5 else f"Is {i} odd?,no\n"
        for i in range(n)
    )


def study(folder: Path, file: str, more: str = "") -> Path:
    path = folder / "study.yaml"
    path.write_text(
        f"name: s\nmetric: accuracy\ndata: {{examples: {file}{more}}}\ncandidates: [classifier]\n"
        "effort: quick\n"
    )
    return path


def test_a_file_in_another_encoding_stops_init_and_run_and_the_cure_reads_all_of_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.csv").write_bytes(table(120).encode("windows-1252"))
    says = ["rows.csv:3: 96 of 120 rows cannot be read", "lines 3, 4, 5", "and 91 more", "0xf6"]
    init = refused("init", "rows.csv", cwd=tmp_path, code=3, says=says)
    command = init.err[init.err.index("tunewise init") :].strip()
    assert command == "tunewise init rows.csv --encoding windows-1252"
    tunewise(*shlex.split(command)[1:], cwd=tmp_path)
    assert LABELS[0] in (tmp_path / "study.yaml").read_text("utf-8")
    study(tmp_path, "rows.csv")
    cure = "data.encoding: windows-1252"
    refused("run", "study.yaml", "-q", cwd=tmp_path, code=3, says=[*says, cure])
    refused("forecast", "study.yaml", "-q", cwd=tmp_path, code=3, says=[*says, cure])
    study(tmp_path, "rows.csv", ", encoding: windows-1252")
    verdict = tunewise("run", "study.yaml", "-q", "--json", cwd=tmp_path).json
    assert sum(verdict["audit"]["rows"].values()) == 120 and verdict["audit"]["unreadable"] == 0
    train = ["train", "rows.csv", "--model", "tunewise/tiny", "--forecast", "-q"]
    refused(*train, cwd=tmp_path, code=3, says=[*says, "--encoding windows-1252"])


def test_an_audit_counts_them_and_offers_no_mending_that_would_lose_them(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(table(120).encode("windows-1252"))
    told = tunewise("audit", "rows.csv", cwd=tmp_path)
    assert "Rows that cannot be used: 96" in told.out and "--encoding windows-1252" in told.out
    assert "can be mended" not in told.out


def test_few_are_counted_on_screen_in_the_report_and_in_the_document(tmp_path: Path) -> None:
    rows = [json.dumps({"input": f"q {i}", "output": "ab"[i % 2]}) for i in range(300)]
    rows[16] = '{"input": "q 16", "output'
    rows[40] = "hello"
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    path = study(tmp_path, "rows.jsonl")
    sentence = "2 of 300 rows of {} could not be read and are left out (lines 17, 41): "
    warned = tunewise("init", "rows.jsonl", "-o", "made.yaml", cwd=tmp_path).out
    assert " ".join(warned.split()).count(sentence.format("rows.jsonl")) == 1
    run = tunewise("run", path, cwd=tmp_path)
    on_screen = " ".join(run.out.replace("│", " ").split())
    assert sentence.format(tmp_path / "rows.jsonl").split(" of ")[0] in on_screen
    assert "(lines 17, 41)" in on_screen and "(lines 17, 41)" in " ".join(run.err.split())
    verdict = tunewise("report", path, "--json", cwd=tmp_path).json
    assert verdict["audit"]["unreadable"] == 2
    assert sum(verdict["audit"]["rows"].values()) == 298
    assert any(w.startswith(sentence.format(tmp_path / "rows.jsonl")) for w in verdict["warnings"])
    counted = {f["code"]: f["count"] for f in verdict["audit"]["findings"]}
    assert counted["invalid_json"] == 2
    page = next((tmp_path / "home").glob("studies/*/*/report.html")).read_text("utf-8")
    assert "(lines 17, 41)" in page


@pytest.mark.parametrize(("bad", "stops"), [(0, False), (1, False), (2, True), (100, True)])
def test_one_in_a_hundred_is_the_limit_by_file(tmp_path: Path, bad: int, stops: bool) -> None:
    good = [{"input": f"q {i}", "output": "a"} for i in range(100 - bad)]
    other = [{"input": f"z {i}", "output": "a"} for i in range(1000)]
    train = jsonl(tmp_path / "train.jsonl", good)
    train.write_text(train.read_text() + "hello\n" * bad)
    jsonl(tmp_path / "test.jsonl", other)
    data = Data(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"))
    watch = Unreadable()
    if not stops:
        read_split(data, watch)
        assert (watch.count, len(watch.told())) == (bad, min(bad, 1))
        return
    with pytest.raises(DataError, match="be read") as error:
        read_split(data, watch)
    assert error.value.where == f"{data.train}:{len(good) + 1}"
    assert ("--fix" in str(error.value.hint)) == (bad < 100)  # nothing to write where all are bad


def test_the_proposed_mending_writes_what_can_be_read(tmp_path: Path) -> None:
    rows = [{"F": f"q {i}", "A": "a"} for i in range(50)]
    jsonl(tmp_path / "my rows.jsonl", [*rows, {"F": "no answer"}])
    columns = ["--columns", "input=F,output=A"]
    run = refused("init", "my rows.jsonl", *columns, cwd=tmp_path, code=3, says=["1 of 51 rows"])
    command = run.err[run.err.index("`tunewise") + 1 : run.err.rindex("`")]
    tunewise(*shlex.split(command)[1:], cwd=tmp_path)
    tunewise("init", "clean.jsonl", cwd=tmp_path)
    assert len(list(read_examples(tmp_path / "clean.jsonl"))) == 50


def test_a_training_alone_stops_too(tmp_path: Path) -> None:
    rows = [{"input": f"q {i}", "output": "a"} for i in range(40)]
    path = jsonl(tmp_path / "rows.jsonl", [*rows, {"input": "no answer"}])
    study = training_study(str(path), {"--model": ("model", "tunewise/tiny")}).study
    spec = CandidateSpec(name="fine_tuned", kind="fine_tuned")
    with pytest.raises(DataError, match="1 of 41 rows cannot be read"):
        read_training_rows(study, spec, tmp_path / "t", SilentReporter())


@pytest.mark.parametrize(
    ("encoding", "text", "named"),
    [
        ("windows-1252", "Grüße aus Köln, 5 €", "windows-1252"),
        ("cp850", "Grüße aus Köln, Ärger", "cp850"),  # a DOS export: 0x81 is no windows-1252
        ("shift_jis", "東京はどこですか", "shift_jis"),
        ("windows-1251", "Где находится Москва", "windows-1251"),
        ("gb18030", "北京在哪里", "gb18030"),
    ],
)
def test_the_encoding_is_guessed_from_all_lines(
    tmp_path: Path, encoding: str, text: str, named: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("".join(f"{text} {i},x\n" for i in range(50)).encode(encoding))
    assert encoding_that_reads(path) == named
    assert path.read_bytes().decode(named).startswith(text)


def test_no_encoding_is_proposed_for_a_mixed_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"größe {i},x\n".encode("utf-8" if i % 3 else "windows-1252") for i in range(60)]
    path.write_bytes(b"input,output\n" + b"".join(lines))
    assert encoding_that_reads(path) is None
    with pytest.raises(DataError, match="20 of 60") as error:
        propose(path)
    assert "no one encoding" in str(error.value.hint) and not error.value.options


def test_only_the_rows_looked_at_count_for_a_proposal(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jsonl(path, [{"F": f"q {i}", "A": "a"} for i in range(20_300)])
    with path.open("a") as file:
        file.write("hello\n" * 5_000)
    assert propose(path, columns=Columns(input="F", output="A")).study["name"] == "rows"
