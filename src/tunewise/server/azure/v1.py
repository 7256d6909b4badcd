"""``/openai/v1/…`` and ``/api/projects/{project}/openai/v1/…``: OpenAI's own shapes, at Azure.

All of ``/v1``, with Azure's names of models and what it adds: files by URL, deletion of jobs,
copies of checkpoints, and ``trainingType``.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tunewise.server import files, graders_api, uploads
from tunewise.server.access import CallerDep
from tunewise.server.azure import copies, objects
from tunewise.server.azure.classic import (
    delete_job,
    delete_tuned,
    list_models,
    retrieve_model,
)
from tunewise.server.azure.imports import import_file
from tunewise.server.azure.training import AzureJob, create_job
from tunewise.server.azure.versions import refuse_version
from tunewise.server.batches import api as batches_api
from tunewise.server.chat import chat, completions, embeddings, response_context, responses
from tunewise.server.database import writing
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs import api as jobs_api
from tunewise.server.jobs.routes import answering, job_routes
from tunewise.server.state import StateDep

_own = APIRouter(prefix="/v1", tags=["azure"])
_own.add_api_route("/files/import", import_file, methods=["POST"], status_code=201)
_own.add_api_route("/fine_tuning/jobs/{job_id}", delete_job, methods=["DELETE"], status_code=204)
_own.include_router(job_routes(objects.V1))
_own.add_api_route("/models", list_models, methods=["GET"])
_own.add_api_route("/models/{model:path}", retrieve_model, methods=["GET"])
_own.add_api_route(copies.PATH, copies.create, methods=["POST"])
_own.add_api_route(copies.PATH, copies.show, methods=["GET"])


@_own.post("/fine_tuning/jobs")
def create_azure_job(
    asked: AzureJob, request: Request, state: StateDep, caller: CallerDep
) -> Response:
    """Make a job from a file that was uploaded."""
    with answering(), writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            job = create_job(session, state.settings, caller.project, asked)
            return objects.v1_job_object(job, state.settings.organization)

        answer = idempotent(session, caller, request, make)
    state.jobs.wake()
    return answer


@_own.delete("/models/{model:path}")
def delete_model(model: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a fine-tuned model of the project, and its weights."""
    delete_tuned(model, state, caller)
    return {"id": model, "object": "model", "deleted": True}


_all = APIRouter(dependencies=[Depends(refuse_version)])
for _router in (
    _own,  # first: of two routes with the same path, the first one is taken
    files.router,
    uploads.router,
    batches_api.routes,
    jobs_api.others,
    graders_api.router,
    chat.router,
    completions.router,
    embeddings.router,
    responses.router,
    response_context.router,
):
    _all.include_router(_router)

router = APIRouter()
router.include_router(_all, prefix="/openai")
router.include_router(_all, prefix="/api/projects/{azure_project}/openai")
