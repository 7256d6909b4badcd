"""Excel workbooks as Excel writes them: shared strings, dates, formulas, several sheets."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from cli_support import tunewise
from tunewise.data.audit import audit
from tunewise.data.findings import RowError
from tunewise.data.read import read_examples
from tunewise.data.xlsx import xlsx_rows
from tunewise.errors import DataError

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
STYLES = (
    f"<styleSheet {MAIN}><numFmts><numFmt numFmtId='164' formatCode='dd\\.mm\\.yyyy'/>"
    "<numFmt numFmtId='165' formatCode='0.00 &quot;days&quot;'/></numFmts>"
    "<cellStyleXfs><xf numFmtId='14'/></cellStyleXfs><cellXfs><xf numFmtId='0'/>"
    "<xf numFmtId='14'/><xf numFmtId='164'/><xf numFmtId='165'/></cellXfs></styleSheet>"
)


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    """A workbook; a cell is text, a number, None, or XML of its own after ``=``."""
    texts: list[str] = []

    def cell(value: Any, place: str) -> str:
        if value is None:
            return ""
        if isinstance(value, str) and value.startswith("="):
            return value[1:].replace("PLACE", place)
        if isinstance(value, str):
            texts.append(value)
            return f'<c r="{place}" t="s"><v>{len(texts) - 1}</v></c>'
        return f'<c r="{place}"><v>{value}</v></c>'

    parts, names, links = {}, "", ""
    for number, (name, rows) in enumerate(sheets.items(), start=1):
        body = "".join(
            f'<row r="{r}">'
            + "".join(cell(v, f"{chr(65 + c)}{r}") for c, v in enumerate(row))
            + "</row>"
            for r, row in enumerate(rows, start=1)
        )
        xml = f"<worksheet {MAIN}><sheetData>{body}</sheetData></worksheet>"
        parts[f"xl/worksheets/sheet{number}.xml"] = xml
        state = ' state="hidden"' if name.startswith("hidden") else ""
        names += f'<sheet name="{name}" sheetId="{number}"{state} r:id="rId{number}"/>'
        links += f'<Relationship Id="rId{number}" Target="worksheets/sheet{number}.xml"/>'
    strings = "".join(f'<si><t xml:space="preserve">{escape(t)}</t></si>' for t in texts)
    parts |= {
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{OFFICE}"><workbookPr/>'
        f"<sheets>{names}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}">{links}</Relationships>',
        "xl/sharedStrings.xml": f"<sst {MAIN}>{strings}</sst>",
        "xl/styles.xml": STYLES,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return path


def test_a_table_of_questions_and_answers(tmp_path: Path) -> None:
    rows = [["Frage", "Antwort", "Nr"], *([f"Größe {i}?", f"{i} & <mehr>", i] for i in range(40))]
    path = workbook(tmp_path / "Fragen.xlsx", Tabelle1=rows, Tabelle2=[])
    run = tunewise("audit", path, cwd=tmp_path, code=3)
    assert "--columns input=Frage,output=Antwort" in run.err
    given = ["--columns", "input=Frage,output=Antwort,id=Nr"]
    tunewise("init", path, *given, cwd=tmp_path)
    assert tunewise("audit", "study.yaml", "--json", cwd=tmp_path).json["rows"] == {"train": 40}


def test_what_cells_hold(tmp_path: Path) -> None:
    odd = [
        '=<c r="PLACE" t="inlineStr"><is><r><t>two </t></r><r><t>runs</t></r></is></c>',
        '=<c r="PLACE" t="b"><v>1</v></c>',
        '=<c r="PLACE" s="1"><v>45292</v></c>',
        '=<c r="PLACE" s="2"><v>45292.75</v></c>',
        '=<c r="PLACE" s="3"><v>1.5</v></c>',
        '=<c r="PLACE" t="str"><f>A1&amp;"x"</f><v>a_x000D_x</v></c>',
        3,
        "  as typed ",
        None,
    ]
    names = [f"c{i}" for i in range(len(odd))]
    path = workbook(tmp_path / "a.xlsx", S=[[], names, odd, [None] * 9, ["last"]])
    (first, last) = xlsx_rows(path)
    values = ["two runs", True, "2024-01-01", "2024-01-01T18:00:00", 1.5, "a\rx", 3, "  as typed "]
    assert first == (3, dict(zip(names, [*values, None], strict=True)))
    assert last == (5, {**dict.fromkeys(names), "c0": "last"})  # Excel's own number of the row


def test_cells_that_hold_nothing_to_read_are_told_with_their_place(tmp_path: Path) -> None:
    rows = [
        ["input", "output"],
        ["q", '=<c r="PLACE" t="e"><v>#N/A</v></c>'],
        ["q", '=<c r="PLACE"><f>1+1</f></c>'],
        ["q", "a", "outside"],
        ["q", "a"],
    ]
    path = workbook(tmp_path / "a.xlsx", S=rows)
    report = audit(path)
    found = {f.code: (f.rows, f.message) for f in report.findings if f.severity == "error"}
    assert found["cell_error"][0] == (f"{path}:2",) and "B2" in found["cell_error"][1]
    assert found["cell_without_value"][0] == (f"{path}:3",)
    assert found["cell_without_column"][0] == (f"{path}:4",)
    assert report.rows == {"train": 1}


def test_sheets(tmp_path: Path) -> None:
    table = [["input", "output"], ["q", "a"]]
    path = workbook(tmp_path / "a.xlsx", Notes=[], Table=table, hidden1=[["old"]])
    assert [row.answer for row in read_examples(path)] == ["a"]
    path = workbook(tmp_path / "b.xlsx", One=table, Two=table)
    with pytest.raises(DataError, match="2 sheets hold rows: 'One', 'Two'"):
        list(xlsx_rows(path))


@pytest.mark.parametrize("header", [["a", "a"], ["a", '=<c r="PLACE" t="e"><v>#REF!</v></c>']])
def test_headers_that_name_no_columns(tmp_path: Path, header: list[Any]) -> None:
    with pytest.raises(DataError, match="first row"):
        list(xlsx_rows(workbook(tmp_path / "a.xlsx", S=[header, ["q", "a"]])))


def test_files_that_are_no_workbooks(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", S=[["input", "output"], ["q", "a"]])
    whole = path.read_bytes()
    for damaged in (b"", b"hello", b"\xd0\xcf\x11\xe0" * 300, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as error:
            list(read_examples(path))
        assert str(path) in str(error.value.where)
    assert list(xlsx_rows(workbook(path, S=[]))) == []


def test_a_workbook_that_declares_a_document_type_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", S=[["input", "output"], ["q", "a"]])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text.replace(b"?>", b"?>" + bomb, 1))
    with pytest.raises(DataError, match="document type"):
        list(xlsx_rows(path))


def test_a_damaged_workbook_ends_in_an_error_and_never_in_a_crash(tmp_path: Path) -> None:
    """Every byte of the parts once changed: rows, or a problem with its place."""
    path = workbook(tmp_path / "a.xlsx", S=[["input", "output"], ["q", "a"], ["r", 5]])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for changed, text in parts.items():
        for place in range(40, len(text), 7):
            with zipfile.ZipFile(path, "w") as archive:
                for name, whole in parts.items():
                    cut = whole[:place] + b"9" + whole[place + 1 :]
                    archive.writestr(name, cut if name == changed else whole)
            try:
                assert all(isinstance(row, dict | RowError) for _, row in xlsx_rows(path))
            except DataError as error:
                assert str(path) in str(error.where)
