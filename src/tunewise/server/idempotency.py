"""``Idempotency-Key``: a request sent twice is done once, and answered twice alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from fastapi import Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller
from tunewise.server.clock import surely
from tunewise.server.errors import ApiError, Json
from tunewise.server.tables import StoredAnswer

KEPT_SECONDS = 24 * 3600
_LONGEST_KEY = 255


def idempotent(
    session: Session,
    caller: Caller,
    request: Request,
    make: Callable[[], dict[str, Any]],
    *,
    status: int = 200,
    asked: str | None = None,
) -> Json:
    """Make something, unless the same request with the same ``Idempotency-Key`` made it already.

    The answer is stored in the caller's transaction, together with what ``make`` stores: either
    both outlive a killed server or neither does. Errors are not stored.

    Args:
        session: of ``database.writing``, so that two equal requests cannot both be first.
        make: makes it and gives the body of the answer.
        status: of the answer.
        asked: what makes two requests equal; by default method, path and body. Forms need
            their own, since each is sent with another boundary.

    Raises:
        ApiError: 409 where another request was sent with this key, 400 where the key is too long.
    """
    key = request.headers.get("idempotency-key")
    if not key:
        return Json(make(), status_code=status)
    if len(key) > _LONGEST_KEY:
        raise ApiError(400, f"The Idempotency-Key is longer than {_LONGEST_KEY} characters.")
    fingerprint = _fingerprint(request, asked)
    stored = session.scalar(
        select(StoredAnswer).where(StoredAnswer.project == caller.project, StoredAnswer.key == key)
    )
    if stored is not None and stored.created_at < surely() - KEPT_SECONDS:
        session.delete(stored)
        session.flush()
        stored = None
    if stored is None:
        body = make()
        session.add(
            StoredAnswer(
                project=caller.project,
                key=key,
                fingerprint=fingerprint,
                status=status,
                body=json.dumps(body),
            )
        )
        session.flush()
        return Json(body, status_code=status)
    if stored.fingerprint != fingerprint:
        raise ApiError(
            409,
            "This Idempotency-Key was used for another request. Use a new key for each new "
            "request, and the old one only to send the same request again.",
            type="idempotency_error",
            code="idempotency_key_reused",
        )
    return Json(
        json.loads(stored.body),
        status_code=stored.status,
        headers={"Idempotent-Replayed": "true"},
    )


def _fingerprint(request: Request, asked: str | None) -> str:
    body = asked if asked is not None else request.state.body_hash.hexdigest()
    text = f"{request.method} {request.url.path}?{request.url.query} {body}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
