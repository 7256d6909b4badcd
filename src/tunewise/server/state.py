"""Everything that lives as long as the server does, in one place: no module holds a global."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from tunewise.server.blobs import BlobStore
from tunewise.server.database import Sessions, open_database
from tunewise.server.home import make_home
from tunewise.server.inference.client import InferenceClient
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.limits import Limiter, Usage
from tunewise.server.pools import Pools
from tunewise.server.request_log import RequestLog
from tunewise.server.settings import ServerSettings


@dataclass
class ServerState:
    """What handlers work with; ``app.state.tunewise``.

    Attributes:
        settings: as loaded.
        sessions: of the database; see ``database.reading`` and ``database.writing``. A session's
            ``info["settings"]`` holds the settings.
        blobs: contents of files.
        jobs: the queue of fine-tuning jobs; None where the server runs without.
        inference: the client of the process that holds the models.
        file_users: asked before a file is deleted: ``user(session, file_id)`` says who needs it
            (``"The fine-tuning job ftjob-…"``), or None.
        usage: what keys used, written to the database now and then.
        limiter: of requests per minute.
        pools: threads for what blocks.
        requests: the log of requests; None where none is wanted.
        started: seconds since 1970.
        began: the same moment on a clock that nobody sets.
    """

    settings: ServerSettings
    sessions: Sessions
    blobs: BlobStore
    usage: Usage
    jobs: Any = None
    inference: InferenceClient | None = None
    file_users: list[Callable[[Session, str], str | None]] = field(default_factory=list)
    limiter: Limiter = field(default_factory=Limiter)
    pools: Pools = field(default_factory=Pools)
    requests: RequestLog | None = None
    started: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)


async def _state(request: Request) -> ServerState:
    state = request.app.state.tunewise
    assert isinstance(state, ServerState)
    return state


StateDep = Annotated[ServerState, Depends(_state)]


def open_state(settings: ServerSettings) -> ServerState:
    """Open or make what lies in ``settings.home``.

    Raises:
        UsageError: the database's URL is wrong.
        WorkspaceError: the folder cannot be used, or the database cannot be migrated.
    """
    make_home(settings.home)
    sessions = open_database(settings.database_url)
    sessions.configure(info={"settings": settings})
    blobs = BlobStore(settings.home / "files", sessions)
    return ServerState(
        settings,
        sessions,
        blobs,
        Usage(sessions),
        inference=InferenceClient(EngineLimits(dtypes=settings.dtypes)),
        requests=RequestLog(settings.request_log) if settings.request_log else None,
    )
