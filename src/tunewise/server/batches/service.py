"""What can be done with batches, for one project."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller
from tunewise.server.batches.tables import Batch
from tunewise.server.database import now
from tunewise.server.errors import ApiError
from tunewise.server.file_store import find_file
from tunewise.server.files import MONTH, Expiry
from tunewise.server.ids import new_id
from tunewise.server.settings import ServerSettings

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
ACTIVE = ("validating", "in_progress", "cancelling")
WINDOW_SECONDS = 24 * 3600

Label = Annotated[str, StringConstraints(max_length=64)]
LabelValue = Annotated[str, StringConstraints(max_length=512)]


class CreateBatch(BaseModel):
    """The body of ``POST /v1/batches``."""

    model_config = ConfigDict(frozen=True)

    input_file_id: str = Field(max_length=128)
    endpoint: str = Field(max_length=64)
    completion_window: Literal["24h"]
    metadata: dict[Label, LabelValue] | None = Field(None, max_length=16)
    output_expires_after: Expiry | None = None


def create(session: Session, settings: ServerSettings, caller: Caller, asked: CreateBatch) -> Batch:
    """Make a batch; the runner checks its file next. Inside ``database.writing``.

    Raises:
        ApiError: 400, the endpoint is none of batches or the file was uploaded for something else;
            404, there is no such file; 429, too many batches of the project are not over.
    """
    if asked.endpoint not in ENDPOINTS:
        raise ApiError(
            400,
            f"'{asked.endpoint}' is no endpoint of batches here. There is: {', '.join(ENDPOINTS)}.",
            param="endpoint",
            code="invalid_value",
        )
    file = find_file(session, caller.project, asked.input_file_id, param="input_file_id")
    if file.purpose != "batch":
        raise ApiError(
            400,
            f"The file {file.id} was uploaded for '{file.purpose}'; upload it with the purpose "
            "'batch'.",
            param="input_file_id",
            code="invalid_file",
        )
    waiting = select(func.count()).where(Batch.project == caller.project, Batch.status.in_(ACTIVE))
    if (session.scalar(waiting) or 0) >= settings.max_batches:
        raise ApiError(
            429,
            f"{settings.max_batches} batches of this project are not over yet. Wait for one, or "
            "cancel one.",
            type="requests",
            code="too_many_batches",
            headers={"Retry-After": "60"},
        )
    created = now()
    batch = Batch(
        id=new_id("batch_", 32),
        project=caller.project,
        created_at=created,
        key_id=caller.key_id,
        endpoint=asked.endpoint,
        input_file=file.id,
        labels=asked.metadata,
        output_seconds=asked.output_expires_after.seconds if asked.output_expires_after else MONTH,
        expires_at=created + WINDOW_SECONDS,
        times={},
    )
    session.add(batch)
    session.flush()
    return batch


def find(session: Session, project: str, batch_id: str) -> Batch:
    """The project's batch with this id.

    Raises:
        ApiError: 404.
    """
    batch = session.scalar(select(Batch).where(Batch.project == project, Batch.id == batch_id))
    if batch is None:
        raise ApiError(
            404, f"No batch found with id '{batch_id[:100]}'.", param="batch_id",
            code="batch_not_found",
        )  # fmt: skip
    return batch


def cancel(session: Session, project: str, batch_id: str) -> Batch:
    """Let a batch end after the requests that are being answered; what is answered is kept.

    A cancelled batch stays as it is: a client whose connection broke simply asks again.

    Raises:
        ApiError: 404, or 409 where it is over.
    """
    batch = find(session, project, batch_id)
    if batch.status in ("cancelling", "cancelled"):
        return batch
    if batch.status not in ACTIVE:
        raise ApiError(
            409, f"The batch {batch.id} is {batch.status} and cannot be cancelled.",
            param="batch_id", code="invalid_status",
        )  # fmt: skip
    move(batch, "cancelling")
    return batch


def move(batch: Batch, status: str) -> None:
    """Give a batch its next status, and keep the time."""
    batch.status = status
    batch.times = {**batch.times, f"{status}_at": now()}


def file_user(session: Session, file_id: str) -> str | None:
    """Which batch still needs a file; for ``ServerState.file_users``."""
    batch = session.scalar(
        select(Batch.id).where(Batch.input_file == file_id, Batch.status.in_(ACTIVE)).limit(1)
    )
    return None if batch is None else f"The batch {batch}"


_TIMES = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
          "cancelling_at", "cancelled_at")  # fmt: skip


def batch_object(batch: Batch) -> dict[str, Any]:
    """A batch as the API gives it."""
    errors = None if batch.errors is None else {"object": "list", "data": batch.errors}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": errors,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        **{name: batch.times.get(name) for name in _TIMES},
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": batch.usage,
        "metadata": batch.labels,
    }
