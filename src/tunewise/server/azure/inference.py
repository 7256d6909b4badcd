"""``/openai/deployments/{deployment}/…``: chat, completions and embeddings of a deployment.

A model answers under its own name too, without a deployment: nothing is billed by the hour here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from tunewise.server.azure.versions import require_version
from tunewise.server.chat import chat, completions, embeddings


class _Named(Request):
    """A request whose body names the model that its path names."""

    async def json(self) -> Any:
        """The body, with the deployment as ``model``: at Azure the path decides."""
        value = await super().json()
        if isinstance(value, dict):
            value["model"] = self.path_params["deployment"]
        return value


class _DeploymentRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the endpoint, given the request under its deployment's name."""
        handle = super().get_route_handler()

        async def named(request: Request) -> Response:
            return await handle(_Named(request.scope, request.receive))

        return named


router = APIRouter(
    prefix="/openai/deployments",
    tags=["azure"],
    dependencies=[Depends(require_version)],
    route_class=_DeploymentRoute,
)
# The longest path first: `{deployment:path}` takes slashes, since names of models may hold them.
router.add_api_route("/{deployment:path}/chat/completions", chat.create, methods=["POST"])
router.add_api_route("/{deployment:path}/completions", completions.create, methods=["POST"])
router.add_api_route("/{deployment:path}/embeddings", embeddings.create, methods=["POST"])
