"""All of Azure's URLs in one router, with what must run beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool

from tunewise.server.azure import classic, inference, resource_manager, v1
from tunewise.server.azure.deployments import Deployer


@asynccontextmanager
async def _deploying(app: FastAPI) -> AsyncIterator[None]:
    deployer = app.state.deployer = Deployer(app.state.tunewise)
    deployer.start()
    try:
        yield
    finally:
        await run_in_threadpool(deployer.stop)


router = APIRouter(lifespan=_deploying)
for _part in (v1, inference, classic, resource_manager):
    router.include_router(_part.router)
