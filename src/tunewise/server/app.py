"""The application: all routers, the gate before them, and what starts and stops with it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.utils import generate_unique_id
from starlette.middleware.cors import CORSMiddleware

from tunewise import __version__
from tunewise.server.azure.errors import AzureErrors
from tunewise.server.errors import Json, install
from tunewise.server.fixtures import Fixtures, Restoring, restore
from tunewise.server.gate import Gate
from tunewise.server.jobs.queue import JobQueue
from tunewise.server.jobs.service import file_user
from tunewise.server.settings import ServerSettings
from tunewise.server.state import open_state
from tunewise.server.sweep import sweeping

ROUTERS = (
    "files",
    "uploads",
    "models_api",
    "health",
    "jobs.api",
    "graders_api",
    "projects_api",
    "batches.api",
    "chat.chat",
    "chat.completions",
    "chat.embeddings",
    "chat.responses",
    "chat.response_context",
    "azure.api",
)


def create_app(settings: ServerSettings, fixtures: Fixtures | None = None) -> FastAPI:
    """The server's application. It owns ``settings.home``; one at a time.

    Args:
        fixtures: objects under fixed ids, for the tests of a client.

    Raises:
        UsageError: the database's URL is wrong, or the fixtures do not fit what is there.
        WorkspaceError: the folder or the database cannot be used.
    """
    state = open_state(settings)
    state.jobs = JobQueue(state)
    state.file_users.append(file_user)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.blobs.clear_incoming()
        async with AsyncExitStack() as stack:
            for part in (state.requests, state.inference, state.jobs):
                if part is not None:
                    part.start()
                    stack.callback(part.stop)
            await stack.enter_async_context(sweeping(state))
            yield
        state.usage.flush()
        state.sessions.kw["bind"].dispose()

    app = FastAPI(
        title="Tunewise",
        version=__version__,
        lifespan=lifespan,
        default_response_class=Json,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.tunewise = state
    install(app)
    for name in ROUTERS:
        app.include_router(importlib.import_module(f"tunewise.server.{name}").router)
    if fixtures is not None:
        restore(state, fixtures)
        if fixtures.restore == "each_request":
            app.add_middleware(Restoring, state=state, fixtures=fixtures)
    app.add_middleware(Gate, state=state)
    app.add_middleware(AzureErrors)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
    return app


def _operation_id(route: APIRoute) -> str:
    """In the description of the API; two routes may share name and path, and the first is taken."""
    return f"{generate_unique_id(route)}_{route.endpoint.__module__.rpartition('.server.')[2]}"
