"""Columns called otherwise: the refusal proposes a command, and the command works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunewise as tw
from cli_support import jsonl, refused, tunewise
from tunewise.data.columns import likely_columns, parse_columns, written
from tunewise.errors import DataError, UsageError
from tunewise.study.schema import Columns

KINDS = ("Rechnung", "Lieferung", "Rückgabe")
TICKETS = [
    {
        "Nr": f"T-{n}",
        "Frage": f"Wo bleibt Bestellung {n}, und was wird aus Paket {7 * n}?",
        "Antwort": KINDS[n % 3],
    }
    for n in range(40)
]


def german(path: Path) -> Path:
    """As a German Excel exports it: semicolons, and a comma inside the text."""
    lines = [";".join(TICKETS[0]), *(";".join(row.values()) for row in TICKETS)]
    path.write_text("\n".join(lines) + "\n", "utf-8-sig")
    return path


def proposed(err: str) -> list[str]:
    """The arguments of the command that a refusal proposes."""
    line = next(line for line in err.splitlines() if "tunewise " in line)
    return shlex.split(line[line.index("tunewise ") :])[1:]


@pytest.mark.parametrize("command", ["audit", "init"])
def test_the_proposed_command_reads_the_file(tmp_path: Path, command: str) -> None:
    german(tmp_path / "my tickets.csv")
    run = refused(command, "my tickets.csv", cwd=tmp_path, code=3, says=["'Nr', 'Frage'"])
    again = proposed(run.err)
    assert again[:2] == [command, "my tickets.csv"]
    told = tunewise(*again, cwd=tmp_path)
    assert "40" in told.out


def test_init_writes_columns_encoding_documents_and_model_into_a_study_that_runs(
    tmp_path: Path,
) -> None:
    rows = german(tmp_path / "tickets.csv").read_text("utf-8-sig")
    (tmp_path / "tickets.csv").write_bytes(rows.encode("windows-1252"))
    jsonl(tmp_path / "docs.jsonl", [{"id": "a", "text": "Pakete kommen mit der Post."}])
    columns = "input=Frage,output=Antwort,id=Nr"
    flags = ["--columns", columns, "--encoding", "windows-1252", "--documents", "docs.jsonl"]
    tunewise("init", "tickets.csv", *flags, "--model", "tunewise/tiny", cwd=tmp_path)
    study = yaml.safe_load((tmp_path / "study.yaml").read_text("utf-8"))
    assert study["data"] == {
        "examples": "tickets.csv",
        "documents": "docs.jsonl",
        "columns": {"input": "Frage", "output": "Antwort", "id": "Nr"},
        "encoding": "windows-1252",
    }
    assert (study["model"], "rag" in study["candidates"]) == ("tunewise/tiny", True)
    assert all(kind in study["prompt"] for kind in KINDS)  # read as they were written
    run = tunewise(
        "run", "study.yaml", "--set", "candidates=[classifier]", "-q", "--json", cwd=tmp_path
    )
    assert sum(run.json["audit"]["rows"].values()) == len(TICKETS)


def test_a_study_is_audited_as_it_reads_its_rows(tmp_path: Path) -> None:
    rows = german(tmp_path / "tickets.csv").read_text("utf-8-sig")
    (tmp_path / "tickets.csv").write_bytes(rows.encode("windows-1252"))
    (tmp_path / "study.yaml").write_text(
        "name: s\nmodel: tunewise/tiny\nmetric: accuracy\ndata:\n  examples: tickets.csv\n"
        "  encoding: windows-1252\n  columns: {input: Frage, output: Antwort, id: Nr}\n"
    )
    found = tunewise("audit", "study.yaml", "--json", cwd=tmp_path).json
    assert found["rows"] == {"train": 40} and found["labels"].keys() == set(KINDS)
    row = tunewise("audit", "study.yaml", "--tokens", "T-2", "--json", cwd=tmp_path).json
    learnt = [t["text"] for t in row["answers"][0]["tokens"] if t["weight"]]
    assert "".join(learnt).startswith("R") and row["id"] == "T-2"
    tunewise("audit", "study.yaml", "--fix", "clean.jsonl", cwd=tmp_path)
    clean = [
        json.loads(line) for line in (tmp_path / "clean.jsonl").read_text("utf-8").split("\n")[:-1]
    ]
    assert [row["id"] for row in clean] == [row["Nr"] for row in TICKETS]


def test_the_command_that_mends_a_study_of_several_files_names_one_of_them(tmp_path: Path) -> None:
    rows = [{"F": f"q {n}", "A": "a "} for n in range(20)]
    jsonl(tmp_path / "train.jsonl", rows)
    jsonl(tmp_path / "test.jsonl", [{"F": f"other {n}", "A": "b"} for n in range(20)])
    (tmp_path / "study.yaml").write_text(
        "name: s\nmodel: openai:gpt-4o\nmetric: exact_match\n"
        "data: {train: train.jsonl, test: test.jsonl, columns: {input: F, output: A}}\n"
    )
    told = tunewise("audit", "study.yaml", cwd=tmp_path)
    line = next(line for line in told.out.splitlines() if "can be mended" in line)
    tunewise(*proposed(line), cwd=tmp_path)
    assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == len(rows)
    text = (tmp_path / "study.yaml").read_text().replace("{train", "{dev: test.jsonl, train")
    (tmp_path / "study.yaml").write_text(text)
    says = ["several files", "tunewise audit"]
    err = refused("audit", "study.yaml", "--fix", "a.jsonl", cwd=tmp_path, code=2, says=says).err
    tunewise(*proposed(err), cwd=tmp_path)


def test_rows_that_a_model_cannot_take_are_told_before_a_training(tmp_path: Path) -> None:
    long = {"input": "word " * 5000, "output": "a"}
    jsonl(tmp_path / "rows.jsonl", [*({"input": f"q {n}", "output": "a"} for n in range(20)), long])
    plain = tunewise("audit", "rows.jsonl", "--json", cwd=tmp_path).json
    model = tunewise("audit", "rows.jsonl", "--json", "--model", "tunewise/tiny", cwd=tmp_path).json
    codes = [{f["code"] for f in found["findings"]} for found in (plain, model)]
    assert codes[1] - codes[0] == {"too_long"}
    (finding,) = (f for f in model["findings"] if f["code"] == "too_long")
    assert finding["rows"] == ["rows.jsonl:21"] and "2,048" in finding["message"]


def test_documents_that_are_not_there_are_told(tmp_path: Path) -> None:
    jsonl(tmp_path / "docs.jsonl", [{"id": "a", "text": "t"}, {"id": "b", "text": "u"}])
    rows = [{"input": f"q {n}", "output": "x", "doc_id": "abc"[n % 3]} for n in range(12)]
    jsonl(tmp_path / "rows.jsonl", rows)
    found = tunewise(
        "audit", "rows.jsonl", "--documents", "docs.jsonl", "--json", cwd=tmp_path
    ).json
    (finding,) = (f for f in found["findings"] if f["code"] == "unknown_document")
    assert (finding["count"], finding["rows"][0]) == (4, "rows.jsonl:3")
    assert "'c'" in finding["message"]


def test_a_training_takes_columns_too(tmp_path: Path) -> None:
    german(tmp_path / "tickets.csv")
    given = ["train", "tickets.csv", "--model", "tunewise/tiny", "--forecast", "-q"]
    again = proposed(refused(*given, cwd=tmp_path, code=3, says=["Probably"]).err)
    assert again[: len(given)] == given
    assert "rows" in tunewise(*again, "--json", cwd=tmp_path).out


def test_a_run_proposes_what_to_write_into_its_study(tmp_path: Path) -> None:
    german(tmp_path / "tickets.csv")
    study = "name: s\nmodel: tunewise/tiny\nmetric: accuracy\ndata: {examples: tickets.csv"
    (tmp_path / "study.yaml").write_text(study + "}\n")
    says = ["data.columns: {input: Frage, output: Antwort}"]
    err = refused("run", "study.yaml", "-q", cwd=tmp_path, code=3, says=says).err
    written = err[err.index("{input") : err.index("}") + 1]
    (tmp_path / "study.yaml").write_text(f"{study}, columns: {written}}}\n")
    assert tunewise("audit", "study.yaml", "--json", cwd=tmp_path).json["rows"] == {"train": 40}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"Question": "a b", "Answer": "c"}, "input=Question,output=Answer"),
        ({"question ": "a b", "answer ": "c"}, "input=question ,output=answer "),
        (
            {"id": "1", "Kundenfrage": "a b", "Musterantwort": "c"},
            "input=Kundenfrage,output=Muster",
        ),
        ({"userQuestion": "a b", "goldLabel": 1}, "input=userQuestion,output=goldLabel"),
        ({"user_question": "a b", "gold_label": True}, "input=user_question,output=gold_label"),
        ({"pregunta": "a b", "respuesta": "c"}, "input=pregunta,output=respuesta"),
        ({"質問": "a b", "回答": "c"}, "input=質問,output=回答"),
        ({"label": "x", "comment": "a b", "at": 3}, "input=comment,output=label"),
        ({"a": "a long text it is", "b": "no"}, "input=a,output=b"),
        ({"chat": [{"role": "user", "content": "a"}]}, "messages=chat"),
        ({"dialog": [{"from": "human", "value": "a"}]}, "messages=dialog"),
        ({"a": 1, "b": 2}, None),
        ({"alone": "a text"}, None),
        ({}, None),
    ],
)
def test_what_columns_mean_is_guessed(row: dict[str, Any], expected: str | None) -> None:
    found = likely_columns([row, row])
    assert (None if found is None else written(found)[: len(expected or "")]) == expected


def test_a_map_of_columns_survives_commas_and_equal_signs_in_names() -> None:
    columns = Columns(input="Frage, lang = kurz", output="a=b", id="Nr")
    assert parse_columns(written(columns)) == columns
    for wrong in ("input", "input=", "=Frage", "inptu=Frage", "Frage,Antwort", ""):
        with pytest.raises(UsageError, match="column"):
            parse_columns(wrong)


def test_from_python(tmp_path: Path) -> None:
    german(tmp_path / "tickets.csv")
    with pytest.raises(DataError, match="no known format") as error:
        tw.audit(tmp_path / "tickets.csv", progress=False)
    assert error.value.options == {"--columns": "input=Frage,output=Antwort"}
    columns = {"input": "Frage", "output": "Antwort"}
    audited = tw.audit(tmp_path / "tickets.csv", columns=columns, progress=False)
    assert audited.report.rows == {"train": 40}
    made = tw.init(tmp_path / "tickets.csv", tmp_path / "s.yaml", columns=columns)
    assert tw.load_study(made.path).study.data.columns == Columns(**columns)
    assert tw.audit(made.path, progress=False).report.rows == {"train": 40}
