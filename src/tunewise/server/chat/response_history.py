"""The conversation that a response goes on from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from tunewise.server.access import Caller
from tunewise.server.chat.retention import owned
from tunewise.server.chat.tables import StoredResponse
from tunewise.server.database import reading
from tunewise.server.errors import ApiError

if TYPE_CHECKING:
    from tunewise.server.state import ServerState

LONGEST_CHAIN = 1000
"""Most responses that one goes on from."""


def items_before(state: ServerState, caller: Caller, id: str | None) -> list[dict[str, Any]]:
    """All items of the conversation up to and including response ``id``; none for None.

    Raises:
        ApiError: 400, it is not there, or the conversation is too long.
    """
    mine = owned(StoredResponse, caller, state.settings)
    turns: list[list[dict[str, Any]]] = []
    last = id
    with reading(state.sessions) as session:
        while id is not None:
            found = session.scalar(select(StoredResponse).where(StoredResponse.id == id, *mine))
            if found is None or len(turns) >= LONGEST_CHAIN:
                raise _no_previous(id, last, state, too_long=found is not None)
            turns.append([*found.input, *found.response["output"]])
            id = found.previous
    return [item for turn in reversed(turns) for item in turn]


def _no_previous(id: str, asked: str | None, state: ServerState, *, too_long: bool) -> ApiError:
    if too_long:
        why = f"the conversation is longer than {LONGEST_CHAIN} responses; begin another"
    elif id == asked:
        why = f"previous response with id '{id[:100]}' not found"
    else:
        why = f"response '{id[:100]}', from which the previous one went on, was deleted or expired"
    days = state.settings.chat_retention_days
    return ApiError(
        400,
        f"{why}. (Responses are kept for {days} days, unless `store` is false.)",
        code="previous_response_not_found",
        param="previous_response_id",
    )
