"""``/v1/models``: mapped base models and the project's fine-tuned ones."""

from __future__ import annotations

import shutil
from typing import Any

from fastapi import APIRouter

from tunewise.server.access import CallerDep
from tunewise.server.database import reading, writing
from tunewise.server.jobs.resolve import VisibleModel, remove, resolve, visible
from tunewise.server.state import ServerState, StateDep

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """All models that the project may use."""
    with reading(state.sessions) as session:
        found = visible(session, caller)
    return {"object": "list", "data": [_model_object(state, model) for model in found]}


# Names hold slashes, colons and dots: `ft:tunewise/tiny:acme:recipes:a1B2c3`.
@router.get("/{model:path}")
def retrieve(model: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """One model; also a checkpoint, or any other name that can be used."""
    with reading(state.sessions) as session:
        for found in visible(session, caller):
            if found.name == model:
                return _model_object(state, found)
        resolve(session, caller, model)
    return _model_object(state, VisibleModel(model, None, tuned=True, own=False))


@router.delete("/{model:path}")
def delete(model: str, state: StateDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a fine-tuned model of the project, and its weights."""
    with writing(state.sessions) as session:
        folder = remove(session, caller, model)
    shutil.rmtree(folder, ignore_errors=True)
    return {"id": model, "object": "model", "deleted": True}


def _model_object(state: ServerState, model: VisibleModel) -> dict[str, Any]:
    created = model.created_at if model.created_at is not None else int(state.started)
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": state.settings.organization if model.tuned else "system",
    }
