"""A small, strict fine-tuning service on loopback, for what a healthy server never does.

It keeps OpenAI's wire shapes (or Azure's classic ones, with Resource Manager), remembers files and
jobs, refuses what the API documents do not know, and misbehaves as a test tells it to. The success
road is tested against the real server.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

KEY = "sk-stub-0123456789abcdef"
MANAGEMENT_TOKEN = "arm-token-0123456789abcdef"
CREATE_KEYS = {
    "model", "training_file", "validation_file", "suffix", "seed", "method", "hyperparameters",
    "integrations", "metadata",
}  # fmt: skip
CSV = (
    "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss\n"
    "1,2.5,0.25,-1,,\n2,1.5,0.5,2.25,0.4,2.0\n3,,0.5,,,\n"
)


class Trouble(NamedTuple):
    """How one request goes wrong.

    Attributes:
        done: whether what was asked is done all the same.
        status: of the answer; None closes the connection without one.
        error: of the envelope.
        seconds: until the answer.
    """

    done: bool = False
    status: int | None = None
    error: dict[str, Any] | None = None
    seconds: float = 0.0


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status = status
        self.error = {"message": message, "type": "error", "param": None, "code": code}


class Stub:
    """The service's state; a test reads and changes it."""

    def __init__(self, *, azure: bool = False) -> None:
        self.azure = azure
        self.prefix = "/openai" if azure else "/v1"
        self.url = ""
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.deployments: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.calls: list[str] = []
        self.trouble: dict[str, list[Trouble]] = defaultdict(list)
        self.wrong: list[str] = []
        self.hidden_lists = 0
        self.not_ready = 0
        self.lock = threading.RLock()

    def count(self, call: str) -> int:
        """How often ``POST /files`` or the like was asked."""
        return self.calls.count(call)

    def finish(self, job_id: str, *, as_base64: bool = False) -> None:
        """Let a job succeed, with a result file."""
        data = base64.b64encode(CSV.encode()) if as_base64 else CSV.encode()
        file = self._add_file("step_metrics.csv", "fine-tune-results", data)
        self.jobs[job_id] |= {
            "status": "succeeded",
            "finished_at": self.jobs[job_id]["created_at"] + 60,
            "fine_tuned_model": f"ft:{self.jobs[job_id]['model']}:acme::abc",
            "result_files": [file["id"]],
            "trained_tokens": 4321,
        }

    def tell(self, job_id: str, message: str, **data: Any) -> None:
        """Add an event."""
        number = len(self.events[job_id])
        self.events[job_id].append(
            {
                "object": "fine_tuning.job.event",
                "id": f"ftevent-{number:05d}",
                "created_at": 1_700_000_000 + number // 7,
                "level": "info",
                "message": message,
                "type": "metrics" if data else "message",
                "data": data,
            }
        )

    # --- the API ----------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: dict[str, str], body: bytes, kind: str
    ) -> tuple[int, Any]:
        """Do what is asked; status and JSON value (or bytes)."""
        made = 201 if self.azure else 200
        if path == "/files" and method == "POST":
            return made, self._upload(body, kind)
        if path == "/files" and method == "GET":
            wanted = query.get("purpose")
            found = [f for f in self.files.values() if wanted in (None, f["purpose"])]
            return 200, _list(found[::-1])
        if match := re.fullmatch(r"/files/([^/]+)(/content)?", path):
            return self._file(method, match[1], bool(match[2]))
        if path == "/fine_tuning/jobs" and method == "POST":
            return made, self._create(json.loads(body))
        if path == "/fine_tuning/jobs" and method == "GET":
            return 200, self._list_jobs(query)
        if match := re.fullmatch(r"/fine_tuning/jobs/([^/]+)(?:/(\w+))?", path):
            return self._job(method, match[1], match[2], query)
        if path.endswith("/chat/completions") and method == "POST":
            return self._chat(json.loads(body), path)
        raise KeyError(path)

    def _upload(self, body: bytes, kind: str) -> dict[str, Any]:
        boundary = re.search(r"boundary=([^;]+)", kind)
        assert boundary is not None
        purpose, name, data = None, None, b""
        for part in body.split(b"--" + boundary[1].encode())[1:-1]:
            head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            value = value.removesuffix(b"\r\n")
            if b'name="purpose"' in head:
                purpose = value.decode()
            elif found := re.search(rb'name="file"; filename="([^"]+)"', head):
                name, data = found[1].decode(), value
        if purpose != "fine-tune" or not name or not data:
            raise Refused(400, "a file and a purpose are wanted")
        for line in data.splitlines():
            assert isinstance(json.loads(line), dict)
        return self._add_file(name, purpose, data)

    def _add_file(self, name: str, purpose: str, data: bytes) -> dict[str, Any]:
        id = f"file-{len(self.contents):04d}"
        self.contents[id] = data
        self.files[id] = {
            "id": id, "object": "file", "bytes": len(data), "created_at": 1_700_000_000,
            "filename": name, "purpose": purpose,
            "status": "pending" if self.azure else "processed",
        }  # fmt: skip
        return dict(self.files[id])

    def _file(self, method: str, id: str, content: bool) -> tuple[int, Any]:
        if id not in self.files:
            raise Refused(404, f"No such File object: {id}")
        if content:
            return 200, self.contents[id]
        if method == "DELETE":
            del self.files[id]
            return (
                (204, None) if self.azure else (200, {"id": id, "object": "file", "deleted": True})
            )
        shown = dict(self.files[id])
        self.files[id]["status"] = "processed"  # the next time
        return 200, shown

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        known = CREATE_KEYS | ({"trainingType"} if self.azure else set())
        known -= {"metadata", "method"} if self.azure else set()
        if unknown := set(body) - known:
            raise Refused(400, f"unknown fields: {unknown}")
        for key in ("training_file", "validation_file"):
            if body.get(key) is not None and body[key] not in self.files:
                raise Refused(400, f"invalid {key}: {body[key]}")
        if self.azure and "trainingType" not in body:
            raise Refused(400, "The specified base model does not support fine-tuning.")
        self.bodies.append(body)
        id = f"ftjob-{len(self.jobs):04d}"
        method = body.get("method")
        self.jobs[id] = {
            "id": id, "object": "fine_tuning.job", "created_at": 1_700_000_000 + len(self.jobs),
            "finished_at": None, "model": body["model"], "fine_tuned_model": None,
            "organization_id": "acme", "status": "pending" if self.azure else "queued",
            "training_file": body["training_file"], "validation_file": body.get("validation_file"),
            "hyperparameters": body.get("hyperparameters")
            or (method or {}).get("supervised", {}).get("hyperparameters"),
            "method": method, "result_files": None if self.azure else [], "trained_tokens": None,
            "error": None, "seed": body.get("seed", 1), "metadata": body.get("metadata"),
        }  # fmt: skip
        self.tell(id, f"Created fine-tuning job: {id}")
        return self.jobs[id]

    def _list_jobs(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = {k[9:-1]: v for k, v in query.items() if k.startswith("metadata[")}
        found = [
            job
            for job in self.jobs.values()
            if all((job["metadata"] or {}).get(k) == v for k, v in wanted.items())
        ]
        if self.hidden_lists > 0:
            self.hidden_lists -= 1
            found = []
        return _page(found[::-1], query)

    def _job(
        self, method: str, id: str, what: str | None, query: dict[str, str]
    ) -> tuple[int, Any]:
        job = self.jobs.get(id)
        if job is None:
            raise Refused(404, f"Could not find fine tune: {id}")
        if what is None:
            return 200, job
        if what == "events":
            return 200, _page(self.events[id][::-1], query)
        if what in ("cancel", "pause", "resume") and method == "POST":
            job["status"] = {"cancel": "cancelled", "pause": "paused", "resume": "running"}[what]
            return 200, job
        raise KeyError(what)

    def _chat(self, body: dict[str, Any], path: str) -> tuple[int, Any]:
        name = path.split("/")[2] if self.azure else body["model"]
        if self.azure and name not in self.deployments:
            raise Refused(404, "no such deployment", "DeploymentNotFound")
        if self.not_ready > 0:
            self.not_ready -= 1
            raise Refused(404, "not ready yet", "DeploymentNotReady")
        message = {"role": "assistant", "content": "hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": name,
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip

    def manage(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Resource Manager's part."""
        name = path.rpartition("/")[2]
        if method == "PUT":
            asked = json.loads(body)
            assert set(asked) == {"sku", "properties"}
            assert set(asked["sku"]) == {"name", "capacity"}
            assert set(asked["properties"]["model"]) == {"format", "name", "version"}
            there = name in self.deployments
            asked["properties"]["provisioningState"] = "Accepted"
            self.deployments[name] = asked
            return (200 if there else 201), asked
        if name not in self.deployments:
            raise Refused(404, "The Resource was not found.", "ResourceNotFound")
        if method == "DELETE":
            del self.deployments[name]
            return 204, None
        shown = json.loads(json.dumps(self.deployments[name]))
        properties = self.deployments[name]["properties"]
        if properties["provisioningState"] in ("Accepted", "Creating"):
            states = {"Accepted": "Creating", "Creating": "Succeeded"}
            properties["provisioningState"] = states[properties["provisioningState"]]
        return 200, shown


def _list(data: list[Any], has_more: bool = False) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def _page(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """Newest first, as the API lists."""
    ids = [item["id"] for item in items]
    start = ids.index(query["after"]) + 1 if "after" in query else 0
    limit = int(query.get("limit", 20))
    return _list(items[start : start + limit], start + limit < len(items))


@contextmanager
def running_stub(*, azure: bool = False) -> Iterator[Stub]:
    """The service on a free port of loopback; at the end, nothing may have been asked amiss."""
    stub = Stub(azure=azure)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            query = dict(parse_qsl(split.query))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            arm = split.path.startswith("/subscriptions/")
            path = split.path if arm else split.path.removeprefix(stub.prefix)
            call = f"{self.command} {path}"
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            key = bearer or self.headers.get("api-key", "")
            expected = MANAGEMENT_TOKEN if arm else KEY
            with stub.lock:
                stub.calls.append(call)
                trouble = stub.trouble[call].pop(0) if stub.trouble[call] else None
                status, value = 401, _error(f"Incorrect API key provided: {key}")
                if stub.azure and not query.get("api-version"):
                    status, value = 404, _error("api-version is missing")
                elif key == expected and (trouble is None or trouble.done):
                    status, value = self._do(path, query, body, arm)
                elif trouble is not None:
                    status, value = trouble.status or 0, {"error": trouble.error}
            if trouble is not None:
                time.sleep(trouble.seconds)
                if trouble.status is None:
                    self.close_connection = True
                    self.connection.close()
                    return
            self._send(status, value)

        do_POST = do_PUT = do_DELETE = do_GET

        def _do(self, path: str, query: dict[str, str], body: bytes, arm: bool) -> tuple[int, Any]:
            try:
                if arm:
                    return stub.manage(self.command, path, body)
                kind = self.headers.get("Content-Type", "")
                return stub.answer(self.command, path, query, body, kind)
            except Refused as error:
                return error.status, {"error": error.error}
            except (KeyError, AssertionError, ValueError) as error:
                stub.wrong.append(f"{self.command} {self.path}: {error!r}")
                return 400, _error(repr(error))

        def _send(self, status: int, value: Any) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            data = b"" if status == 204 else data
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True

        def log_message(self, *args: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None: ...

    server = Quiet(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not stub.wrong, stub.wrong


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": None}}
