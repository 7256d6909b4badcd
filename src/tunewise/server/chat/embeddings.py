"""``POST /v1/embeddings``: the model's mean-pooled last hidden states as unit vectors."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray

from tunewise.server.access import Caller, CallerDep
from tunewise.server.chat.bodies import bad
from tunewise.server.chat.running import count, engine_of, model_of, refusal
from tunewise.server.chat.text_bodies import EmbeddingBody
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import Done, Embed, EngineError
from tunewise.server.state import ServerState, StateDep

router = APIRouter()


@router.post("/v1/embeddings")
async def create(body: EmbeddingBody, caller: CallerDep, state: StateDep) -> dict[str, Any]:
    """A vector for each input.

    ``base64`` is the vector's float32 values, little-endian. ``dimensions`` keeps the first of
    them and makes the rest a unit vector again, as the original does.
    """
    return await state.pools.embeddings.run(caller, _embedded, body, caller, state)


def _embedded(body: EmbeddingBody, caller: Caller, state: ServerState) -> dict[str, Any]:
    model = model_of(state, caller, body.model)
    try:
        embedded = engine_of(state).embed_sync(Embed(new_id("embd"), model, body.inputs))
    except EngineError as error:
        raise refusal(error.failed, prompt="input") from None
    count(state, caller, Done(embedded.tokens, 0, 0))
    vectors = np.asarray(embedded.vectors, dtype="<f4")
    if body.dimensions is not None:
        vectors = _shortened(vectors, body.dimensions)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _written(vector, body)}
            for index, vector in enumerate(vectors)
        ],
        "model": body.model,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
    }


def _shortened(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The first ``size`` values of each row of ``[inputs, width]``, of length 1 again."""
    width = vectors.shape[1]
    if size > width:
        raise bad("dimensions", f"`dimensions` is {size}, and this model's vectors have {width}")
    kept = vectors[:, :size]
    length = np.linalg.norm(kept, axis=1, keepdims=True)
    shortened: NDArray[np.float32] = kept / np.maximum(length, np.finfo(np.float32).tiny)
    return shortened.astype("<f4")


def _written(vector: NDArray[np.float32], body: EmbeddingBody) -> str | list[float]:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode("ascii")
    values: list[float] = vector.tolist()
    return values
