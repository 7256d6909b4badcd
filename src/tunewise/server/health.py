"""``/healthz`` for whoever restarts a server, ``/metrics`` for Prometheus."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from tunewise import __version__
from tunewise.server.access import CallerDep, require_admin
from tunewise.server.database import reading
from tunewise.server.metrics import REGISTRY
from tunewise.server.state import StateDep

router = APIRouter(tags=["server"])


@router.get("/healthz")
def healthz(state: StateDep) -> dict[str, object]:
    """Whether the server answers and its database can be read; needs no key."""
    with reading(state.sessions) as session:
        session.execute(text("SELECT 1"))
    return {
        "status": "ok",
        "version": __version__,
        "uptime_seconds": round(time.time() - state.started, 1),
    }


@router.get("/metrics")
def metrics(caller: CallerDep) -> Response:
    """Counters of all projects, so an admin key is needed."""
    require_admin(caller)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
