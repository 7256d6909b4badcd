"""``/openai/...?api-version=``: files, uploads, jobs and models as Azure has had them since 2023.

What is made is answered with 201 and its ``Location``, what is deleted with 204.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from tunewise.server import files, uploads
from tunewise.server.access import Caller, CallerDep
from tunewise.server.azure import copies, names, objects
from tunewise.server.azure.imports import FileImport, import_file
from tunewise.server.azure.training import AzureJob, create_job
from tunewise.server.azure.versions import require_version
from tunewise.server.chat import response_context, responses
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError, as_api_error
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs import service
from tunewise.server.jobs.resolve import remove, resolve, visible
from tunewise.server.jobs.routes import answering, job_routes
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.jobs.training_files import TrainingFileError
from tunewise.server.state import ServerState, StateDep

router = APIRouter(prefix="/openai", tags=["azure"], dependencies=[Depends(require_version)])

router.add_api_route("/files", files.list_files, methods=["GET"])
router.add_api_route("/files/{file_id}", files.retrieve, methods=["GET"])
router.add_api_route("/files/{file_id}/content", files.content, methods=["GET"])
for _route in (
    *uploads.router.routes,
    *responses.router.routes,
    *response_context.router.routes,
):
    assert isinstance(_route, APIRoute)
    router.add_api_route(
        _route.path.removeprefix("/v1"), _route.endpoint, methods=list(_route.methods or ())
    )


@router.post("/files", status_code=201)
async def create_file(request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Store an uploaded file."""
    with _rows_checked("file"):
        return _created(request, await files.create(request, state, caller))


@router.post("/files/import", status_code=201)
async def create_import(
    asked: FileImport, request: Request, state: StateDep, caller: CallerDep
) -> Response:
    """Store a file that the server fetches."""
    with _rows_checked("content_url"):
        return _created(request, await import_file(asked, request, state, caller))


@router.delete("/files/{file_id}", status_code=204)
def delete_file(file_id: str, state: StateDep, caller: CallerDep) -> Response:
    """Delete a file, unless something still needs it."""
    files.delete(file_id, state, caller)
    return Response(status_code=204)


@router.post("/fine_tuning/jobs", status_code=201)
def create(asked: AzureJob, request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Make a job from a file that was uploaded."""
    with answering(), writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            job = create_job(session, state.settings, caller.project, asked)
            return objects.job_object(job, state.settings.organization)

        answer = idempotent(session, caller, request, make, status=201)
    state.jobs.wake()
    return _created(request, answer)


@router.delete("/fine_tuning/jobs/{job_id}", status_code=204)
def delete_job(job_id: str, state: StateDep, caller: CallerDep) -> Response:
    """Forget a job that is over; its models stay."""
    with answering(), writing(state.sessions) as session:
        service.delete(session, caller.project, job_id)
    return Response(status_code=204)


router.include_router(job_routes(objects.CLASSIC))
router.add_api_route(copies.PATH, copies.create, methods=["POST"])
router.add_api_route(copies.PATH, copies.show, methods=["GET"])


@router.get("/models")
def list_models(state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """All models that the project may use."""
    with reading(state.sessions) as session:
        data = _models(session, state, [model.name for model in visible(session, caller)])
    return {"object": "list", "data": data}


@router.get("/models/{model:path}")
def retrieve_model(model: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One model, by its name here or at OpenAI."""
    with reading(state.sessions) as session:
        tuned = names.tuned_model(session, model)
        name = tuned.name if tuned else model
        if name not in {one.name for one in visible(session, caller)}:
            name = resolve(session, caller, model).name
        return _models(session, state, [name])[0]


@router.delete("/models/{model:path}", status_code=204)
def delete_model(model: str, state: StateDep, caller: CallerDep) -> Response:
    """Delete a fine-tuned model of the project that is not deployed, and its weights."""
    delete_tuned(model, state, caller)
    return Response(status_code=204)


def delete_tuned(model: str, state: ServerState, caller: Caller) -> None:
    """Delete a tuned model by its name here or at OpenAI."""
    with writing(state.sessions) as session:
        tuned = names.tuned_model(session, model)
        folder = remove(session, caller, tuned.name if tuned else model)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _rows_checked(param: str) -> Iterator[None]:
    """Let rows that are wrong have an error of their own, as at Azure."""
    try:
        yield
    except TrainingFileError as error:
        text = as_api_error(error).message
        raise ApiError(400, text, code="invalid_training_file", param=param) from None


def _models(session: Session, state: ServerState, wanted: list[str]) -> list[dict[str, Any]]:
    """Models by our names, in the same order; those without a row are base models."""
    rows = session.execute(
        select(TunedModel, Job)
        .join(Job, Job.id == TunedModel.job_id)
        .where(TunedModel.name.in_(wanted))
    )
    tuned = {row.name: (row, job) for row, job in rows}
    organization, shown = state.settings.organization, []
    for name in wanted:
        if name in tuned:
            row, job = tuned[name]
            azure = names.model_name(job, row.step)
            shown.append(objects.model_object(azure, row.created_at, organization, tuned=row))
        else:
            shown.append(objects.model_object(name, int(state.started), "system"))
    return shown


def _created(request: Request, answer: Response) -> Response:
    """The answer to a request that made something: where it is now."""
    path = request.url.path.removesuffix("/import")
    where = request.url.replace(
        path=f"{path}/{json.loads(bytes(answer.body))['id']}",
        query=f"api-version={request.query_params['api-version']}",
    )
    answer.status_code = 201
    answer.headers["Location"] = str(where)
    return answer
