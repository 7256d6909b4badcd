"""Documents for retrieval: a folder of text files, or a table of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunewise.data.findings import RowError
from tunewise.data.lines import encoding_of
from tunewise.data.messages import check_text
from tunewise.data.read import SUFFIXES, Part, rows_of
from tunewise.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst")
_TEXT_COLUMNS = ("text", "content", "body", "document", "passage")
_ID_COLUMNS = ("id", "doc_id", "document_id")


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        id: as the rows of the data name it (``doc_id``); of a file, its path in the folder.
        text: the whole text.
        title: may be empty.
        source: ``file`` or ``file:line``.
    """

    id: str
    text: str
    title: str = ""
    source: str | None = None


def read_documents(path: str | Path, *, encoding: str | None = None) -> list[Document]:
    """Read a folder of ``.txt`` and ``.md`` files (and those in its folders), or one file.

    A table (``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.xlsx``, ``.parquet``) has columns
    ``text``, ``id`` (else the row's number, from 0) and ``title`` (optional).

    Raises:
        DataError: nothing is there, a row has no text, or two documents have one id.
    """
    return list(stream_documents(path, encoding=encoding))


def stream_documents(path: str | Path, *, encoding: str | None = None) -> Iterator[Document]:
    """As :func:`read_documents`, one document at a time; only their ids stay in memory.

    Raises:
        DataError: as ``read_documents``, when the place is reached.
    """
    path = Path(path).expanduser()
    return _distinct(_documents(path, encoding), path)


def _documents(path: Path, encoding: str | None) -> Iterator[Document]:
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.casefold() in TEXT_SUFFIXES)
        if not files:
            raise DataError(
                "the folder holds no documents",
                where=str(path),
                hint=f"Documents are files that end in {', '.join(TEXT_SUFFIXES)}.",
            )
        for file in files:
            yield _file(file, file.relative_to(path).as_posix(), encoding)
    elif path.suffix.casefold() in TEXT_SUFFIXES:
        yield _file(path, path.name, encoding)
    elif path.suffix.casefold() in SUFFIXES:
        yield from _table(path, encoding)
    elif path.exists():
        raise DataError(
            "documents cannot be read from this kind of file",
            where=str(path),
            hint=f"Use a folder, or one of {', '.join((*TEXT_SUFFIXES, *SUFFIXES))}.",
        )
    else:
        raise DataError("there is no such file or folder", where=str(path))


def _file(path: Path, name: str, encoding: str | None) -> Document:
    codec = encoding_of(path, encoding)
    try:
        text = path.read_text(codec)
    except UnicodeError as error:
        raise DataError(
            f"the file is not {codec}: {getattr(error, 'reason', error)} at byte offset "
            f"{getattr(error, 'start', '?')}",
            where=str(path),
            hint="Save it as UTF-8, or set `data.encoding`.",
        ) from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    return Document(name, text, _heading(text), str(path))


def _heading(text: str) -> str:
    """A Markdown heading in the first line is the title."""
    first = text.lstrip("\ufeff\n ").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _table(path: Path, encoding: str | None) -> Iterator[Document]:
    empty = True
    for count, (number, row) in enumerate(rows_of(Part(str(path), path, None), encoding)):
        where = f"{path}:{number}"
        if isinstance(row, RowError):
            raise DataError(row.message, where=where, hint=row.hint)
        if not isinstance(row, Mapping):
            raise DataError("the row is not a JSON object", where=where)
        text = next((row[c] for c in _TEXT_COLUMNS if isinstance(row.get(c), str)), None)
        if text is None:
            raise DataError(
                "the document has no text",
                where=where,
                hint=f"Call its column `text` (found: {', '.join(map(str, row)) or 'none'}).",
            )
        name = next((row[c] for c in _ID_COLUMNS if row.get(c) not in (None, "")), count)
        title = row.get("title")
        try:
            check_text(text)
        except RowError as error:
            raise DataError(error.message, where=where, hint=error.hint) from None
        empty = False
        yield Document(str(name), text, title if isinstance(title, str) else "", where)
    if empty:
        raise DataError("there are no documents", where=str(path))


def _distinct(documents: Iterator[Document], path: Path) -> Iterator[Document]:
    seen: dict[str, str | None] = {}
    for document in documents:
        if document.id in seen:
            raise DataError(
                f"two documents have the id {document.id[:80]!r}",
                where=document.source or str(path),
                hint=f"The first is at {seen[document.id]}.",
            )
        seen[document.id] = document.source
        yield document
