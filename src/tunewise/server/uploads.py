"""``/v1/uploads``: a large file in parts, joined in the order that its sender gives."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewise.digests import DamagedError
from tunewise.server.access import Caller, CallerDep
from tunewise.server.blobs import CHUNK, Incoming, Received
from tunewise.server.clock import surely
from tunewise.server.database import now, reading, writing
from tunewise.server.errors import ApiError
from tunewise.server.file_store import add_file, display_name, file_object, find_file
from tunewise.server.files import MONTH, Expiry, check_content, checked_purpose
from tunewise.server.forms import read_form
from tunewise.server.idempotency import idempotent
from tunewise.server.ids import new_id
from tunewise.server.state import ServerState, StateDep
from tunewise.server.tables import Upload, UploadPart

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_MOST_PARTS = 10_000


class CreateUpload(BaseModel):
    """Body of ``POST /v1/uploads``. ``bytes`` is the size of the whole file."""

    filename: str = Field(min_length=1, max_length=4096)
    purpose: str
    bytes: int = Field(ge=0)
    mime_type: str = Field(min_length=1, max_length=255)
    expires_after: Expiry | None = None


class CompleteUpload(BaseModel):
    """Body of ``POST /v1/uploads/{id}/complete``. ``md5`` is of the whole file, hex."""

    part_ids: list[Annotated[str, Field(max_length=128)]] = Field(
        min_length=1, max_length=_MOST_PARTS
    )
    md5: str | None = None


@router.post("")
def create(body: CreateUpload, request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Announce a file that will come in parts."""
    purpose = checked_purpose(body.purpose)
    most = state.settings.max_upload_bytes
    if body.bytes > most:
        raise ApiError(
            400, f"The file is larger than the {most:,} bytes that this server takes.",
            param="bytes", code="file_too_large",
        )  # fmt: skip
    expires_after = body.expires_after.seconds if body.expires_after else None
    if expires_after is None and purpose == "batch":
        expires_after = MONTH
    created = now()
    with writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            upload = Upload(
                id=new_id("upload_"),
                project=caller.project,
                created_at=created,
                filename=display_name(body.filename),
                purpose=purpose,
                mime_type=body.mime_type,
                bytes=body.bytes,
                expires_at=created + state.settings.upload_seconds,
                expires_after=expires_after,
            )
            session.add(upload)
            session.flush()
            return _upload_object(session, upload)

        return idempotent(session, caller, request, make)


@router.post("/{upload_id}/parts")
async def add_part(
    upload_id: str, request: Request, state: StateDep, caller: CallerDep
) -> Response:
    """Store one part; parts may come at the same time and in any order."""
    await run_in_threadpool(_check_pending, state, caller, upload_id)
    with state.blobs.receive() as incoming:
        await read_form(request, "data", incoming, state.settings.max_part_bytes)
        received = await state.pools.files.run(caller, incoming.finish)
        return await state.pools.files.run(
            caller, _store_part, request, state, caller, upload_id, received
        )


def _check_pending(state: ServerState, caller: Caller, upload_id: str) -> None:
    with reading(state.sessions) as session:
        _pending(session, caller, upload_id)


def _store_part(
    request: Request, state: ServerState, caller: Caller, upload_id: str, received: Received
) -> Response:
    with writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            upload = _pending(session, caller, upload_id)
            parts = session.scalars(
                select(UploadPart.bytes).where(UploadPart.upload_id == upload_id)
            ).all()
            # Parts that were sent twice may be left out in the end, so twice the size may come.
            if sum(parts) + received.bytes > 2 * upload.bytes or len(parts) >= _MOST_PARTS:
                raise ApiError(
                    400,
                    f"The parts hold far more than the {upload.bytes:,} bytes that the upload "
                    "announced.",
                    param="data",
                )
            part = UploadPart(
                id=new_id("part_"),
                project=caller.project,
                created_at=now(),
                upload_id=upload_id,
                bytes=received.bytes,
                blob=state.blobs.store(received),
            )
            session.add(part)
            session.flush()
            return {
                "id": part.id,
                "object": "upload.part",
                "created_at": part.created_at,
                "upload_id": upload_id,
            }

        return idempotent(session, caller, request, make, asked=received.sha256)


@router.post("/{upload_id}/complete")
async def complete(
    upload_id: str, body: CompleteUpload, state: StateDep, caller: CallerDep
) -> dict[str, Any]:
    """Join the parts in the order given and make a file of them.

    Completing once more with the same parts gives the same answer, so that a client whose
    connection broke may simply ask again.
    """
    return await state.pools.files.run(caller, _join_parts, upload_id, body, state, caller)


def _join_parts(
    upload_id: str, body: CompleteUpload, state: ServerState, caller: Caller
) -> dict[str, Any]:
    with reading(state.sessions) as session:
        done = _completed(session, caller, upload_id, body)
        if done is not None:
            return done
        parts = _parts(session, _pending(session, caller, upload_id), body.part_ids)
    with state.blobs.receive() as incoming:
        _join(state, incoming, parts)
        received = incoming.finish()
        if body.md5 is not None and body.md5.lower() != received.md5:
            raise ApiError(
                400,
                f"The md5 of the joined parts is {received.md5}, not {body.md5[:64]}: a part is "
                "damaged, missing or in another place.",
                param="md5",
                code="checksum_mismatch",
            )
        with reading(state.sessions) as session:
            purpose = _pending(session, caller, upload_id).purpose
        check_content(received.path, purpose)
        with writing(state.sessions) as session:
            done = _completed(session, caller, upload_id, body)
            if done is not None:
                return done
            upload = _pending(session, caller, upload_id)
            file = add_file(
                session,
                state.blobs,
                received,
                project=caller.project,
                filename=upload.filename,
                purpose=upload.purpose,
                expires_after=upload.expires_after,
            )
            upload.status, upload.file_id, upload.part_ids = "completed", file.id, body.part_ids
            answer = _upload_object(session, upload)
    drop_parts(state, upload_id)
    return answer


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Give an upload up; its parts are removed."""
    with writing(state.sessions) as session:
        upload = _pending(session, caller, upload_id)
        upload.status = "cancelled"
        answer = _upload_object(session, upload)
    drop_parts(state, upload_id)
    return answer


def drop_parts(state: ServerState, upload_id: str) -> None:
    """Remove the parts of an upload that has ended."""
    with writing(state.sessions) as session:
        parts = session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id)).all()
        digests = {part.blob for part in parts}
        for part in parts:
            session.delete(part)
    state.blobs.collect(digests)


def _find(session: Session, caller: Caller, upload_id: str) -> Upload:
    upload = session.scalar(
        select(Upload).where(Upload.project == caller.project, Upload.id == upload_id)
    )
    if upload is None:
        raise ApiError(
            404, f"No such Upload object: {upload_id[:100]}", param="upload_id",
            code="upload_not_found",
        )  # fmt: skip
    return upload


def _pending(session: Session, caller: Caller, upload_id: str) -> Upload:
    upload = _find(session, caller, upload_id)
    status = _status(upload)
    if status != "pending":
        raise ApiError(
            400, f"The upload {upload.id} is {status}; only a pending one can be changed.",
            param="upload_id", code=f"upload_{status}",
        )  # fmt: skip
    return upload


def _completed(
    session: Session, caller: Caller, upload_id: str, body: CompleteUpload
) -> dict[str, Any] | None:
    upload = _find(session, caller, upload_id)
    if upload.status == "completed" and upload.part_ids == body.part_ids:
        return _upload_object(session, upload)
    return None


def _parts(session: Session, upload: Upload, part_ids: list[str]) -> list[UploadPart]:
    if len(set(part_ids)) < len(part_ids):
        raise ApiError(400, "A part is named twice.", param="part_ids", code="invalid_value")
    rows = session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id)).all()
    known = {part.id: part for part in rows}
    for place, part_id in enumerate(part_ids):
        if part_id not in known:
            raise ApiError(
                400,
                f"The upload {upload.id} has no part '{part_id[:100]}'.",
                param=f"part_ids[{place}]",
                code="part_not_found",
            )
    parts = [known[part_id] for part_id in part_ids]
    total = sum(part.bytes for part in parts)
    if total != upload.bytes:
        raise ApiError(
            400,
            f"The parts hold {total:,} bytes, but the upload announced {upload.bytes:,}.",
            param="part_ids",
            code="byte_count_mismatch",
        )
    return parts


def _join(state: ServerState, target: Incoming, parts: list[UploadPart]) -> None:
    for part in parts:
        try:
            with state.blobs.verified(part.blob).open("rb") as source:
                while data := source.read(CHUNK):
                    target.write(data)
        except (FileNotFoundError, DamagedError):
            if state.blobs.path(part.blob).exists():
                raise
            raise ApiError(
                400, "The upload was completed, cancelled or expired meanwhile.",
                param="upload_id", code="upload_expired",
            ) from None  # fmt: skip


def _status(upload: Upload) -> str:
    return (
        "expired" if upload.status == "pending" and upload.expires_at <= surely() else upload.status
    )


def _upload_object(session: Session, upload: Upload) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "object": "upload",
        "id": upload.id,
        "bytes": upload.bytes,
        "created_at": upload.created_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": _status(upload),
        "expires_at": upload.expires_at,
    }
    if upload.file_id is not None:
        shown["file"] = file_object(find_file(session, upload.project, upload.file_id))
    return shown
