"""What the server remembers of batches; answers so far lie in the batch's folder."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from tunewise.server.database import Base, Listed


class Batch(Listed, Base):
    """A file of requests to one endpoint.

    Attributes:
        status: OpenAI's words; ``validating``, ``in_progress`` and ``cancelling`` are those that
            the runner still has to do with.
        key_id: of the key that made it, whose account the tokens go to.
        labels: the API's ``metadata``.
        output_seconds: that the files of answers are kept.
        total, completed, failed: requests; the last two as of some moments ago while it runs.
        times: the API's ``…_at`` fields that are known, by name.
        errors: what is wrong with the file of requests, as the API shows it.
        usage: tokens, as the API shows them.
    """

    __tablename__ = "batches"
    __table_args__ = (Index("batches_status", "status"),)

    status: Mapped[str] = mapped_column(String(16), default="validating")
    key_id: Mapped[str | None] = mapped_column(String(32))
    endpoint: Mapped[str] = mapped_column(String(64))
    input_file: Mapped[str] = mapped_column(String(128), index=True)
    output_file: Mapped[str | None] = mapped_column(String(128))
    error_file: Mapped[str | None] = mapped_column(String(128))
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    output_seconds: Mapped[int] = mapped_column(Integer)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(Integer, default=0)
    completed: Mapped[int] = mapped_column(Integer, default=0)
    failed: Mapped[int] = mapped_column(Integer, default=0)
    times: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    model: Mapped[str | None] = mapped_column(String(512))
