"""What the command line does with keys: it opens the same database as the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from tunewise.errors import UsageError
from tunewise.server.access import create_key
from tunewise.server.batches.service import ACTIVE, move
from tunewise.server.batches.tables import Batch
from tunewise.server.database import Sessions, now, open_database, reading, writing
from tunewise.server.home import make_home
from tunewise.server.settings import ServerSettings
from tunewise.server.tables import ApiKey, Project


def create(
    settings: ServerSettings,
    project: str,
    name: str,
    admin: bool,
    requests_per_minute: int | None,
) -> str:
    """Make a key; the only moment at which it can be seen.

    Raises:
        UsageError: the project's name is empty or longer than 64 characters.
    """
    if not project.strip() or len(project) > 64 or not project.isprintable():
        raise UsageError("a project's name has 1 to 64 printable characters", where="--project")
    if len(name) > 64:
        raise UsageError("a key's name has at most 64 characters", where="--name")
    with _opened(settings) as sessions, writing(sessions) as session:
        _, key = create_key(
            session,
            project=project,
            name=name,
            admin=admin,
            requests_per_minute=requests_per_minute,
        )
    return key


def listed(settings: ServerSettings) -> list[dict[str, Any]]:
    """All keys, the oldest first, without anything that could be used as one."""
    with _opened(settings) as sessions, reading(sessions) as session:
        rows = session.execute(
            select(ApiKey, Project)
            .join(Project, Project.id == ApiKey.project)
            .order_by(ApiKey.created_at, ApiKey.id)
        ).all()
    return [
        {
            "id": key.id,
            "project": project.name,
            "project_id": project.id,
            "name": key.name,
            "admin": key.admin,
            "requests_per_minute": key.requests_per_minute,
            "created_at": key.created_at,
            "last_used_at": key.last_used_at,
            "revoked_at": key.revoked_at,
            "requests": key.requests,
            "prompt_tokens": key.prompt_tokens,
            "completion_tokens": key.completion_tokens,
        }
        for key, project in rows
    ]


def revoke(settings: ServerSettings, key_id: str) -> None:
    """End a key, and the batches that it made.

    Raises:
        UsageError: there is no such key.
    """
    with _opened(settings) as sessions, writing(sessions) as session:
        key = session.get(ApiKey, key_id)
        if key is None:
            raise UsageError(
                "there is no such key", where=key_id,
                hint="`tunewise server key list` shows all; the id is the part after sk-tunewise-.",
            )  # fmt: skip
        key.revoked_at = key.revoked_at or now()
        for batch in session.scalars(select(Batch).where(Batch.key_id == key_id)):
            if batch.status in ACTIVE:
                move(batch, "cancelling")


@contextmanager
def _opened(settings: ServerSettings) -> Iterator[Sessions]:
    make_home(settings.home)
    sessions = open_database(settings.database_url)
    try:
        yield sessions
    finally:
        sessions.kw["bind"].dispose()
