"""Files, uploads, fine-tuning and models, asked in every way OpenAI's own description allows.

Chats and graders have contract tests of their own, with bodies that fit them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import strategies as st
from openai import OpenAI
from schemathesis.core.transport import Response

from contract_support import description, load, tried
from server_support import Running, call, chats, client, running_server
from tunewise.server.app import create_app
from tunewise.server.settings import load_settings

MODEL = "gpt-4o-mini-2024-07-18"
CASES, SOAK_CASES = 8, 250
OPERATIONS = {
    "GET /files": 3,
    "POST /files": 2,
    "GET /files/{file_id}": 2,
    "GET /files/{file_id}/content": 2,
    "DELETE /files/{file_id}": 2,
    "POST /uploads": 2,
    "POST /uploads/{upload_id}/parts": 2,
    "POST /uploads/{upload_id}/complete": 1,
    "POST /uploads/{upload_id}/cancel": 2,
    "GET /fine_tuning/jobs": 3,
    "POST /fine_tuning/jobs": 2,
    "GET /fine_tuning/jobs/{fine_tuning_job_id}": 2,
    "GET /fine_tuning/jobs/{fine_tuning_job_id}/events": 2,
    "GET /fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": 2,
    "POST /fine_tuning/jobs/{fine_tuning_job_id}/pause": 2,
    "POST /fine_tuning/jobs/{fine_tuning_job_id}/resume": 2,
    "POST /fine_tuning/jobs/{fine_tuning_job_id}/cancel": 2,
    "POST /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions": 2,
    "GET /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions": 2,
    "DELETE /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}": 1,
    "GET /models": 3,
    "GET /models/{model}": 2,
    "DELETE /models/{model}": 1,
}
"""What is asked, the deletion of models last, and how many of its cases must be answered with 200:
a request that finds nothing proves little."""


class Objects:
    """Real things of every kind, so that generated requests meet more than 404."""

    def __init__(self, api: OpenAI, running: Running) -> None:
        self._api = api
        self._running = running
        self.file = self.new_file()
        self.tuned = self._finished_job()
        listed = api.fine_tuning.jobs.checkpoints.list(self.tuned.id).data
        *last, self.checkpoint = (c.fine_tuned_model_checkpoint for c in listed)
        self._models = [str(self.tuned.fine_tuned_model), *reversed(last)]
        self._busy: tuple[str, int] | None = None
        self._busy = self._stopped_job()

    def _finished_job(self) -> Any:
        job = self._api.fine_tuning.jobs.create(
            model=MODEL, training_file=self.file, seed=1,
            hyperparameters={"n_epochs": 3, "batch_size": 1},
        )  # fmt: skip
        return self._until(job.id, "succeeded")

    def _stopped_job(self) -> tuple[str, int]:
        """The only worker is stopped in its job, so that jobs made from now on wait for it."""
        job = self.new_job()
        self._until(job, "running")
        lock = self._running.home / "jobs" / job / "worker.lock"
        while not lock.exists() or not lock.read_text():
            time.sleep(0.02)
        os.kill(pid := int(lock.read_text()), signal.SIGSTOP)
        return job, pid

    def _until(self, job_id: str, status: str) -> Any:
        deadline = time.monotonic() + 120
        while (job := self._api.fine_tuning.jobs.retrieve(job_id)).status != status:
            assert time.monotonic() < deadline and job.status not in ("failed", "cancelled"), job
            time.sleep(0.05)
        return job

    def close(self) -> None:
        """End the stopped worker, which the server would wait for."""
        assert self._busy is not None
        job, pid = self._busy
        with suppress(openai.BadRequestError):  # it took so long that another worker ended the job
            self._api.fine_tuning.jobs.cancel(job)
        with suppress(ProcessLookupError):  # the server was quicker
            os.kill(pid, signal.SIGKILL)

    def new_file(self) -> str:
        return self._api.files.create(file=("rows.jsonl", chats(10)), purpose="fine-tune").id

    def new_job(self) -> str:
        """A job that waits."""
        job = self._api.fine_tuning.jobs.create(
            model=MODEL, training_file=self.file, metadata={"team": "recipes"},
            hyperparameters={"n_epochs": 50, "batch_size": 1},
        )  # fmt: skip
        if self._busy is not None:
            self._until(job.id, "queued")
        return job.id

    def new_paused_job(self) -> str:
        return self._api.fine_tuning.jobs.pause(self.new_job()).id

    def new_upload(self) -> str:
        return self._api.uploads.create(
            filename="rows.jsonl", purpose="fine-tune", bytes=len(chats(10)), mime_type="text/jsonl"
        ).id

    def new_part(self, upload: str) -> str:
        return self._api.uploads.parts.create(upload, data=chats(10)).id

    def new_permission(self) -> str:
        made = self._api.fine_tuning.checkpoints.permissions.create(
            self.checkpoint, project_ids=[self.project()]
        )
        return made.data[0].id

    def project(self) -> str:
        """Some project's id."""
        return self._api.admin.organization.projects.list().data[0].id

    def model_to_delete(self) -> str:
        return self._models.pop() if self._models else "none"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("contract")
    options = {"max_queued_jobs": 100_000, "worker_threads": 1}
    with running_server(home, models={MODEL: "tunewise/tiny"}, **options) as running:
        yield running


@pytest.fixture(scope="module")
def objects(server: Running) -> Iterator[Objects]:
    with client(server) as api:
        made = Objects(api, server)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def document(shared: Path) -> Any:
    return load(shared)


def fits(operation: str, objects: Objects) -> Callable[[Any, Any], None]:
    """A change of generated cases: most name things that are there, the others what they like."""
    method = operation.partition(" ")[0]
    parameters: Mapping[str, Callable[[], str]] = {
        "file_id": objects.new_file if method == "DELETE" else lambda: objects.file,
        "upload_id": objects.new_upload,
        "fine_tuning_job_id": {
            "pause": objects.new_job,
            "resume": objects.new_paused_job,
            "cancel": objects.new_job,
        }.get(operation.rpartition("/")[2], lambda: objects.tuned.id),
        "fine_tuned_model_checkpoint": lambda: objects.checkpoint,
        "permission_id": objects.new_permission,
        "model": objects.model_to_delete if method == "DELETE" else lambda: objects.checkpoint,
    }

    def change(case: Any, draw: Any) -> None:
        known = draw(st.sampled_from((True, True, False)))
        if not known:
            return
        for name in case.path_parameters or {}:
            case.path_parameters[name] = parameters[name]()
        if case.query:
            if "limit" in case.query:
                case.query["limit"] = draw(st.integers(1, 100))
            case.query.pop("after", None)
        if isinstance(case.body, dict):
            case.body = _possible(operation, dict(case.body), case.path_parameters or {}, objects)

    return change


def _possible(
    operation: str, body: dict[str, Any], path: Mapping[str, str], objects: Objects
) -> dict[str, Any]:
    """A generated body whose ids are those of things that are there."""
    if operation == "POST /fine_tuning/jobs":
        body |= {"model": MODEL, "training_file": objects.file}
        for name in ("validation_file", "method", "hyperparameters"):
            body.pop(name, None)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", body.get("suffix") or "x", re.ASCII):
            body["suffix"] = "sums"
    elif operation == "POST /files":
        body["file"] = chats(10)
        body.pop("expires_after", None)
    elif operation == "POST /uploads":
        body |= {"bytes": max(1, body["bytes"] % 10**9), "filename": "a" + body["filename"][:99]}
        body |= {"mime_type": "text/jsonl"}
    elif operation.endswith("/parts"):
        body["data"] = chats(10)
    elif operation.endswith("/complete"):
        body["part_ids"] = [objects.new_part(path["upload_id"])]
        body.pop("md5", None)
    elif operation.endswith("/permissions"):
        body["project_ids"] = [objects.project()]
    return body


@pytest.mark.parametrize("operation", OPERATIONS)
def test_requests_made_from_the_description_keep_the_contract(
    document: Any, server: Running, objects: Objects, operation: str
) -> None:
    method, path = operation.split(" ")
    seen = tried(document[path][method], server, CASES, fits(operation, objects))
    assert seen[200] >= OPERATIONS[operation], f"too few were answered to prove anything: {seen}"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_many_requests_keep_the_contract(
    document: Any, server: Running, objects: Objects, operation: str
) -> None:
    method, path = operation.split(" ")
    tried(document[path][method], server, SOAK_CASES, fits(operation, objects))


def test_every_list_and_object_of_a_finished_job_is_as_described(
    document: Any, server: Running, objects: Objects
) -> None:
    """The answers that generated requests seldom meet: full lists, second pages, results."""
    job = objects.tuned
    for path, shown in (
        ("/fine_tuning/jobs/{fine_tuning_job_id}", job.id),
        ("/fine_tuning/jobs/{fine_tuning_job_id}/events", f"{job.id}/events?limit=5"),
        ("/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", f"{job.id}/checkpoints?limit=1"),
        ("/files", "?purpose=fine-tune-results"),
        ("/files", "?limit=1"),
        ("/files/{file_id}", job.result_files[0]),
        ("/models", ""),
        ("/models/{model}", MODEL),
    ):
        answer = call(server, "GET", "/v1" + path.partition("{")[0] + shown)
        assert answer.status_code == 200, answer.text
        document[path]["GET"].validate_response(Response.from_any(answer))


def test_all_that_the_description_has_is_served_under_the_same_name(
    shared: Path, tmp_path: Path
) -> None:
    theirs = json.loads(description(shared).read_text("utf-8"))
    ours = create_app(load_settings(None, {"home": tmp_path / "server"})).openapi()
    served = {
        (method, _anonymous(path.removeprefix("/v1"))): operation
        for path, operations in ours["paths"].items()
        if path.startswith("/v1/")
        for method, operation in operations.items()
    }
    for path, operations in theirs["paths"].items():
        for method in operations.keys() & {"get", "post", "delete", "put", "patch"}:
            operation = served.get((method, _anonymous(path)))
            assert operation is not None, f"{method.upper()} {path} is not served"
            missing = _query(operations[method]) - _query(operation) - {"metadata"}
            assert not missing, f"{method.upper()} {path} does not know {missing}"


def _anonymous(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def _query(operation: Mapping[str, Any]) -> set[str]:
    """Names of an operation's query parameters; ``metadata[key]`` is read from the raw query."""
    return {p["name"] for p in operation.get("parameters", ()) if p.get("in") == "query"}
