"""``/subscriptions/…/deployments``: Azure Resource Manager's deployments (2024-04-01-preview).

Subscription, group and account may have any names: everything belongs to the key's project.
``sku`` is checked and shown again. It limits nothing here, and nothing is deleted for being idle.
"""

from __future__ import annotations

import datetime
import hashlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy import select
from starlette.responses import Response

from tunewise.server.access import CallerDep
from tunewise.server.azure import deployments
from tunewise.server.azure.deployments import Deployer
from tunewise.server.azure.tables import FAILED, SUCCEEDED, Deployment
from tunewise.server.azure.versions import require_management_version
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError, Json
from tunewise.server.state import StateDep

router = APIRouter(
    prefix="/subscriptions/{subscription}",
    tags=["azure"],
    dependencies=[Depends(require_management_version)],
)

SKUS = (
    "Standard",
    "GlobalStandard",
    "DataZoneStandard",
    "DeveloperTier",
    "ProvisionedManaged",
    "GlobalProvisionedManaged",
    "DataZoneProvisionedManaged",
    "GlobalBatch",
    "DataZoneBatch",
)

_PROVIDER = "/providers/Microsoft.CognitiveServices"
_DEPLOYMENTS = "/resourceGroups/{group}" + _PROVIDER + "/accounts/{account}/deployments"
_OPERATIONS = _PROVIDER + "/locations/local/operationResults"
_SKUS = {name.lower(): name for name in SKUS} | {"developer": "DeveloperTier"}
_POLL_SECONDS = "1"

Text = Annotated[str, StringConstraints(max_length=512)]


class _Part(BaseModel):
    """What is not known here is left out of the answer, as Resource Manager does."""

    model_config = ConfigDict(frozen=True)


class Sku(_Part):
    """How a deployment is paid for at Azure."""

    name: str
    capacity: int = Field(1, ge=1)

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.lower() not in _SKUS:
            raise ValueError(f"The sku '{value[:40]}' is not one of {', '.join(SKUS)}.")
        return _SKUS[value.lower()]


class Model(_Part):
    """What is deployed: a tuned model's name, a checkpoint's name or id, or a base model.

    Attributes:
        source, sourceAccount: the account it was tuned in; here every model is at hand.
    """

    format: Literal["OpenAI", "Microsoft", "Mistral AI", "Meta", "Alibaba"] = "OpenAI"
    name: str = Field(min_length=1, max_length=512)
    version: Text = "1"
    source: Text | None = None
    sourceAccount: Text | None = None


class Properties(_Part):
    """Of a deployment."""

    model: Model
    raiPolicyName: Text | None = None
    versionUpgradeOption: Text | None = None


class Asked(_Part):
    """The body of a PUT."""

    sku: Sku = Sku(name="Standard", capacity=1)
    properties: Properties
    tags: dict[Text, Text] | None = Field(None, max_length=50)


@router.put(_DEPLOYMENTS + "/{name}")
def put(asked: Asked, request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Deploy a model; it answers once ``provisioningState`` is ``Succeeded``."""
    with writing(state.sessions) as session:
        body = asked.model_dump(exclude_none=True)
        row, new = deployments.put(session, caller, request.url.path, body)
    _deployer(request).wake()
    answer = Json(_shown(row), status_code=201 if new else 200)
    if row.state not in (SUCCEEDED, FAILED):
        answer.headers["Azure-AsyncOperation"] = _operation(request, f"create-{row.id}")
        answer.headers["Retry-After"] = _POLL_SECONDS
    return answer


@router.get(_DEPLOYMENTS + "/{name}")
def retrieve(request: Request, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One deployment."""
    with reading(state.sessions) as session:
        row = deployments.find(session, caller.project, request.url.path)
    if row is None:
        raise ApiError(
            404,
            f"The Resource 'Microsoft.CognitiveServices/accounts/…/deployments/"
            f"{request.url.path.rpartition('/')[2][:64]}' was not found in this account.",
            code="ResourceNotFound",
        )
    return _shown(row)


@router.delete(_DEPLOYMENTS + "/{name}")
def delete(request: Request, state: StateDep, caller: CallerDep) -> Response:
    """Delete a deployment; its model stays. 204 where there is none."""
    with writing(state.sessions) as session:
        row = deployments.find(session, caller.project, request.url.path)
        if row is None:
            return Response(status_code=204)
        session.delete(row)
    where = _operation(request, f"delete-{row.id}")
    headers = {"Azure-AsyncOperation": where, "Location": where, "Retry-After": _POLL_SECONDS}
    return Response(status_code=202, headers=headers)


@router.get(_DEPLOYMENTS)
def index(request: Request, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """The deployments of one account."""
    with reading(state.sessions) as session:
        rows = deployments.of_account(session, caller.project, request.url.path)
    return {"value": [_shown(row) for row in rows]}


@router.get(_OPERATIONS + "/{operation}")
def operation(
    operation: Annotated[str, Path(pattern="^(create|delete)-[A-Za-z0-9]{32}$")],
    request: Request,
    state: StateDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """How far a PUT or DELETE has come. A deletion is done when it is answered."""
    kind, _, row_id = operation.partition("-")
    with reading(state.sessions) as session:
        row = session.scalar(
            select(Deployment).where(Deployment.project == caller.project, Deployment.id == row_id)
        )
    shown = {"id": request.url.path, "name": operation, "status": SUCCEEDED}
    if kind == "delete":
        return shown
    if row is None:
        return {**shown, "status": "Canceled", "error": _error("The deployment was deleted.")}
    shown["status"] = row.state
    return {**shown, "error": _error(row.error)} if row.error else shown


def _shown(row: Deployment) -> dict[str, Any]:
    """A deployment as ``Deployment``; ``properties.error`` is ours and says why it failed."""
    made = datetime.datetime.fromtimestamp(row.created_at, datetime.UTC)
    asked = row.requested
    properties = {
        **asked["properties"],
        "provisioningState": row.state,
        "capabilities": {"chatCompletion": "true", "completion": "true", "embeddings": "true"},
    }
    if row.error:
        properties["error"] = _error(row.error)
    tag = hashlib.sha256(f"{row.id} {row.state} {asked}".encode()).hexdigest()[:16]
    return {
        **asked,
        "id": row.resource,
        "name": row.name,
        "type": "Microsoft.CognitiveServices/accounts/deployments",
        "systemData": {"createdAt": made.isoformat().replace("+00:00", "Z")},
        "etag": f'"{tag}"',
        "properties": properties,
    }


def _error(message: str) -> dict[str, str]:
    return {"code": "DeploymentFailed", "message": message}


def _operation(request: Request, name: str) -> str:
    path = f"/subscriptions/{request.path_params['subscription']}{_OPERATIONS}/{name}"
    query = f"api-version={request.query_params['api-version']}"
    return str(request.url.replace(path=path, query=query))


def _deployer(request: Request) -> Deployer:
    deployer = request.app.state.deployer
    assert isinstance(deployer, Deployer)
    return deployer
