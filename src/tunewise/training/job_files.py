"""A training job as files, so that another process can run it."""

from __future__ import annotations

import json
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO, overload

from tunewise.data.chat import Example
from tunewise.errors import TrainingError
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.workspace import write_json_atomic


def write_job(job: TrainingJob, folder: Path) -> None:
    """Write a job so that another process can read it: ``job.json`` and two files of rows.

    The rows may hold personal data; ``folder`` is made private to its owner.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, examples in (("train", job.examples), ("dev", job.dev)):
        with (folder / f"{name}.jsonl").open("wb") as file:
            for example in examples:
                write_row(file, example)
    value = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in ("examples", "dev")}
    value["fine_tune"] = job.fine_tune.model_dump(mode="json")
    value["output"] = str(job.output.absolute())
    value["start"] = None if job.start is None else str(job.start.absolute())
    write_json_atomic(folder / "job.json", {**value, "key": job.key})


def read_job(folder: Path) -> TrainingJob:
    """The inverse of ``write_job``.

    Raises:
        TrainingError: when no whole job lies there.
    """
    try:
        value = json.loads((folder / "job.json").read_text("utf-8"))
        key = value.pop("key")
        value.setdefault("date", None)  # of a job of earlier releases
        rows = {name: RowFile(folder / f"{name}.jsonl") for name in ("train", "dev")}
        value["fine_tune"] = FineTune.model_validate(value["fine_tune"])
        value["output"] = Path(value["output"])
        value["start"] = Path(value["start"]) if value.get("start") else None
        job = TrainingJob(examples=rows["train"], dev=rows["dev"], **value)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise TrainingError(
            "no training job lies here", where=str(folder), hint="Submit the job again."
        ) from error
    if job.key != key:
        raise TrainingError(
            "the model's files or the job's rows have changed since it was submitted",
            where=str(folder),
            hint="Submit the job again.",
        )
    return job


_FIELDS = tuple(field.name for field in fields(Example))


def write_row(file: BinaryIO, example: Example) -> None:
    """Write an example as a line that ``RowFile`` reads."""
    value = {name: getattr(example, name) for name in _FIELDS}
    line = json.dumps(value, ensure_ascii=False) + "\n"
    file.write(line.encode("utf-8", "surrogatepass"))


class RowFile(Sequence[Example]):
    """Examples in a file, a line each; read when asked for, 8 bytes of memory a row.

    Args:
        file: a path, or a file open for reading, which then belongs to this object.
    """

    def __init__(self, file: Path | BinaryIO) -> None:
        self._file = file.open("rb") if isinstance(file, Path) else file
        # Not __del__: of a cycle, the file itself might be finalised first.
        weakref.finalize(self, self._file.close)
        self._starts = array("Q")
        self._file.seek(0)
        place = 0
        for line in self._file:
            self._starts.append(place)
            place += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._starts[index])
        value = json.loads(self._file.readline().decode("utf-8", "surrogatepass"))
        for name in ("messages", "tools", "documents", "references"):
            value[name] = tuple(value.get(name) or ())
        return Example(**value)
