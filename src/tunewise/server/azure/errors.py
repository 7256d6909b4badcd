"""Azure's error envelope: what any part of the server refuses, in the words of who asks.

The older authoring URLs and Resource Manager have ``{"error": {"code", "message", …}}``; models
and ``/openai/v1`` answer with OpenAI's own envelope, at Azure as here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewise.server.errors import Json

_BY_CODE = {
    "file_in_use": "unexpectedEntityState",
    "wrong_state": "unexpectedEntityState",
    "too_many_jobs": "quotaExceeded",
    "file_import_failed": "fileImportFailed",
    "invalid_file_format": "jsonlValidationFailed",
    "invalid_training_file": "jsonlValidationFailed",
    "invalid_validation_file": "jsonlValidationFailed",
    "invalid_n_examples": "jsonlValidationFailed",
}
_BY_STATUS = {
    401: "unauthorized",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    429: "tooManyRequests",
    503: "serviceUnavailable",
    507: "quotaExceeded",
}
_MANAGEMENT = {
    401: "AuthenticationFailed",
    403: "AuthorizationFailed",
    404: "ResourceNotFound",
    409: "Conflict",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class AzureErrors:
    """ASGI middleware around the gate: rewrites the bodies of errors on Azure's URLs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (translate := _translator(scope["path"])) is not None:
            await self._app(scope, receive, _Translating(translate, send))
        else:
            await self._app(scope, receive, send)


class _Translating:
    """Sends an answer on; an error's start waits for its body."""

    def __init__(self, translate: Any, send: Send) -> None:
        self._translate = translate
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        error = _error_in(self._body)
        if error is None and message.get("more_body"):
            return
        # The gate drains what is still being sent after its answer: the answer must not wait.
        body, start = self._body, self._start
        if error is not None:
            body = bytes(Json(self._translate(start["status"], error)).body)
        headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode("ascii"))
        self._start = None
        await self._send({**start, "headers": [*headers, length]})
        await self._send({**message, "body": body})


def authoring(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An error of files, jobs and models (``ErrorResponse`` of the authoring API)."""
    by_status = "invalidPayload" if status < 500 else "internalFailure"
    code = _BY_CODE.get(str(error.get("code")), _BY_STATUS.get(status, by_status))
    shown: dict[str, Any] = {"code": code, "message": error["message"], "details": []}
    if error.get("param"):
        shown["target"] = error["param"]
    if code == "invalidPayload":
        shown["innererror"] = {"code": "invalidPayload"}
    return {"error": shown}


def management(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An error of Resource Manager; codes of its own pass as they are."""
    code = str(error.get("code") or "")
    if not code[:1].isupper():
        by_status = "InvalidRequestContent" if status < 500 else "InternalServerError"
        code = _MANAGEMENT.get(status, by_status)
    shown: dict[str, Any] = {"code": code, "message": error["message"], "details": []}
    if error.get("param"):
        shown["target"] = error["param"]
    return {"error": shown}


def inference(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An error of a deployment: OpenAI's envelope, with Azure's word for a name that is not."""
    if error.get("code") == "model_not_found":
        text = f"The API deployment for this resource does not exist. {error['message']}"
        return {"error": {**error, "code": "DeploymentNotFound", "message": text, "param": None}}
    return {"error": dict(error)}


def _translator(path: str) -> Any:
    if path.startswith("/subscriptions/"):
        return management
    if not path.startswith("/openai/") or path.startswith("/openai/v1/"):
        return None
    if path.startswith(("/openai/deployments/", "/openai/responses")):
        return inference
    return authoring


def _error_in(body: bytes) -> Mapping[str, Any] | None:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return error if isinstance(error, dict) and "message" in error else None
