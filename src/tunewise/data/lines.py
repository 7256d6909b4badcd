"""Text files as numbered lines and rows, without ever holding more than one row in memory.

UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 with one; any other encoding must be
named. What is wrong with a line comes out in its place as a :class:`RowError`, so that a reader
can stop there or count it and go on.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from tunewise.data.findings import RowError
from tunewise.data.strict_json import loads
from tunewise.errors import DataError

MAX_LINE = 10 * 2**20
"""Longest line or row in bytes. A longer one is a mistake far more often than an example."""

Numbered = tuple[int, object]
"""A line or row number from 1, and the row, or the RowError that stands in its place."""

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UTF8 = frozenset({"utf-8", "utf-8-sig"})


def encoding_of(path: Path, encoding: str | None = None) -> str:
    """The encoding to read ``path`` with: the one given, else by its first bytes.

    Raises:
        DataError: the name is unknown, or the file is UTF-16 without a byte-order mark.
    """
    head = head_of(path)
    if encoding is not None:
        try:
            name = codecs.lookup(encoding).name
            "".encode(name)  # codecs such as `hex` are none of text
        except (LookupError, ValueError):
            raise DataError(
                f"no encoding is called {encoding!r}",
                where="data.encoding",
                hint="Usual names: utf-8, utf-16, windows-1252, shift_jis, gb18030.",
            ) from None
        return "utf-8-sig" if name in _UTF8 and head.startswith(codecs.BOM_UTF8) else name
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    for name, odd in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(odd) >= 8 and odd.count(0) > 0.6 * len(odd):
            raise DataError(
                f"the file is not UTF-8; it looks like {name} without a byte-order mark",
                where=str(path),
                hint=f"Save it as UTF-8, or set `data.encoding: {name}`.",
            )
    return "utf-8"


def head_of(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise DataError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror or error}", where=str(path)
        ) from None


def lines(path: Path, encoding: str | None = None) -> Iterator[Numbered]:
    """Lines with their line ends, numbered from 1, as ``str`` or ``RowError``.

    A file that has carriage returns where others have line feeds (old Mac exports) is cut there.
    """
    name = encoding_of(path, encoding)
    end = _line_end(path, name)
    if name in _UTF8:
        yield from _utf8_lines(path, end)
        return
    with path.open(encoding=name, newline=end) as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(MAX_LINE + 1)
                if len(line) > MAX_LINE:
                    while line and not line.endswith(end):
                        line = file.readline(MAX_LINE)
                    yield number, _too_long()
                    continue
            except UnicodeError as error:
                raise DataError(
                    f"the file is not {name}: {getattr(error, 'reason', error)}",
                    where=f"{path}:{number}",
                    hint="Set `data.encoding` to the file's own encoding.",
                ) from None
            if not line:
                return
            yield number, line


def _line_end(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        try:
            head = file.read(2**16)
        except UnicodeError:  # some codecs know no replacement; who reads the lines will say so
            return "\n"
    return "\r" if "\r" in head and "\n" not in head else "\n"


def _byte_lines(path: Path, end: str) -> Generator[bytes]:
    """Pieces of a file that end at a line's end, or after ``MAX_LINE + 1`` bytes."""
    if end == "\n":
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                yield line
    else:
        # Latin-1 is each byte as it is; binary files know no other line end than \n.
        with path.open(encoding="latin-1", newline=end) as text:
            while piece := text.readline(MAX_LINE + 1):
                yield piece.encode("latin-1")


def _utf8_lines(path: Path, end: str) -> Iterator[Numbered]:
    with closing(_byte_lines(path, end)) as pieces:
        offset = number = 0
        for line in pieces:
            number += 1
            start, offset = offset, offset + len(line)
            if len(line) > MAX_LINE:
                while not line.endswith(end.encode()) and (more := next(pieces, None)):
                    line = more
                    offset += len(line)
                yield number, _too_long()
                continue
            if number == 1 and line.startswith(codecs.BOM_UTF8):
                line = line[3:]
                start += 3
            if b"\0" in line:
                yield number, _nul(start + line.index(0))
                continue
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                yield number, _wrong_encoding(line, start, error)


def _too_long() -> RowError:
    return RowError(
        "line_too_long",
        f"the line is longer than {MAX_LINE // 2**20} MB",
        "Write one row a line; put long documents into files of their own (`data.documents`).",
    )


def _nul(offset: int) -> RowError:
    return RowError(
        "nul_byte",
        f"a NUL byte stands at byte offset {offset}",
        "The file is damaged, or is not text; export it anew as UTF-8.",
    )


def _wrong_encoding(line: bytes, start: int, error: UnicodeDecodeError) -> RowError:
    likely = likely_encoding(line)
    return RowError(
        "wrong_encoding",
        f"byte 0x{line[error.start]:02x} at byte offset {start + error.start} is not UTF-8; "
        f"the line looks like {likely}",
        f"Save the file as UTF-8, or name its encoding: `--encoding {likely}`, in a study "
        f"`data.encoding: {likely}`.",
        {"--encoding": likely},
    )


def likely_encoding(line: bytes) -> str:
    """A guess at the encoding of bytes that are not UTF-8: the one whose letters fit best."""
    high = sum(byte >= 0x80 for byte in line)
    if high > 0.2 * len(line):
        # Mostly non-ASCII: a double-byte or Cyrillic encoding, or none of these.
        for name, first, last in (
            ("shift_jis", "\u3040", "\u30ff"),
            ("gb18030", "\u4e00", "\u9fff"),
            ("windows-1251", "\u0410", "\u044f"),
        ):
            try:
                text = line.decode(name)
            except UnicodeDecodeError:
                continue
            other = [c for c in text if not c.isascii()]
            if sum(first <= c <= last for c in other) > 0.6 * len(other):
                return name
    return "windows-1252"


def json_lines(path: Path, encoding: str | None = None) -> Iterator[Numbered]:
    """Rows of a JSON Lines file with their line numbers; empty lines are skipped."""
    for number, line in lines(path, encoding):
        if not isinstance(line, str):
            yield number, line
        elif not line.isspace():
            yield number, _json_row(line, number)


def _json_row(line: str, number: int) -> object:
    try:
        return loads(line)
    except RowError as error:
        return error
    except RecursionError:
        return RowError("invalid_json", "the row is nested too deeply")
    except ValueError as error:
        message = getattr(error, "msg", str(error))
        column = getattr(error, "colno", None)
    if number == 1 and line.lstrip()[:1] == "[":
        return RowError(
            "invalid_json",
            "the file is a JSON array, not JSON Lines",
            "Call it .json, or write one object a line.",
        )
    if not line.endswith(("\n", "\r")):
        return RowError(
            "truncated_line",
            "the file ends in the middle of a row",
            "The file was cut off; export or download it anew.",
        )
    place = f" (column {column})" if column else ""
    return RowError("invalid_json", f"the line is not valid JSON: {message}{place}")


def json_rows(path: Path, encoding: str | None = None) -> Iterator[Numbered]:
    """Rows of a ``.json`` file: an array, ``{"data": [...]}``, or JSON Lines under that name."""
    from tunewise.data.json_stream import WRAPPED

    head = head_of(path).decode(encoding_of(path, encoding), "replace").lstrip("\ufeff \t\r\n")
    is_lines = head.startswith("{") and not WRAPPED.match(head)
    return (json_lines if is_lines else json_array)(path, encoding)


def json_array(path: Path, encoding: str | None = None) -> Iterator[Numbered]:
    """Rows of a JSON array with the line on which each starts, read piece by piece.

    Raises:
        DataError: the file is no array, or is damaged; nothing after that place can be read.
    """
    from tunewise.data.json_stream import array_items

    with path.open(encoding=encoding_of(path, encoding), newline="") as file:
        try:
            yield from array_items(file, str(path))
        except UnicodeError as error:
            for number, line in lines(path, encoding):
                if isinstance(line, RowError) and line.code == "wrong_encoding":
                    raise line.at(f"{path}:{number}") from None
            raise DataError(f"the text cannot be decoded: {error}", where=str(path)) from None


def csv_rows(path: Path, encoding: str | None = None) -> Iterator[Numbered]:
    """Rows of a CSV or TSV file as ``{column: text}`` with the line on which each starts.

    Cells stay text, also those that begin with ``=``. The separator is a tab, a semicolon or a
    comma, by the header.

    Raises:
        DataError: the header is missing, or names a column twice.
    """
    waiting: list[Numbered] = []
    at = 0

    def feed() -> Iterator[str]:
        nonlocal at
        for number, line in lines(path, encoding):
            at = number
            if isinstance(line, str):
                yield line
            else:
                waiting.append((number, line))

    source = feed()
    first = next(source, None)
    for number, problem in waiting:  # without its header no row of a table can be understood
        assert isinstance(problem, RowError)
        raise problem.at(f"{path}:{number}")
    if first is None:
        return
    separator = max("\t;,", key=first.count)
    csv.field_size_limit(MAX_LINE)
    try:
        header = next(csv.reader([first], delimiter=separator), [])
    except csv.Error as error:
        raise DataError(
            f"the header is not valid CSV: {error}",
            where=f"{path}:1",
            hint="The first line must name the columns, as in: input,output",
        ) from None
    if len(set(header)) < len(header) or not any(header):
        raise DataError(
            "the first line must name each column once",
            where=f"{path}:1",
            hint="Tables need a header such as: input,output",
        )
    reader = csv.reader(source, delimiter=separator, strict=True)
    while True:
        start = at + 1
        try:
            cells = next(reader)
        except StopIteration:
            yield from waiting
            return
        except csv.Error as error:
            yield (
                start,
                RowError(
                    "invalid_csv",
                    f"the row is not valid CSV: {error}",
                    "Look for an unpaired quote.",
                ),
            )
            continue
        yield from waiting
        waiting.clear()
        if not cells:
            continue
        if len(cells) != len(header):
            yield (
                start,
                RowError(
                    "invalid_csv", f"the row has {len(cells)} cells; the header has {len(header)}"
                ),
            )
            continue
        yield start, dict(zip(header, cells, strict=True))
