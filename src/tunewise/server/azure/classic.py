"""``/openai/...?api-version=``: files, uploads, jobs and models as Azure has had them since 2023.

What is made is answered with 201 and its ``Location``, what is deleted with 204.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from tunewise.server import files, uploads
from tunewise.server.access import CallerDep
from tunewise.server.azure import copies, names, objects
from tunewise.server.azure.imports import FileImport, import_file
from tunewise.server.azure.training import AzureJob, create_job
from tunewise.server.azure.versions import require_version
from tunewise.server.chat import responses
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError, as_api_error
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs import service
from tunewise.server.jobs.api import After, Limit, answering
from tunewise.server.jobs.resolve import remove, resolve, visible
from tunewise.server.jobs.tables import Job, JobEvent, TunedModel
from tunewise.server.jobs.training_files import TrainingFileError
from tunewise.server.paging import page
from tunewise.server.state import ServerState, StateDep

router = APIRouter(prefix="/openai", tags=["azure"], dependencies=[Depends(require_version)])

router.add_api_route("/files", files.list_files, methods=["GET"])
router.add_api_route("/files/{file_id}", files.retrieve, methods=["GET"])
router.add_api_route("/files/{file_id}/content", files.content, methods=["GET"])
for _route in (*uploads.router.routes, *responses.router.routes):
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


@router.get("/fine_tuning/jobs")
def list_jobs(
    state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """The project's jobs, newest first."""
    with reading(state.sessions) as session:
        found = page(
            session,
            Job,
            owner=[Job.project == caller.project],
            where=[Job.deleted_at.is_(None)],
            after=after,
            limit=limit,
        )
    return found.as_list(lambda job: objects.job_object(job, state.settings.organization))


@router.get("/fine_tuning/jobs/{job_id}")
def retrieve(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One job."""
    with answering(), reading(state.sessions) as session:
        job = service.find(session, caller.project, job_id)
    return objects.job_object(job, state.settings.organization)


@router.delete("/fine_tuning/jobs/{job_id}", status_code=204)
def delete_job(job_id: str, state: StateDep, caller: CallerDep) -> Response:
    """Forget a job that is over; its models stay."""
    with answering(), writing(state.sessions) as session:
        service.delete(session, caller.project, job_id)
    return Response(status_code=204)


@router.post("/fine_tuning/jobs/{job_id}/cancel")
def cancel(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """End a job for good."""
    return _change(state, caller.project, job_id, service.cancel)


@router.post("/fine_tuning/jobs/{job_id}/pause")
def pause(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Let a job make a checkpoint and stop."""
    return _change(state, caller.project, job_id, service.pause)


@router.post("/fine_tuning/jobs/{job_id}/resume")
def resume(job_id: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Let a paused job go on."""
    return _change(state, caller.project, job_id, service.resume)


@router.get("/fine_tuning/jobs/{job_id}/events")
def list_events(
    job_id: str, state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """What happened to a job, newest first."""
    with answering(), reading(state.sessions) as session:
        job = service.find(session, caller.project, job_id)
        owner = [JobEvent.job_id == job.id]
        found = page(session, JobEvent, owner=owner, after=after, limit=limit)
    return found.as_list(
        lambda event: objects.event_object(event, job, state.settings.organization)
    )


@router.get("/fine_tuning/jobs/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, state: StateDep, caller: CallerDep, after: After = None, limit: Limit = 10
) -> dict[str, Any]:
    """The weights after each of the last epochs, newest first."""
    with answering(), reading(state.sessions) as session:
        job = service.find(session, caller.project, job_id)
        found = page(
            session,
            TunedModel,
            owner=[TunedModel.job_id == job.id, TunedModel.step.is_not(None)],
            where=[TunedModel.deleted_at.is_(None)],
            after=None if after is None else names.our_checkpoint_id(after),
            limit=limit,
        )
    return found.as_list(lambda model: objects.checkpoint_object(model, job))


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
    with writing(state.sessions) as session:
        tuned = names.tuned_model(session, model)
        folder = remove(session, caller, tuned.name if tuned else model)
    shutil.rmtree(folder, ignore_errors=True)
    return Response(status_code=204)


@contextmanager
def _rows_checked(param: str) -> Iterator[None]:
    """Let rows that are wrong have an error of their own, as at Azure."""
    try:
        yield
    except TrainingFileError as error:
        text = as_api_error(error).message
        raise ApiError(400, text, code="invalid_training_file", param=param) from None


def _change(
    state: ServerState, project: str, job_id: str, change: Callable[[Session, str, str], Job]
) -> dict[str, Any]:
    with answering(), writing(state.sessions) as session:
        job = change(session, project, job_id)
        shown = objects.job_object(job, state.settings.organization)
    state.jobs.wake()
    return shown


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
