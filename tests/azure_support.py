"""Azure's clients for a running server, and Microsoft's documents to check its answers with."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
from openai import AzureOpenAI, DefaultHttpxClient

from server_support import Running, call

VERSION = "2024-10-21"
ACCOUNT = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/tuning"
    "/providers/Microsoft.CognitiveServices/accounts/acme/deployments"
)
ARM_VERSION = {"api-version": "2024-10-01"}


@contextmanager
def azure_client(
    running: Running, *, key: str | None = None, version: str = VERSION, **options: Any
) -> Iterator[AzureOpenAI]:
    """The official client, without retries."""
    with AzureOpenAI(
        azure_endpoint=running.root,
        api_key=key or running.key,
        api_version=version,
        http_client=DefaultHttpxClient(verify=False),
        **{"max_retries": 0, "timeout": 60, **options},
    ) as opened:
        yield opened


def azure_error(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The error in an answer that must be one of the authoring API or Resource Manager."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert error["code"] == code, error
    assert set(error) <= {"code", "message", "target", "details", "innererror"}
    assert error["message"] and "Traceback" not in error["message"]
    assert int(answer.headers["content-length"]) == len(answer.content)
    return dict(error)


def manage(
    running: Running, method: str, path: str, body: Any = None, *, key: str | None = None
) -> httpx2.Response:
    """A request to Resource Manager; ``path`` from the account's deployments on."""
    options: dict[str, Any] = {} if body is None else {"json": body}
    return call(running, method, ACCOUNT + path, params=ARM_VERSION, key=key, **options)


def deployment(model: str, sku: str = "standard") -> dict[str, Any]:
    """The body of the tutorials' PUT."""
    return {
        "sku": {"name": sku, "capacity": 1},
        "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
    }


def wait_for_deployment(running: Running, name: str, seconds: float = 60) -> dict[str, Any]:
    """The deployment once its state is a last one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = manage(running, "GET", f"/{name}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        if shown["properties"]["provisioningState"] in ("Succeeded", "Failed"):
            return shown
        time.sleep(0.2)
    raise AssertionError(f"the deployment is not done: {shown}")


class Swagger:
    """One of Microsoft's documents."""

    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text("utf-8"))
        self._definitions = _local(document["definitions"])

    def check(self, value: Any, name: str) -> None:
        """Fail unless ``value`` has the shape called ``name``."""
        schema = {"$ref": f"#/definitions/{name}", "definitions": self._definitions}
        jsonschema.Draft4Validator(schema).validate(value)


def _local(value: Any) -> Any:
    """Without references to files that are not here."""
    if isinstance(value, list):
        return [_local(one) for one in value]
    if not isinstance(value, dict):
        return value
    if str(value.get("$ref", "#"))[0] != "#":
        return {}
    return {key: _local(one) for key, one in value.items()}
