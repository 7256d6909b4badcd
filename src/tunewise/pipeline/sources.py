"""What is to be looked at: files of rows and how to read them, given by options or by a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tunewise.data.chat import Example
from tunewise.data.findings import OnProblem
from tunewise.data.read import read_examples
from tunewise.data.unreadable import audit_command
from tunewise.errors import DataError, UsageError
from tunewise.models.names import TINY, parse_model
from tunewise.study.loading import load_study
from tunewise.study.schema import Columns, Server
from tunewise.study.yaml_source import near_names

STUDY_SUFFIXES = (".yaml", ".yml")


def check_there(data: str) -> None:
    """Stop where a data file is missing and another one has nearly its name.

    Raises:
        DataError: with the near names. Names of hub data sets pass.
    """
    path = Path(data).expanduser()
    near = None if path.exists() else near_names(path)
    if near is not None and near.startswith("Did you mean"):
        raise DataError("there is no such file", where=data, hint=near)


@dataclass(frozen=True)
class Sources:
    """Files of rows, and how they are read.

    Attributes:
        named: what the user named: a study, or a file, folder or hub data set with rows.
        files: the files by split; the one file that Tunewise splits itself has the key ``""``.
        columns, encoding: as of ``read_examples``.
        documents: a folder or file that retrieval searches.
        model: whose tokenizer counts; None where none was named.
        trained_rows: which answers are trained, as ``fine_tune.trained_rows``.
        servers, form: that the study names.
        renders: the model may be loaded to see what becomes of the rows: it was asked for, or its
            files lie here.
    """

    named: str
    files: Mapping[str, str]
    columns: Columns | None = None
    encoding: str | None = None
    documents: str | None = None
    model: str | None = None
    trained_rows: str = "answers"
    servers: Mapping[str, Server] = field(default_factory=dict)
    renders: bool = False
    form: Literal["chat", "raw"] | None = None

    def rows(self, on_problem: OnProblem | None = None) -> Iterator[Example]:
        """All rows, file by file; see ``read_examples``."""
        for split, file in self.files.items():
            read = read_examples(
                file, columns=self.columns, encoding=self.encoding, on_problem=on_problem
            )
            yield from (replace(row, split=split) for row in read) if split else read

    @property
    def tokenizer(self) -> str:
        """The model whose tokenizer shows tokens."""
        return self.model or TINY

    @property
    def only(self) -> str:
        """The one file that is looked at.

        Raises:
            UsageError: there are several.
        """
        if len(self.files) != 1:
            raise UsageError(
                "the study names several files, and only one can be mended at a time",
                where=self.named,
                hint=f"Name it: {self.command(next(iter(self.files.values())))} --fix clean.jsonl",
            )
        return next(iter(self.files.values()))

    def command(self, file: str | None = None) -> str:
        """What audits this again, or one ``file`` of it."""
        study = file is None and _is_study(self.named)
        return audit_command(file or self.named, self.columns, self.encoding, study=study)


def sources_of(
    named: str,
    *,
    test: str | None = None,
    columns: Columns | None = None,
    encoding: str | None = None,
    documents: str | None = None,
    model: str | None = None,
    trained_rows: str | None = None,
) -> Sources:
    """The files that a study or a name means; what options say wins over the study.

    Args:
        named: a study file (YAML), or a file, folder or hub data set with rows.
        test: test rows in a file of their own.

    Raises:
        StudyError: the study cannot be read.
        DataError: a file is missing, or the study names none.
    """
    trained = trained_rows or "answers"
    found = Sources(named, {"": named}, columns, encoding, documents, model, trained)
    if _is_study(named):
        study = load_study(named).study
        data = study.data
        by_split = {"": data.examples, "train": data.train, "dev": data.dev, "test": data.test}
        files = {split: file for split, file in by_split.items() if file}
        if not files:
            raise DataError(
                "the study names no rows", where=named, hint="Set `data.examples` to a file."
            )
        found = Sources(
            named,
            files,
            columns or data.columns,
            encoding or data.encoding,
            documents or data.documents,
            model or study.model,
            trained_rows or study.fine_tune.trained_rows,
            study.servers,
            form=data.form,
        )
    if found.model is not None:
        kind = parse_model(found.model, found.servers).kind
        found = replace(found, renders=kind == "folder" or (kind == "hub" and model is not None))
    if test is not None:
        whole = found.files.get("")
        files = {**({"train": whole} if whole else found.files), "test": test}
        found = replace(found, files=files)
    for file in (*found.files.values(), *([found.documents] if found.documents else ())):
        check_there(file)
    return found


def _is_study(named: str) -> bool:
    return Path(named).suffix.casefold() in STUDY_SUFFIXES
