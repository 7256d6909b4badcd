"""How long chats and responses are kept, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete
from sqlalchemy.orm import Session

from tunewise.server.chat.tables import StoredChat, StoredResponse
from tunewise.server.clock import surely

if TYPE_CHECKING:
    from tunewise.server.access import Caller
    from tunewise.server.settings import ServerSettings

_DAY = 86400

Kept = type[StoredChat] | type[StoredResponse]


def owned(table: Kept, caller: Caller, settings: ServerSettings) -> tuple[ColumnElement[bool], ...]:
    """Rows of the caller's project that are not past their time, swept already or not."""
    return (table.project == caller.project, table.created_at >= _oldest(settings))


def forget_expired(session: Session, settings: ServerSettings) -> None:
    """Remove what is past its time, of all projects; inside ``database.writing``."""
    for table in (StoredChat, StoredResponse):
        session.execute(delete(table).where(table.created_at < _oldest(settings)))


def _oldest(settings: ServerSettings) -> int:
    return surely() - settings.chat_retention_days * _DAY
