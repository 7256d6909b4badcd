"""``/openai/v1/…`` and ``/api/projects/{project}/openai/v1/…``: OpenAI's own shapes, at Azure.

All of ``/v1``, with what Azure adds: files by URL, deletion of jobs, copies of checkpoints, and
``trainingType``.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tunewise.server import files, graders_api, models_api, uploads
from tunewise.server.access import CallerDep
from tunewise.server.azure import copies
from tunewise.server.azure.classic import delete_job
from tunewise.server.azure.imports import import_file
from tunewise.server.azure.training import AzureJob, create_job
from tunewise.server.azure.versions import refuse_version
from tunewise.server.batches import api as batches_api
from tunewise.server.chat import chat, completions, embeddings, responses
from tunewise.server.database import writing
from tunewise.server.idempotency import idempotent
from tunewise.server.jobs import api as jobs_api
from tunewise.server.jobs.schema import job_object
from tunewise.server.state import StateDep

_own = APIRouter(prefix="/v1", tags=["azure"])
_own.add_api_route("/files/import", import_file, methods=["POST"], status_code=201)
_own.add_api_route("/fine_tuning/jobs/{job_id}", delete_job, methods=["DELETE"], status_code=204)
_own.add_api_route(copies.PATH, copies.create, methods=["POST"])
_own.add_api_route(copies.PATH, copies.show, methods=["GET"])


@_own.post("/fine_tuning/jobs")
def create_azure_job(
    asked: AzureJob, request: Request, state: StateDep, caller: CallerDep
) -> Response:
    """Make a job from a file that was uploaded."""
    with jobs_api.answering(), writing(state.sessions) as session:

        def make() -> dict[str, Any]:
            job = create_job(session, state.settings, caller.project, asked)
            return job_object(job, state.settings.organization)

        answer = idempotent(session, caller, request, make)
    state.jobs.wake()
    return answer


_all = APIRouter(dependencies=[Depends(refuse_version)])
for _router in (
    _own,  # first: of two routes with the same path, the first one is taken
    files.router,
    uploads.router,
    batches_api.routes,
    models_api.router,
    jobs_api.router,
    graders_api.router,
    chat.router,
    completions.router,
    embeddings.router,
    responses.router,
):
    _all.include_router(_router)

router = APIRouter()
router.include_router(_all, prefix="/openai")
router.include_router(_all, prefix="/api/projects/{azure_project}/openai")
