"""Lists by cursor: ``after``, ``limit`` and ``order`` in, ``{"object": "list", …}`` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from tunewise.server.database import Listed
from tunewise.server.errors import ApiError

Row = TypeVar("Row", bound=Listed)
Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """A part of a list.

    Attributes:
        rows: in the order asked for.
        has_more: whether another page follows.
    """

    rows: Sequence[Row]
    has_more: bool

    def as_list(
        self, show: Callable[[Row], dict[str, Any]], *, empty_id: str | None = None
    ) -> dict[str, Any]:
        """The page as the API gives it.

        Args:
            show: a row as the API's object; it has an ``id``.
            empty_id: ``first_id`` and ``last_id`` of an empty page: the published schema of some
                lists wants text there, of others null.
        """
        data = [show(row) for row in self.rows]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else empty_id,
            "last_id": data[-1]["id"] if data else empty_id,
            "has_more": self.has_more,
        }


def page(
    session: Session,
    table: type[Row],
    *,
    owner: Sequence[ColumnElement[bool]],
    where: Sequence[ColumnElement[bool]] = (),
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[Row]:
    """Rows of ``table`` in order of creation, newest first unless ``order`` is ``asc``.

    Args:
        owner: whose rows: they also bind the cursor, so that a foreign id tells nothing.
        where: which of them; the cursor itself need not fit, so that a list goes on after an
            object that was deleted meanwhile.
        after: id of the last object of the page before.
        limit: most rows; with 0 the page is empty and says whether there are any.

    Raises:
        ApiError: 400, ``after`` is no id of this list.
    """
    query = select(table).where(*owner, *where)
    if after is not None:
        cursor = session.scalar(select(table.seq).where(*owner, table.id == after))
        if cursor is None:
            raise ApiError(
                400, f"No object with id '{after[:100]}' to list after.", param="after",
                code="invalid_value",
            )  # fmt: skip
        query = query.where(table.seq > cursor if order == "asc" else table.seq < cursor)
    query = query.order_by(table.seq.asc() if order == "asc" else table.seq.desc())
    rows = session.scalars(query.limit(limit + 1)).all()
    return Page(rows[:limit], len(rows) > limit)
