"""Who asks: keys, and the caller that every handler gets."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.errors import ApiError
from tunewise.server.ids import new_id
from tunewise.server.tables import ApiKey, Project

_KEY = re.compile(r"sk-tunewise-([A-Za-z0-9]{12})-[A-Za-z0-9_-]{43}")
DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        project: id of the project whose things the caller sees.
        key_id: of the key used; None where the server asks for none.
        key_name: what its maker called it.
        admin: whether the key may also do what concerns all projects.
        requests_per_minute: the key's limit; None for none.
    """

    project: str
    key_id: str | None
    admin: bool
    requests_per_minute: int | None = None
    key_name: str = ""


# Dependencies are coroutines: plain functions would wait for a thread of the common pool.
async def _caller(request: Request) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]


def require_admin(caller: Caller) -> None:
    """Refuse everybody but the holder of an admin key.

    Raises:
        ApiError: 403.
    """
    if not caller.admin:
        raise ApiError(
            403,
            "This needs an admin key. (Make one with: tunewise server key create --admin)",
            code="insufficient_permissions",
        )


def find_project(session: Session, name: str) -> Project:
    """The project called ``name``, made where it is new. Needs a transaction that writes."""
    project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        project = Project(id=new_id("proj_"), name=name)
        session.add(project)
        session.flush()
    return project


def project_called(session: Session, name: str) -> Project | None:
    """The project with this id or, where there is none, this name."""
    by_id = session.get(Project, name)
    return by_id or session.scalar(select(Project).where(Project.name == name))


def create_key(
    session: Session,
    *,
    project: str = DEFAULT_PROJECT,
    name: str = "",
    admin: bool = False,
    requests_per_minute: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key of the project called ``project``: its row, and the key itself.

    The key is nowhere kept and cannot be shown again. Needs a transaction that writes.
    """
    identity = new_id("", 12)
    key = f"sk-tunewise-{identity}-{secrets.token_urlsafe(32)}"
    row = ApiKey(
        id=identity,
        digest=_digest(key),
        project=find_project(session, project).id,
        name=name,
        admin=admin,
        requests_per_minute=requests_per_minute,
    )
    session.add(row)
    session.flush()
    return row, key


def authenticate(session: Session, headers: Mapping[str, str]) -> Caller:
    """The caller whose key stands in ``Authorization: Bearer …`` or ``api-key``.

    Raises:
        ApiError: 401, there is no key, or none that is valid.
    """
    key = _given_key(headers)
    match = _KEY.fullmatch(key)
    row = session.get(ApiKey, match[1]) if match else None
    # Compared in any case, and in constant time: how long it takes tells nothing about the key.
    same = hmac.compare_digest(_digest(key), row.digest if row else "0" * 64)
    if row is None or not same or row.revoked_at is not None:
        raise ApiError(
            401,
            f"Incorrect API key provided: {_masked(key)}. "
            "Make one on the server with: tunewise server key create",
            code="invalid_api_key",
        )
    return Caller(row.project, row.id, row.admin, row.requests_per_minute, row.name)


def given_digest(headers: Mapping[str, str]) -> str:
    """SHA-256 (hex) of what a request gives as its key; it may be anything, or nothing."""
    return _digest(headers.get("authorization", "") or headers.get("api-key", ""))


def _given_key(headers: Mapping[str, str]) -> str:
    authorization = headers.get("authorization", "")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    key = headers.get("api-key", "").strip()
    if key:
        return key
    raise ApiError(
        401,
        "You didn't provide an API key. Send it in the Authorization header: "
        "'Authorization: Bearer YOUR_KEY' (or in an api-key header). "
        "Make one on the server with: tunewise server key create",
        code="invalid_api_key" if authorization else None,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _masked(key: str) -> str:
    return f"{key[:3]}…{key[-4:]}" if len(key) >= 20 and key.isascii() else "…"
