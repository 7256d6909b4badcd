"""``/healthz`` and ``/readyz`` for whoever watches a server, ``/metrics`` for Prometheus."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable

import anyio
import anyio.to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from tunewise import __version__
from tunewise.server.access import CallerDep, require_admin
from tunewise.server.database import reading
from tunewise.server.errors import Json
from tunewise.server.metrics import REGISTRY
from tunewise.server.state import ServerState, StateDep

router = APIRouter(tags=["server"])

READY_SECONDS = 5.0
"""After which a part that has not answered is not ready."""
SPARE_BYTES = 64 * 1024 * 1024
"""Of disk, below which the server is not ready: it still answers, and cannot store much."""


@router.get("/healthz")
async def healthz(state: StateDep) -> dict[str, object]:
    """Whether the server lives: the event loop alone answers, without a key or waiting for anybody.

    Restart a server that does not answer this; what else may be wrong, ``/readyz`` says.
    """
    return {
        "status": "ok",
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - state.began, 1),
    }


@router.get("/readyz")
async def readyz(state: StateDep) -> Response:
    """Whether all parts work, and which do not; 503 where one does not. Needs no key."""
    parts: dict[str, Callable[[ServerState], str | None]] = {
        "database": _database,
        "disk": _disk,
        "engine": _engine,
        "queue": _queue,
    }
    limiter = anyio.CapacityLimiter(len(parts))  # its own: busy pools must not hide what is wrong

    async def asked(check: Callable[[ServerState], str | None]) -> str:
        try:
            async with asyncio.timeout(READY_SECONDS):
                wrong = await anyio.to_thread.run_sync(
                    check, state, limiter=limiter, abandon_on_cancel=True
                )
        except TimeoutError:
            return f"no answer within {READY_SECONDS:g} seconds"
        except Exception as error:
            return f"failed: {type(error).__name__}"  # its text may hold paths and addresses
        return wrong or "ok"

    found = await asyncio.gather(*(asked(check) for check in parts.values()))
    shown = dict(zip(parts, found, strict=True))
    ready = all(text == "ok" for text in found)
    body = {"status": "ok" if ready else "not ready", "parts": shown}
    return Json(body, status_code=200 if ready else 503)


@router.get("/metrics")
def metrics(caller: CallerDep) -> Response:
    """Counters of all projects, so an admin key is needed."""
    require_admin(caller)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _database(state: ServerState) -> str | None:
    with reading(state.sessions) as session:
        session.execute(text("SELECT 1"))
    return None


def _disk(state: ServerState) -> str | None:
    free = shutil.disk_usage(state.settings.home).free
    return None if free >= SPARE_BYTES else f"only {free / 2**20:.0f} MB are free"


def _engine(state: ServerState) -> str | None:
    if state.inference is None or state.inference.pid is None:
        return "the process that holds the models does not run"
    return None


def _queue(state: ServerState) -> str | None:
    if state.jobs is None or not state.jobs.alive:
        return "the queue of jobs does not run"
    return None
