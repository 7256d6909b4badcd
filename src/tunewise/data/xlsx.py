"""Rows of Excel workbooks, read piece by piece with nothing but the standard library.

A workbook is a ZIP archive of XML files. No formula is computed, nothing outside is opened, and a
file that declares a document type (the way to XML's known attacks) is refused.
"""

from __future__ import annotations

import datetime
import math
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from tunewise.data.findings import RowError
from tunewise.data.lines import Numbered
from tunewise.errors import DataError

MOST_BYTES = 2**30
"""Of one unpacked part of a workbook; a larger one is no table that anybody made by hand."""

_CHUNK = 2**16
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
_DATES = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
_RELATIONS = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"

_DAMAGED = (
    *(expat.ExpatError, zlib.error, struct.error, EOFError),
    *(LookupError, ValueError, ArithmeticError, RuntimeError),  # what wrong numbers lead to
)

Start = Callable[[str, dict[str, str]], None]
End = Callable[[str, str], None]


def xlsx_rows(path: Path) -> Iterator[Numbered]:
    """Rows of the one sheet that holds any, by their number in Excel, as ``{column: value}``.

    The first row that holds something names the columns. Numbers, truth values and dates (as ISO
    8601) keep what they are; empty cells are None.

    Raises:
        DataError: no workbook, a damaged one, several sheets with rows, or a header that does not
            name each column once.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _Workbook(archive, path).rows()
    except zipfile.BadZipFile:
        raise DataError(
            "the file is no Excel workbook, or is protected by a password",
            where=str(path),
            hint="Open it and save it anew as .xlsx without a password, or as CSV.",
        ) from None
    except _DAMAGED as error:
        raise DataError(f"the workbook is damaged: {error}", where=str(path)) from None


@dataclass
class _Workbook:
    archive: zipfile.ZipFile
    path: Path
    texts: list[str] = field(default_factory=list)
    dates: list[bool] = field(default_factory=list)
    since: datetime.datetime = datetime.datetime(1899, 12, 30)

    def rows(self) -> Iterator[Numbered]:
        sheets = self._sheets()
        self._read_texts()
        self._read_styles()
        filled = [(name, part) for name, part in sheets if any(True for _ in self._cells(part))]
        if len(filled) > 1:
            raise DataError(
                f"{len(filled)} sheets hold rows: {', '.join(repr(n) for n, _ in filled[:6])}",
                where=str(self.path),
                hint="Save the one that is meant in a file of its own, as .xlsx or CSV.",
            )
        header: dict[int, str] = {}
        for number, cells in self._cells(filled[0][1]) if filled else ():
            if not header:
                header = self._header(number, cells)
                continue
            yield number, _row(header, cells)

    def _header(self, number: int, cells: dict[int, Any]) -> dict[int, str]:
        names = {column: str(value).strip() for column, value in cells.items()}
        if len(set(names.values())) < len(names) or any(
            isinstance(value, RowError) for value in cells.values()
        ):
            raise DataError(
                "the first row must name each column once",
                where=f"{self.path}:{number}",
                hint="Tables need a header such as: input, output",
            )
        return names

    def _sheets(self) -> list[tuple[str, str]]:
        """Name and part of each sheet that is not hidden."""
        targets: dict[str, str] = {}
        found: list[tuple[str, str]] = []

        def relation(name: str, given: dict[str, str]) -> None:
            if name == "Relationship":
                targets[given["Id"]] = given["Target"]

        def sheet(name: str, given: dict[str, str]) -> None:
            if name == "sheet" and given.get("state", "visible") == "visible":
                found.append((given["name"], given[_RELATIONS]))
            if name == "workbookPr" and given.get("date1904") in ("1", "true"):
                self.since = datetime.datetime(1904, 1, 1)

        self._parse("xl/_rels/workbook.xml.rels", relation)
        self._parse("xl/workbook.xml", sheet)
        parts = [(name, posixpath.join("/xl", targets[id])) for name, id in found]
        return [(name, posixpath.normpath(part).lstrip("/")) for name, part in parts]

    def _read_texts(self) -> None:
        if "xl/sharedStrings.xml" not in self.archive.namelist():
            return
        said: list[str] = []
        phonetic = False

        def start(name: str, given: dict[str, str]) -> None:
            nonlocal phonetic
            if name == "si":
                said.clear()
            phonetic = phonetic or name == "rPh"

        def end(name: str, text: str) -> None:
            nonlocal phonetic
            if name == "t" and not phonetic:
                said.append(text)
            elif name == "rPh":
                phonetic = False
            elif name == "si":
                self.texts.append(_unescaped("".join(said)))

        self._parse("xl/sharedStrings.xml", start, end)

    def _read_styles(self) -> None:
        """Which styles of cells show their number as a date."""
        if "xl/styles.xml" not in self.archive.namelist():
            return
        own: dict[str, bool] = {}
        inside = False

        def start(name: str, given: dict[str, str]) -> None:
            nonlocal inside
            if name == "numFmt":
                code = _QUOTED.sub("", given.get("formatCode", "")).casefold()
                own[given["numFmtId"]] = any(letter in code for letter in "ymdhs")
            elif name == "cellXfs":
                inside = True
            elif name == "xf" and inside:
                id = given.get("numFmtId", "0")
                self.dates.append(own.get(id, int(id) in _DATES))

        def end(name: str, text: str) -> None:
            nonlocal inside
            inside = inside and name != "cellXfs"

        self._parse("xl/styles.xml", start, end)

    def _cells(self, part: str) -> Iterator[tuple[int, dict[int, Any]]]:
        """Each row that holds something: its number, and its values by column."""
        done: list[tuple[int, dict[int, Any]]] = []
        row: dict[int, Any] = {}
        cell: dict[str, str] = {}
        at = {"row": 0, "column": -1}
        said: list[str] = []

        def start(name: str, given: dict[str, str]) -> None:
            if name == "row":
                row.clear()
                at.update(row=int(given.get("r", at["row"] + 1)), column=-1)
            elif name == "c":
                cell.clear()
                cell.update(given)
                said.clear()
                at["column"] = _column(given["r"]) if "r" in given else at["column"] + 1

        def end(name: str, text: str) -> None:
            if name == "v":
                cell["value"] = text
            elif name == "f":
                cell["formula"] = text
            elif name == "t":
                said.append(text)
            elif name == "c":
                value = self._value(cell, "".join(said))
                if value not in (None, ""):
                    row[at["column"]] = value
            elif name == "row" and row:
                done.append((at["row"], dict(row)))

        for _ in self._pieces(part, start, end):
            yield from done
            done.clear()

    def _value(self, cell: dict[str, str], said: str) -> Any:
        kind, value = cell.get("t", "n"), cell.get("value")
        if kind == "inlineStr":
            return _unescaped(said)
        if value is None:
            if "formula" not in cell:
                return None
            return RowError(
                "cell_without_value",
                f"the cell {cell.get('r', '')} holds a formula whose value is not stored",
                "Open the file in Excel or LibreOffice and save it, or paste values only.",
            )
        if kind == "s":
            if int(value) < 0:
                raise ValueError(f"there is no text {value}")
            return self.texts[int(value)]
        if kind == "str":
            return _unescaped(value)
        if kind == "b":
            return value == "1"
        if kind == "e":
            return RowError(
                "cell_error",
                f"the cell {cell.get('r', '')} holds the error {value}",
                "Correct the formula, or delete the row.",
            )
        if kind == "d":
            return value
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{value} is no number")
        style = int(cell.get("s", 0))
        if style < len(self.dates) and self.dates[style]:
            return self._moment(number)
        return int(number) if number.is_integer() else number

    def _moment(self, days: float) -> str:
        if days < 1:  # a time of day
            seconds = round(days * 86400)
            return str(datetime.timedelta(seconds=seconds))
        moment = self.since + datetime.timedelta(seconds=round(days * 86400))
        return (moment.date() if days == int(days) else moment).isoformat()

    def _parse(self, part: str, start: Start, end: End | None = None) -> None:
        for _ in self._pieces(part, start, end):
            pass

    def _pieces(self, part: str, start: Start, end: End | None) -> Iterator[None]:
        """Parse a part of the archive; comes back after each piece."""
        if self.archive.getinfo(part).file_size > MOST_BYTES:
            raise DataError(
                f"{part} is larger than {MOST_BYTES // 2**30} GB",
                where=str(self.path),
                hint="Save the table as CSV.",
            )
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        said: list[str] = []

        def begin(name: str, given: dict[str, str]) -> None:
            said.clear()
            named = {f"{{{k}" if "}" in k else k: v for k, v in given.items()}
            start(name.rpartition("}")[2], named)

        def finish(name: str) -> None:
            if end is not None:
                end(name.rpartition("}")[2], "".join(said))
            said.clear()

        def refuse(*_: object) -> None:
            raise ValueError("it declares a document type, which no workbook needs")

        parser.StartElementHandler, parser.EndElementHandler = begin, finish
        parser.CharacterDataHandler = said.append
        parser.StartDoctypeDeclHandler = refuse
        left = MOST_BYTES
        with self.archive.open(part) as file:
            while piece := file.read(_CHUNK):
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"{part} is larger than it says")
                parser.Parse(piece, False)
                yield
            parser.Parse(b"", True)
            yield


def _row(header: dict[int, str], cells: dict[int, Any]) -> object:
    error = next((value for value in cells.values() if isinstance(value, RowError)), None)
    if error is not None:
        return error
    outside = next((column for column in cells if column not in header), None)
    if outside is not None:
        return RowError(
            "cell_without_column",
            f"a cell holds {str(cells[outside])[:40]!r} in a column without a name",
            "Name the column in the first row, or empty its cells.",
        )
    return {name: cells.get(column) for column, name in header.items()}


def _column(reference: str) -> int:
    """``B7`` as 1."""
    number = 0
    for letter in reference:
        if not letter.isalpha():
            break
        number = 26 * number + ord(letter.upper()) - ord("A") + 1
    return number - 1


def _unescaped(text: str) -> str:
    """``_x000D_`` is how workbooks write characters that XML has not."""
    return _ESCAPED.sub(lambda m: chr(int(m.group(1), 16)), text) if "_x" in text else text
