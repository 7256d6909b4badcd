"""Stored chat completions: kept with ``store: true``, listed, tagged, read and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller, CallerDep
from tunewise.server.chat.bodies import ChatBody, Metadata, WholeBody, bad
from tunewise.server.chat.retention import owned
from tunewise.server.chat.tables import StoredChat, StoredChatTag
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError
from tunewise.server.paging import Order, page
from tunewise.server.state import StateDep
from tunewise.study.keys import without_tokens

if TYPE_CHECKING:
    from tunewise.server.state import ServerState

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]


class MetadataBody(WholeBody):
    """``POST /v1/chat/completions/{id}``."""

    metadata: Metadata | None


def keep(state: ServerState, caller: Caller, body: ChatBody, completion: dict[str, Any]) -> None:
    """Store a chat."""
    with writing(state.sessions) as session:
        chat = StoredChat(
            id=completion["id"],
            project=caller.project,
            created_at=completion["created"],
            model=body.model,
            messages=body.messages,
            completion=without_tokens(completion),
        )
        session.add(chat)
        _tag(session, chat, body.metadata)


@router.get("/v1/chat/completions")
def index(
    request: Request,
    caller: CallerDep,
    state: StateDep,
    model: str | None = None,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """The project's stored chats, filtered by ``model`` and ``metadata[key]=value``."""
    where: list[ColumnElement[bool]] = [] if model is None else [StoredChat.model == model]
    for key, value in wanted_tags(request).items():
        tagged = select(StoredChatTag.chat).where(
            StoredChatTag.key == key, StoredChatTag.value == value
        )
        where.append(StoredChat.seq.in_(tagged))
    with reading(state.sessions) as session:
        found = page(
            session,
            StoredChat,
            owner=owned(StoredChat, caller, state.settings),
            where=where,
            after=after,
            limit=limit,
            order=order,
        )
        return found.as_list(_shown, empty_id="")


@router.get("/v1/chat/completions/{completion_id}")
def retrieve(completion_id: str, caller: CallerDep, state: StateDep) -> dict[str, Any]:
    """One stored chat."""
    with reading(state.sessions) as session:
        return _shown(_find(session, completion_id, caller, state))


@router.post("/v1/chat/completions/{completion_id}")
def update(
    completion_id: str, body: MetadataBody, caller: CallerDep, state: StateDep
) -> dict[str, Any]:
    """Replace the metadata of a stored chat."""
    with writing(state.sessions) as session:
        chat = _find(session, completion_id, caller, state)
        session.execute(delete(StoredChatTag).where(StoredChatTag.chat == chat.seq))
        _tag(session, chat, body.metadata)
        return _shown(chat)


@router.delete("/v1/chat/completions/{completion_id}")
def remove(completion_id: str, caller: CallerDep, state: StateDep) -> dict[str, Any]:
    """Forget a stored chat."""
    with writing(state.sessions) as session:
        session.delete(_find(session, completion_id, caller, state))
    return {"object": "chat.completion.deleted", "id": completion_id, "deleted": True}


@router.get("/v1/chat/completions/{completion_id}/messages")
def messages(
    completion_id: str,
    caller: CallerDep,
    state: StateDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """The messages that were sent in a stored chat."""
    with reading(state.sessions) as session:
        chat = _find(session, completion_id, caller, state)
    shown = [_message(chat, number, sent) for number, sent in enumerate(chat.messages)]
    return cut(shown, after=after, limit=limit, order=order)


def cut(
    items: Sequence[dict[str, Any]], *, after: str | None, limit: int, order: Order
) -> dict[str, Any]:
    """A page of a list that lies in one row.

    Raises:
        ApiError: 400, ``after`` is the id of none of them.
    """
    items = list(items) if order == "asc" else list(items)[::-1]
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise bad("after", f"No object with id '{after[:100]}' to list after")
    start = ids.index(after) + 1 if after is not None else 0
    data = items[start : start + limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": start + limit < len(items),
    }


def wanted_tags(request: Request) -> dict[str, str]:
    """The filter ``metadata[key]=value`` of a query; ``metadata=null`` is none.

    Raises:
        ApiError: 400, it is written in another way.
    """
    tags: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name.startswith("metadata[") and name.endswith("]"):
            tags[name[len("metadata[") : -1]] = value
        elif name == "metadata" and value not in ("", "null"):
            raise bad("metadata", "Filter with `metadata[key]=value`")
    return tags


def _tag(session: Session, chat: StoredChat, tags: dict[str, str] | None) -> None:
    chat.tags = tags
    session.flush()
    session.add_all(
        StoredChatTag(chat=chat.seq, key=key, value=value) for key, value in (tags or {}).items()
    )


def _find(session: Session, id: str, caller: Caller, state: ServerState) -> StoredChat:
    mine = owned(StoredChat, caller, state.settings)
    chat = session.scalar(select(StoredChat).where(StoredChat.id == id, *mine))
    if chat is None:
        raise ApiError(
            404,
            f"Chat completion '{id[:100]}' not found. Chats are kept where `store` is true, for "
            f"{state.settings.chat_retention_days} days.",
            code="not_found",
            param="completion_id",
        )
    return chat


def _shown(chat: StoredChat) -> dict[str, Any]:
    return {**chat.completion, "metadata": chat.tags}


def _message(chat: StoredChat, number: int, sent: dict[str, Any]) -> dict[str, Any]:
    """A message that was sent, in the form of the API's list: text in one, parts beside it."""
    content = sent.get("content")
    parts = content if isinstance(content, list) else None
    text = content
    if parts is not None:
        text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
    return {
        **sent,
        "id": f"{chat.id}-{number}",
        "content": text,
        "content_parts": parts,
        "refusal": sent.get("refusal"),
    }
