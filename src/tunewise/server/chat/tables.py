"""Chats and responses that are kept because their caller asked for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from tunewise.server.database import Base, Listed


class StoredChat(Listed, Base):
    """A chat completion made with ``store: true``.

    Attributes:
        model: the public name that was asked for; lists filter by it.
        messages: what was sent, as it was sent.
        completion: the answer as it was given, without ``metadata``.
        tags: the caller's ``metadata``.
    """

    __tablename__ = "stored_chats"

    model: Mapped[str] = mapped_column(String(255))
    messages: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    completion: Mapped[dict[str, Any]] = mapped_column(JSON)
    tags: Mapped[dict[str, str] | None] = mapped_column(JSON)


class StoredChatTag(Base):
    """One pair of a chat's ``metadata``, for lists that filter by it."""

    __tablename__ = "stored_chat_tags"

    chat: Mapped[int] = mapped_column(
        ForeignKey("stored_chats.seq", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))


class StoredResponse(Listed, Base):
    """A response that later ones may go on from.

    Attributes:
        previous: id of the response that this one went on from.
        input: its own input items, with ids.
        response: the answer as it was given.
        deltas: how its text came, in pieces of so many characters and log-probabilities, for who
            streams it again; None for responses of earlier versions.
    """

    __tablename__ = "stored_responses"

    previous: Mapped[str | None] = mapped_column(String(128))
    input: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    response: Mapped[dict[str, Any]] = mapped_column(JSON)
    deltas: Mapped[list[tuple[int, int]] | None] = mapped_column(JSON)
