"""``serve --seed-fixtures FILE``: objects under fixed ids, for the tests of a client.

A client's tests name what they ask for (``file-abc123``, ``ft-AF1WoRqd3aJAHsqc9NY7iL8F``), and
delete or cancel it. With ``restore: each_request`` everything is put back before each request, so
that each test meets the same objects, in any order and any number of times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewise.errors import UsageError
from tunewise.server.access import DEFAULT_PROJECT, find_project
from tunewise.server.batches.tables import Batch
from tunewise.server.database import Base, Listed, now, writing
from tunewise.server.jobs import hyperparameters
from tunewise.server.jobs.tables import CheckpointPermission, Job, JobEvent, TunedModel
from tunewise.server.settings import ServerSettings, first_complaint
from tunewise.server.state import ServerState
from tunewise.server.tables import File, Project, Upload, UploadPart
from tunewise.study.yaml_source import parse_yaml, read_text

Id = Annotated[str, Field(min_length=1, max_length=128)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SeededProject(_Part):
    """A project; without ``name`` it is called as its id."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    name: str | None = Field(None, max_length=64)


class SeededFile(_Part):
    """A file and its text."""

    id: Id
    text: str
    filename: str = "fixture.jsonl"
    purpose: str = "user_data"


class SeededPart(_Part):
    """A part of an upload and its text."""

    id: Id
    text: str


class SeededUpload(_Part):
    """An upload that waits to be completed with all of its parts."""

    id: Id
    filename: str = "fixture.txt"
    purpose: str = "user_data"
    mime_type: str = "text/plain"
    parts: tuple[SeededPart, ...] = ()


class SeededEvent(_Part):
    """A line of a job's story."""

    id: Id
    message: str


class SeededJob(_Part):
    """A job. One that is ``paused`` waits until it is resumed, and is then checked and trained."""

    id: Id
    model: str
    training_file: Id
    status: Literal["paused", "succeeded", "failed", "cancelled"] = "paused"
    fine_tuned_model: str | None = None
    events: tuple[SeededEvent, ...] = ()


class SeededModel(_Part):
    """A tuned model or, with ``step``, a checkpoint of a job.

    Attributes:
        adapter: folder of its weights, relative to the server's home; without one it can be
            listed, shared and deleted, but not asked.
    """

    id: Id
    name: Annotated[str, Field(min_length=1, max_length=512)]
    model: str
    job: Id
    step: int | None = Field(None, ge=1)
    adapter: str | None = None


class SeededPermission(_Part):
    """A project that may use a model."""

    id: Id
    model: str
    project: str


class SeededBatch(_Part):
    """A batch that is over."""

    id: Id
    input_file: Id
    status: Literal["cancelled", "completed", "failed"] = "cancelled"
    endpoint: str = "/v1/chat/completions"


class Fixtures(_Part):
    """The file. Everything belongs to ``project``, which is made where it is not there."""

    restore: Literal["start", "each_request"] = "start"
    project: str = DEFAULT_PROJECT
    projects: tuple[SeededProject, ...] = ()
    files: tuple[SeededFile, ...] = ()
    uploads: tuple[SeededUpload, ...] = ()
    jobs: tuple[SeededJob, ...] = ()
    models: tuple[SeededModel, ...] = ()
    permissions: tuple[SeededPermission, ...] = ()
    batches: tuple[SeededBatch, ...] = ()


def load_fixtures(path: Path) -> Fixtures:
    """Read a file of fixtures.

    Raises:
        StudyError: it is missing or is not YAML.
        UsageError: a key is unknown or a value cannot be; with its line.
    """
    parsed = parse_yaml(read_text(path, "file of fixtures"), str(path))
    if not isinstance(parsed.value, dict):
        raise UsageError("fixtures are a mapping (lines of `key: value`)", where=str(path))
    try:
        return Fixtures.model_validate(parsed.value)
    except ValidationError as error:
        raise first_complaint(error, str(path), parsed.lines, Fixtures.model_fields) from None


def restore(state: ServerState, fixtures: Fixtures) -> None:
    """Put every object into the state that the file gives it, whatever happened to it.

    Raises:
        UsageError: an id is taken by an object of another project, or a job's model is none of the
            server's.
    """
    with writing(state.sessions) as session:
        for project in fixtures.projects:
            _put_project(session, project)
        owner = find_project(session, fixtures.project).id
        for file in fixtures.files:
            _put(session, owner, File, file.id, {
                "filename": file.filename, "purpose": file.purpose, "status": "processed",
                "expires_at": None, "deleted_at": None, **_stored(state, file.text),
            })  # fmt: skip
        for upload in fixtures.uploads:
            _put_upload(session, state, owner, upload)
        for job in fixtures.jobs:
            _put_job(session, state.settings, owner, job)
        for model in fixtures.models:
            _put_model(session, state.settings, owner, model)
        for permission in fixtures.permissions:
            _put(session, owner, CheckpointPermission, permission.id,
                 {"model": permission.model, "grantee": permission.project})  # fmt: skip
        for batch in fixtures.batches:
            _put_batch(session, owner, batch)


def _put_batch(session: Session, owner: str, wanted: SeededBatch) -> None:
    _put(session, owner, Batch, wanted.id, {
        "status": wanted.status, "endpoint": wanted.endpoint, "input_file": wanted.input_file,
        "output_file": None, "error_file": None, "labels": None, "output_seconds": 3600,
        "expires_at": now() + 3600, "times": {f"{wanted.status}_at": now()}, "errors": None,
        "usage": None, "model": None,
    })  # fmt: skip


class Restoring:
    """ASGI middleware: puts the fixtures back before each request."""

    def __init__(self, app: ASGIApp, state: ServerState, fixtures: Fixtures) -> None:
        self._app = app
        self._state = state
        self._fixtures = fixtures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await run_in_threadpool(restore, self._state, self._fixtures)
        await self._app(scope, receive, send)


def _put_project(session: Session, wanted: SeededProject) -> None:
    name = wanted.name or wanted.id
    project = session.get(Project, wanted.id)
    if project is None:
        session.add(Project(id=wanted.id, name=name))
        session.flush()
    else:
        project.name = name


def _put_upload(
    session: Session, state: ServerState, owner: str, wanted: SeededUpload
) -> None:  # fmt: skip
    size = sum(len(part.text.encode("utf-8")) for part in wanted.parts)
    _put(session, owner, Upload, wanted.id, {
        "filename": wanted.filename, "purpose": wanted.purpose, "mime_type": wanted.mime_type,
        "bytes": size, "status": "pending", "part_ids": None, "file_id": None,
        "expires_at": now() + state.settings.upload_seconds, "expires_after": None,
    })  # fmt: skip
    _only(session, UploadPart, UploadPart.upload_id == wanted.id, (p.id for p in wanted.parts))
    for part in wanted.parts:
        _put(session, owner, UploadPart, part.id,
             {"upload_id": wanted.id, **_stored(state, part.text)})  # fmt: skip


def _put_job(session: Session, settings: ServerSettings, owner: str, wanted: SeededJob) -> None:
    over = wanted.status != "paused"
    _put(session, owner, Job, wanted.id, {
        "status": wanted.status, "has_worker": False, "model": wanted.model,
        "base": _base(settings, wanted.model), "parent": None, "asked_model": None,
        "method": {"type": "supervised"},
        "requested": hyperparameters.requested("supervised", None), "resolved": None,
        "rows": None, "seed": 0, "suffix": None, "tail": _tail(wanted.id),
        "training_file": wanted.training_file, "validation_file": None, "labels": None,
        "result_files": [], "error": None, "started_at": None, "deleted_at": None,
        "finished_at": now() if over else None, "fine_tuned_model": wanted.fine_tuned_model,
    })  # fmt: skip
    _only(session, JobEvent, JobEvent.job_id == wanted.id, (e.id for e in wanted.events))
    for event in wanted.events:
        _put(session, owner, JobEvent, event.id, {
            "job_id": wanted.id, "mark": event.id[:64], "message": event.message,
            "level": "info", "type": "message", "data": {},
        })  # fmt: skip


def _put_model(session: Session, settings: ServerSettings, owner: str, wanted: SeededModel) -> None:
    _put(session, owner, TunedModel, wanted.id, {
        "name": wanted.name, "job_id": wanted.job, "model": wanted.model,
        "base": _base(settings, wanted.model), "folder": wanted.adapter or "no-weights",
        "step": wanted.step, "metrics": {}, "deleted_at": None,
    })  # fmt: skip


def _tail(id: str) -> str:
    return hashlib.sha256(id.encode("utf-8")).hexdigest()[:8]


def _base(settings: ServerSettings, name: str) -> str:
    if name not in settings.models:
        raise UsageError(
            f"the model '{name}' of a fixture is not on this server",
            where="--seed-fixtures",
            hint="Add it under `models` in the settings.",
        )
    return settings.models[name].model


def _put(
    session: Session, owner: str, table: type[Listed], id: str, values: Mapping[str, Any]
) -> None:
    row = session.scalar(select(table).where(table.id == id))
    if row is None:
        row = table()
        row.id, row.project = id, owner
        session.add(row)
    elif row.project != owner:
        raise UsageError(f"the id '{id}' is another project's", where="--seed-fixtures")
    for name, value in values.items():
        setattr(row, name, value)
    session.flush()


def _only(session: Session, table: type[Base], where: Any, ids: Iterable[str]) -> None:
    """Remove rows that came since."""
    session.execute(delete(table).where(where, table.id.not_in(list(ids))))  # type: ignore[attr-defined]


def _stored(state: ServerState, text: str) -> dict[str, Any]:
    """A content in the blob store, as the columns that name it."""
    with state.blobs.receive() as incoming:
        incoming.write(text.encode("utf-8"))
        received = incoming.finish()
        return {"bytes": received.bytes, "blob": state.blobs.store(received)}
