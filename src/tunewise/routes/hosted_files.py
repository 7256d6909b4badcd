"""Training files at a hosted service: each content uploaded once, and found again by its hash."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewise.errors import TrainingError
from tunewise.models.retry import Patience
from tunewise.routes.hosted_calls import Connection, made_once

PURPOSE: Literal["fine-tune"] = "fine-tune"
_PROCESSING_SECONDS = 1800.0
_PROCESSED = ("processed",)
_READY = (*_PROCESSED, "uploaded")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A training file on this machine; its name at the service tells its content."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> LocalFile:
        with path.open("rb") as file:
            return cls(path, hashlib.file_digest(file, "sha256").hexdigest())

    @property
    def remote_name(self) -> str:
        """What it is called at the service."""
        return f"tunewise-{self.sha256}.jsonl"


def find_file(connection: Connection, file: LocalFile, remembered: str | None) -> str | None:
    """The id of a file that lies there already: the remembered one, or one of the same content.

    Raises:
        openai.APIError: the service cannot be asked.
    """
    import openai

    if remembered is not None:
        try:
            known = connection.reading.files.retrieve(remembered)
        except openai.NotFoundError:
            pass
        else:
            if known.status not in ("error", "deleting", "deleted"):
                return remembered
    size = file.path.stat().st_size
    for known in connection.reading.files.list(purpose=PURPOSE):
        # A file whose upload broke off has another size.
        if (
            known.filename == file.remote_name
            and known.bytes in (size, None)
            and known.status not in ("error", "deleting", "deleted")
        ):
            return known.id
    return None


def upload_file(connection: Connection, file: LocalFile, patience: Patience) -> str:
    """Upload a file and wait until the service has looked at it; its id.

    Raises:
        openai.APIError: it was refused.
        TrainingError: no answer, or the service found it broken; a broken file is removed.
    """

    def upload() -> str:
        with file.path.open("rb") as stream:
            made = connection.client.files.create(
                file=(file.remote_name, stream, "application/jsonl"), purpose=PURPOSE
            )
        return made.id

    id, _ = made_once(upload, lambda: find_file(connection, file, None), patience, file.path.name)
    _wait_until_processed(connection, id, file)
    return id


def remove_files(connection: Connection, ids: list[str]) -> list[str]:
    """Remove files; those that could not be removed."""
    import openai

    left = []
    for id in ids:
        try:
            # Azure answers with nothing at all, which is no JSON to be parsed.
            connection.reading.files.with_raw_response.delete(id)
        except openai.NotFoundError:
            continue
        except openai.APIError:
            left.append(id)
    return left


def _wait_until_processed(connection: Connection, id: str, file: LocalFile) -> None:
    end = time.monotonic() + _PROCESSING_SECONDS
    while True:
        known = connection.reading.files.retrieve(id)
        ready = _READY if connection.dialect.uploads_are_ready else _PROCESSED
        if known.status in ready:
            return
        if known.status in ("error", "deleted"):
            remove_files(connection, [id])
            raise TrainingError(
                f"the service found the file broken: {known.status_details or 'no reason given'}",
                where=str(file.path),
                hint="Look at the line that it names, mend the row, and run again.",
            )
        if time.monotonic() > end:
            raise TrainingError(
                f"the service has not looked at the file {id} for {_PROCESSING_SECONDS:.0f} s",
                where=str(file.path),
                hint="Run the same again later: the file is not uploaded twice.",
            )
        time.sleep(0.2 if connection.is_loopback else 3.0)
