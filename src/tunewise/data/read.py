"""Examples from files, folders and hub data sets, one at a time."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunewise.data.chat import Example
from tunewise.data.conversations import Format, Row, answer_cell
from tunewise.data.findings import OnProblem, Problem, RowError
from tunewise.data.formats import detect, rename, split_name, to_example
from tunewise.data.lines import Numbered, csv_rows, json_lines, json_rows
from tunewise.data.messages import kind_of
from tunewise.data.tables import hub_parts, hub_rows, parquet_rows
from tunewise.data.xlsx import xlsx_rows
from tunewise.errors import DataError
from tunewise.study.schema import Columns

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
_LOOKED_AT = 50
_HUB_NAME = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+(?:/[\w.-]+)?)(?::([\w.\[\]%-]+))?")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a data set, or one split of a hub data set.

    Attributes:
        name: for messages: the path, or ``hf://owner/name:split``.
        path: the file; None for a hub data set.
        split: ``train``, ``dev``, ``test`` or None where the name does not say.
    """

    name: str
    path: Path | None
    split: str | None


def read_examples(
    source: str | Path,
    *,
    columns: Columns | None = None,
    encoding: str | None = None,
    on_problem: OnProblem | None = None,
    texts: bool = False,
) -> Iterator[Example]:
    """Stream the examples of a file, a folder, or a hub data set.

    Args:
        source: ``.jsonl``, ``.json`` (an array), ``.csv``, ``.tsv``, ``.xlsx`` or ``.parquet``; a
            folder of such files, whose names may say the split (``train*``, ``dev*``/``valid*``,
            ``test*``); or ``hf://owner/name[:split]`` (``owner/name`` where no such file exists).
        columns: the user's column names, where they are not the usual ones.
        encoding: of text files that are neither UTF-8 nor marked UTF-16.
        on_problem: called for each problem; a fatal one leaves its row out. Without it the first
            fatal problem is raised.
        texts: take rows of a text alone too, each as one message of the assistant.

    Yields:
        Examples in file order, with ids unique within their split: the row's own, or the first
        12 hexadecimal digits of the content's hash; a row that equals an earlier one gets
        ``-2``, ``-3``….

    Raises:
        DataError: nothing can be read at all, or (without ``on_problem``) a row cannot be used.
    """
    empty = True
    report = on_problem or _strict
    numbers: dict[str | None, _Ids] = {}
    for part in parts_of(source, report):
        ids = numbers.setdefault(part.split, _Ids())
        for example in _part_examples(part, columns, encoding, report, ids, texts=texts):
            empty = False
            yield example
    if empty and on_problem is None:
        raise DataError("there are no rows", where=str(source))


def parts_of(source: str | Path, on_problem: OnProblem | None = None) -> list[Part]:
    """The files or hub splits that make up ``source``, training rows first.

    Raises:
        DataError: there is no such file, or the folder holds no data.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, on_problem or _strict)
    text = str(source)
    if path.is_file():
        return [Part(text, path, None)]
    hub = _HUB_NAME.fullmatch(text)
    if hub and (text.startswith("hf://") or _may_be_hub(path)):
        return [
            Part(f"hf://{name}:{s}", None, split_name(s)) for name, s in hub_parts(*hub.groups())
        ]
    raise DataError(
        "there is no such file",
        where=text,
        hint="For a data set on the Hugging Face hub write hf://owner/name.",
    )


def rows_of(part: Part, encoding: str | None = None) -> Iterator[Numbered]:
    """The rows of one part with their line or row numbers; bad ones as ``RowError``.

    Raises:
        DataError: the part cannot be read, or its kind of file is unknown.
    """
    if part.path is None:
        return hub_rows(part.name)
    suffix = part.path.suffix.casefold()
    if suffix == ".parquet":
        return parquet_rows(part.path)
    if suffix == ".xlsx":
        return xlsx_rows(part.path)
    if suffix in (".csv", ".tsv"):
        return csv_rows(part.path, encoding)
    if suffix in (".jsonl", ".ndjson"):
        return json_lines(part.path, encoding)
    if suffix == ".json":
        return json_rows(part.path, encoding)
    raise DataError(
        f"files called {suffix or 'without an ending'} cannot be read",
        where=part.name,
        hint=f"Use one of {', '.join(SUFFIXES)}.",
    )


def _part_examples(
    part: Part,
    columns: Columns | None,
    encoding: str | None,
    report: OnProblem,
    ids: _Ids,
    *,
    texts: bool,
) -> Iterator[Example]:
    rows = rows_of(part, encoding)
    # Without its first rows the format is unknown; they are few, so they wait in a list.
    first = list(itertools.islice(rows, _LOOKED_AT))
    objects: list[Row] = [row for _, row in first if isinstance(row, Mapping)]
    format: Format | None = None
    if objects:
        try:
            format = detect(objects, columns)
        except DataError as error:
            raise error.at(part.name) from None
    if format == "text" and not texts:
        raise DataError(
            "the rows have a text and nothing that is asked or answered",
            where=part.name,
            hint="Texts are for continued pretraining: "
            f"tunewise train {part.name} --method pretrain --model MODEL; in a study "
            "`data.documents` with `fine_tune.method: pretrain`. To measure what a model can do, "
            "give rows with a question and its answer.",
        )
    kinds = _AnswerKinds(objects, format, columns)
    for number, row in itertools.chain(first, rows):
        where = f"{part.name}:{number}"
        if format is None and isinstance(row, Mapping):
            try:
                format = detect([row], columns)
            except DataError as error:
                raise error.at(where) from None
        made = _example(row, format or "chat", columns, where, report)
        if made is None:
            continue
        kinds.check(row, where, report)
        example = ids.unique(*made, report)
        yield example if example.split or not part.split else replace(example, split=part.split)


def _example(
    row: object, format: Format, columns: Columns | None, where: str, report: OnProblem
) -> tuple[Example, bool] | None:
    def warn(code: str, message: str) -> None:
        report(Problem(code, message, where, fatal=False))

    try:
        if isinstance(row, RowError):
            raise row
        return to_example(row, format, columns, source=where, warn=warn)
    except RowError as error:
        report(Problem(error.code, error.message, where, True, error.hint, error.options))
        return None


class _AnswerKinds:
    """Tells rows whose answer is a number, a list… where most of the first rows have text."""

    def __init__(self, rows: Sequence[Row], format: Format | None, columns: Columns | None) -> None:
        self._format = format
        self._columns = columns
        kinds = Counter(filter(None, map(self._kind, rows)))
        self._usual = kinds.most_common(1)[0][0] if kinds else None

    def _kind(self, row: object) -> str | None:
        if self._format is None or not isinstance(row, Mapping):
            return None
        try:
            cell = answer_cell(rename(row, self._columns) if self._columns else row, self._format)
        except RowError:
            return None
        return None if cell is None else kind_of(cell)

    def check(self, row: object, where: str, report: OnProblem) -> None:
        """Report a row whose answer is of another kind than usual."""
        if self._usual is None or (kind := self._kind(row)) in (None, self._usual):
            return
        report(
            Problem(
                "mixed_answers",
                f"the answer is {kind}, where others are {self._usual}; it is taken as JSON text",
                where,
                fatal=False,
                hint="Write all answers in one way: text in quotes, or all as JSON.",
            )
        )


class _Ids:
    """Tells rows with one id apart. Holds 64-bit hashes, not the ids."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._again: dict[int, int] = {}

    def unique(self, example: Example, given: bool, report: OnProblem) -> Example:
        key = hash(example.id)
        if key not in self._seen:
            self._seen.add(key)
            return example
        while True:
            number = self._again[key] = self._again.get(key, 1) + 1
            name = f"{example.id}-{number}"
            if hash(name) not in self._seen:
                break
        self._seen.add(hash(name))
        if given:
            report(
                Problem(
                    "duplicate_id",
                    f"an earlier row has the same id; this one is called {name[:80]!r} here",
                    example.source or "",
                    fatal=False,
                    hint="Give each row its own `id`, or none.",
                )
            )
        return replace(example, id=name)


def _strict(problem: Problem) -> None:
    if problem.fatal or problem.code == "duplicate_id":
        raise problem.as_error()


def _folder(path: Path, report: OnProblem) -> list[Part]:
    files = sorted(f for f in path.iterdir() if f.suffix.casefold() in SUFFIXES and f.is_file())
    if not files:
        raise DataError(
            "the folder holds no data",
            where=str(path),
            hint=f"Expected files such as train.jsonl and test.jsonl ({', '.join(SUFFIXES)}).",
        )
    parts = [Part(str(f), f, _split_of(f.stem)) for f in files]
    named = [part for part in parts if part.split]
    if named:
        for part in parts:
            if not part.split:
                report(
                    Problem(
                        "file_not_used",
                        "the file's name says no split, unlike its neighbours; it is not read",
                        part.name,
                        fatal=False,
                        hint="Begin its name with train, dev or test, or move it elsewhere.",
                    )
                )
        order = ("train", "dev", "test")
        return sorted(named, key=lambda part: order.index(part.split or ""))
    return parts


def _split_of(stem: str) -> str | None:
    words = re.split(r"[-_. ]+", stem)
    return next((split for word in words if (split := split_name(word))), None)


def _may_be_hub(path: Path) -> bool:
    return (
        not path.is_absolute()
        and path.suffix.casefold() not in SUFFIXES
        and not Path(path.parts[0]).exists()
    )
