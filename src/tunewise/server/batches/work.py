"""One batch on disk: its requests checked and read, its answers kept line by line, its files made.

No event loop here: the runner calls these functions in threads.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tunewise.data.findings import RowError
from tunewise.data.lines import json_lines
from tunewise.digests import DamagedError
from tunewise.errors import DataError
from tunewise.server.batches.service import move
from tunewise.server.batches.tables import Batch
from tunewise.server.database import reading, writing
from tunewise.server.file_store import add_file
from tunewise.server.ids import new_id
from tunewise.server.state import ServerState
from tunewise.server.tables import File

_SHOWN_ERRORS = 20
_EXPIRED = {"code": "batch_expired", "message": "This request was not begun within the 24 hours."}


def check(state: ServerState, batch_id: str) -> None:
    """Check a new batch's file: it is in progress then, or has failed with the lines to blame."""
    with reading(state.sessions) as session:
        batch = _batch(session, batch_id)
        path = requests_path(state, session, batch)
        endpoint = batch.endpoint
    try:
        state.blobs.verified(path.name, again=True)
        errors, count, model = _checked(path, endpoint, state.settings.max_batch_requests)
    except DamagedError as error:
        text = f"The file cannot be read: {error.message}. Upload it again."
        errors, count, model = [_error("damaged_content", text)], 0, None
    with writing(state.sessions) as session:
        batch = _batch(session, batch_id)
        if batch.status != "validating":
            return  # cancelled meanwhile
        batch.total, batch.model = count, model
        if errors:
            batch.errors = errors
            move(batch, "failed")
        else:
            move(batch, "in_progress")


def _checked(path: Path, endpoint: str, most: int) -> tuple[list[dict[str, Any]], int, str | None]:
    """Errors as the API shows them, the number of requests, and the model where all name one."""
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    models: set[str] = set()
    count = 0
    try:
        for number, row in json_lines(path):
            count += 1
            wrong = _wrong(row, endpoint, seen)
            if wrong is not None:
                errors.append({"code": wrong[0], "message": wrong[1], "param": wrong[2],
                               "line": number})  # fmt: skip
            elif isinstance(row, dict):
                models.add(str(row["body"].get("model")))
            if len(errors) >= _SHOWN_ERRORS or count > most:
                break
    except DataError as error:
        errors.append(_error("invalid_file_format", f"The file cannot be read: {error.message}."))
    if count > most:
        text = f"The file holds more than the {most:,} requests that a batch may have."
        errors.append(_error("too_many_requests", text))
    if not count and not errors:
        errors.append(_error("empty_file", "The file holds no request."))
    return errors, count, models.pop() if len(models) == 1 else None


def _error(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": None}


def _wrong(row: object, endpoint: str, seen: set[str]) -> tuple[str, str, str | None] | None:
    if isinstance(row, RowError):
        return "invalid_json_line", f"This line cannot be parsed: {row.message}.", None
    if not isinstance(row, dict):
        return "invalid_request", "This line is no JSON object.", None
    name = row.get("custom_id")
    if not isinstance(name, str) or not 1 <= len(name) <= 512:
        return (
            "missing_custom_id",
            "`custom_id` should be text of 1 to 512 characters.",
            "custom_id",
        )
    if name in seen:
        return "duplicate_custom_id", f"The custom_id {name[:100]!r} stands twice.", "custom_id"
    seen.add(name)
    if row.get("method") != "POST":
        return "invalid_method", "`method` should be 'POST'.", "method"
    if row.get("url") != endpoint:
        return "mismatched_endpoint", f"`url` should be the batch's endpoint {endpoint}.", "url"
    body = row.get("body")
    if not isinstance(body, dict):
        return "invalid_body", "`body` should be an object.", "body"
    if body.get("stream"):
        return "invalid_body", "The answers of a batch cannot be streamed.", "body.stream"
    return None


def requests_path(state: ServerState, session: Any, batch: Batch) -> Path:
    """Where the file of requests lies; it is not deleted while the batch is not over."""
    digest = session.scalar(select(File.blob).where(File.id == batch.input_file))
    assert digest is not None
    return state.blobs.path(digest)


class Answers:
    """The answers of a batch so far, one line each: a killed server goes on after the last."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "answers.jsonl"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.done: set[int] = set()
        self.failed = 0
        whole = 0
        for line in self._lines():
            answer = json.loads(line)
            self.done.add(answer["line"])
            self.failed += answer["failed"]
            whole += len(line)
        self._file = self._path.open("ab")
        if self._file.tell() != whole:  # the end of a line that was being written
            os.truncate(self._path, whole)

    def add(self, line: int, answer: dict[str, Any], *, failed: bool) -> None:
        """Keep the answer to the request in ``line``; on disk before this returns."""
        text = json.dumps({"line": line, "failed": failed, "answer": answer}, ensure_ascii=False)
        place = self._file.tell()
        try:
            self._file.write(text.encode("utf-8", "replace") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._file.close()
            os.truncate(self._path, place)
            self._file = self._path.open("ab")
            raise
        self.done.add(line)
        self.failed += failed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _lines(self) -> Iterator[bytes]:
        if self._path.exists():
            with self._path.open("rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))

    def each(self) -> Iterator[dict[str, Any]]:
        """What was kept, in the order in which it was answered."""
        return (json.loads(line) for line in self._lines())


def finish(state: ServerState, batch_id: str, folder: Path, answers: Answers, ended: str) -> None:
    """Make the files of answers and of errors and end the batch, all at once or not at all.

    Args:
        ended: ``completed``, ``cancelled`` or ``expired``.
    """
    with reading(state.sessions) as session:
        batch = _batch(session, batch_id)
        path = requests_path(state, session, batch)
    usage = _Usage()
    with state.blobs.receive() as output, state.blobs.receive() as errors:
        for kept in answers.each():
            (errors if kept["failed"] else output).write(_line(kept["answer"]))
            usage.add(kept["answer"])
        left = 0
        if ended == "expired":
            for number, row in json_lines(path):
                if number not in answers.done and isinstance(row, dict):
                    errors.write(_line(answer_line(row.get("custom_id"), None, _EXPIRED)))
                    left += 1
        received = [("output", output.finish()), ("error", errors.finish())]
        with writing(state.sessions) as session:
            batch = _batch(session, batch_id)
            for kind, content in received:
                if content.bytes:
                    file = add_file(
                        session, state.blobs, content, project=batch.project,
                        filename=f"{batch.id}_{kind}.jsonl", purpose="batch_output",
                        expires_after=batch.output_seconds,
                    )  # fmt: skip
                    setattr(batch, f"{kind}_file", file.id)
            batch.completed = len(answers.done) - answers.failed
            batch.failed = answers.failed + left
            batch.usage = usage.as_dict()
            move(batch, "finalizing")
            move(batch, ended)
    answers.close()
    shutil.rmtree(folder, ignore_errors=True)


def answer_line(
    custom_id: Any, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> dict[str, Any]:
    """One line of a file of answers."""
    return {
        "id": new_id("batch_req_", 32),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class _Usage:
    """Tokens of all answers together."""

    def __init__(self) -> None:
        self._input = self._output = self._cached = 0

    def add(self, answer: dict[str, Any]) -> None:
        body = (answer.get("response") or {}).get("body") or {}
        used = body.get("usage") or {}
        self._input += used.get("input_tokens", used.get("prompt_tokens", 0))
        self._output += used.get("output_tokens", used.get("completion_tokens", 0))
        details = used.get("input_tokens_details") or used.get("prompt_tokens_details") or {}
        self._cached += details.get("cached_tokens", 0)

    def as_dict(self) -> dict[str, Any]:
        return {
            "input_tokens": self._input,
            "input_tokens_details": {"cached_tokens": self._cached},
            "output_tokens": self._output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._input + self._output,
        }


def _batch(session: Any, batch_id: str) -> Batch:
    batch = session.scalar(select(Batch).where(Batch.id == batch_id))
    assert isinstance(batch, Batch)  # rows of batches are never removed
    return batch
