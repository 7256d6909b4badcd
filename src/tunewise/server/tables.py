"""What the server remembers of projects, keys, files, uploads and repeated requests."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tunewise.server.database import Base, Listed, now


class Project(Base):
    """Owns files, models, jobs and chats; another project's key sees none of them."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class ApiKey(Base):
    """A key, known by the SHA-256 of its secret only.

    Attributes:
        id: the part of the key that is shown in lists; finds the row.
        digest: SHA-256 (hex) of the whole key, which holds 256 random bits: nothing to guess, so
            no slow hash is needed.
        requests_per_minute: its rate limit; None for none.
        requests, prompt_tokens, completion_tokens: used so far.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    project: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str] = mapped_column(String(64), default="")
    admin: Mapped[bool] = mapped_column(default=False)
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)


class File(Listed, Base):
    """A file of a project; its bytes lie in the blob store under their hash.

    Attributes:
        filename: as the user named it; shown, never used as a path.
        blob: SHA-256 (hex) of the content.
        deleted_at: the row stays, without name, so that a list can go on after a deleted file.
    """

    __tablename__ = "files"

    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    blob: Mapped[str] = mapped_column(String(64), index=True)
    status: Mapped[str] = mapped_column(String(16), default="processed")
    expires_at: Mapped[int | None] = mapped_column(BigInteger, index=True)
    deleted_at: Mapped[int | None] = mapped_column(BigInteger)


class Upload(Listed, Base):
    """A file that arrives in parts.

    Attributes:
        status: ``pending``, ``completed``, ``cancelled``; expiry follows from ``expires_at``.
        expires_after: seconds that the finished file is kept; None for good.
        part_ids: the order in which the parts were joined, once completed.
    """

    __tablename__ = "uploads"

    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(String(32))
    mime_type: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
    expires_after: Mapped[int | None] = mapped_column(Integer)
    part_ids: Mapped[list[str] | None] = mapped_column(JSON)
    file_id: Mapped[str | None] = mapped_column(String(128))


class UploadPart(Listed, Base):
    """One part of an upload; its bytes lie in the blob store until the upload ends."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    blob: Mapped[str] = mapped_column(String(64), index=True)


class StoredAnswer(Base):
    """The answer to a request with an ``Idempotency-Key``, given again for a day.

    Attributes:
        fingerprint: SHA-256 (hex) of what the request asked for.
    """

    __tablename__ = "stored_answers"
    __table_args__ = (
        UniqueConstraint("project", "key"),
        Index("stored_answers_age", "created_at"),
    )

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    project: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
