"""Files of projects: made, found, listed as the API does, forgotten. No HTTP here."""

from __future__ import annotations

import unicodedata
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from tunewise.server import metrics
from tunewise.server.blobs import BlobStore, Received
from tunewise.server.clock import surely
from tunewise.server.database import now
from tunewise.server.errors import ApiError
from tunewise.server.ids import new_id
from tunewise.server.tables import File

RESULTS = "fine-tune-results"
"""The purpose of a job's result file."""
_LONGEST_NAME = 255


def add_file(
    session: Session,
    blobs: BlobStore,
    received: Received,
    *,
    project: str,
    filename: str,
    purpose: str,
    expires_after: int | None = None,
) -> File:
    """Make a file of a content that was received; inside ``database.writing``.

    Args:
        expires_after: seconds from now on; None keeps it for good.
    """
    created = now()
    file = File(
        id=new_id("file"),
        project=project,
        created_at=created,
        filename=display_name(filename),
        purpose=purpose,
        bytes=received.bytes,
        blob=blobs.store(received),
        expires_at=created + expires_after if expires_after is not None else None,
    )
    session.add(file)
    session.flush()
    metrics.UPLOADED.inc(received.bytes)
    return file


def find_file(session: Session, project: str, file_id: str, *, param: str = "file_id") -> File:
    """The project's file with this id.

    Raises:
        ApiError: 404, there is none, or it has expired or belongs to another project.
    """
    file = session.scalar(select(File).where(*visible_files(project), File.id == file_id))
    if file is None:
        raise ApiError(
            404, f"No such File object: {file_id[:100]}", param=param, code="file_not_found"
        )
    return file


def visible_files(project: str) -> list[ColumnElement[bool]]:
    """Conditions: the project's own, neither deleted nor expired."""
    return [
        File.project == project,
        File.deleted_at.is_(None),
        File.expires_at.is_(None) | (File.expires_at > surely()),
    ]


def file_object(file: File) -> dict[str, Any]:
    """The file as the API gives it.

    OpenAI takes files for ``evals``, and its document of files has no such purpose: their clients
    refuse it. Such a file is ``user_data``, and ``uploaded_for`` is ours.
    """
    evals = file.purpose == "evals"
    shown: dict[str, Any] = {
        "object": "file",
        "id": file.id,
        "purpose": "user_data" if evals else file.purpose,
        "filename": file.filename,
        "bytes": file.bytes,
        "created_at": file.created_at,
        "status": file.status,
    }
    if evals:
        shown["uploaded_for"] = file.purpose
    if file.expires_at is not None:
        shown["expires_at"] = file.expires_at
    return shown


def forget(file: File) -> str:
    """Delete a file; the digest of its content, for ``BlobStore.collect`` afterwards."""
    file.deleted_at = now()
    file.filename = ""
    return file.blob


def display_name(name: str) -> str:
    """A name from outside, fit to be shown: the last part of a path, no control characters.

    Characters that turn the direction of writing go too: ``photo\\u202egnp.exe`` would be shown
    as another name than it has. It is shown and never used as a path.
    """
    name = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    kept = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    return kept.strip()[:_LONGEST_NAME] or "upload"
