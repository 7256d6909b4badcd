"""``/v1/fine_tuning/alpha/graders``: check a grader, and try it on one answer.

Also what jobs need of graders: :func:`checked_grader`, and :func:`engines_for`, which lets graders
ask the server's own models.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request

from tunewise.data.chat import Completion
from tunewise.errors import ModelError
from tunewise.scoring.graders import (
    Engines,
    Grader,
    GraderError,
    GraderRun,
    Question,
    parse_grader,
    with_names,
)
from tunewise.scoring.graders.schema import LabelModel, Multi, PythonGrader, ScoreModel, Single
from tunewise.scoring.sandbox import Limits, Sandbox, SandboxError, require_sandbox
from tunewise.server.access import Caller, CallerDep
from tunewise.server.chat.bodies import WholeBody
from tunewise.server.chat.running import count, engine_of, model_of, while_connected
from tunewise.server.errors import ApiError
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import (
    Done,
    Embed,
    EngineError,
    Failed,
    Generate,
    ModelRef,
    Piece,
)
from tunewise.server.state import ServerState, StateDep

router = APIRouter()

_LOAD_S = 20.0
_AT_ONCE = 8
_EMBEDDINGS = ("text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002")
"""Models behind ``cosine``, if the settings map one of them."""


class ValidateBody(WholeBody):
    """``ValidateGraderRequest``."""

    grader: dict[str, Any]


class RunBody(WholeBody):
    """``RunGraderRequest``."""

    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] | None = None


@router.post("/v1/fine_tuning/alpha/graders/validate")
async def validate(body: ValidateBody, caller: CallerDep, state: StateDep) -> dict[str, Any]:
    """The grader as it was sent, with its name, where it can be used here.

    Python sources are loaded once.
    """
    grader = await state.pools.graders.run(caller, checked_grader, state, caller, body.grader)
    sources = [g for g in _singles(grader) if isinstance(g, PythonGrader)]
    if sources:
        await state.pools.sandboxes.run(caller, _load_all, sources)
    return {"grader": with_names(body.grader)}


@router.post("/v1/fine_tuning/alpha/graders/run")
async def run(
    body: RunBody, request: Request, caller: CallerDep, state: StateDep
) -> dict[str, Any]:
    """The grade of one answer. What goes wrong in grading stands in ``metadata.errors``."""
    pools = state.pools
    grader = await pools.graders.run(caller, checked_grader, state, caller, body.grader)
    sandboxed = any(isinstance(g, PythonGrader) for g in _singles(grader))
    pool = pools.sandboxes if sandboxed else pools.graders

    def work() -> dict[str, Any]:
        return _graded(grader, body, engines_for(state, caller, grader))

    # Whoever hangs up while it waits gives its place up.
    return await while_connected(request, pool.run(caller, work))


def checked_grader(state: ServerState, caller: Caller, value: Any, param: str = "grader") -> Grader:
    """A grader that this server can run for this caller; sources are not loaded.

    Args:
        state, caller: its models must be visible to the caller.
        value: as in the request.
        param: where it stands there.

    Raises:
        ApiError: 400 ``invalid_grader`` with the path of the bad value, 400
            ``sandbox_unavailable``, or 404 ``model_not_found``.
    """
    try:
        grader = parse_grader(value, param)
    except GraderError as error:
        raise _invalid(error, param) from None
    for single in _singles(grader):
        if isinstance(single, ScoreModel | LabelModel):
            model_of(state, caller, single.model)
        elif isinstance(single, PythonGrader):
            try:
                require_sandbox()
            except SandboxError as error:
                raise _no_sandbox(error, param) from None
    return grader


def engines_for(state: ServerState, caller: Caller, grader: Grader) -> Engines:
    """The server's models for graders, with the rights of ``caller``; tokens count as theirs."""
    names = {g.model for g in _singles(grader) if isinstance(g, ScoreModel | LabelModel)}
    refs = {name: model_of(state, caller, name) for name in names}

    def ask(model: str, questions: Sequence[Question]) -> list[Completion]:
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(questions))) as pool:
            return list(pool.map(lambda q: _answer(state, caller, refs[model], q), questions))

    embedding = _embedding_model(state, caller) if state.inference is not None else None
    if embedding is None:
        return Engines(ask=ask)

    def embed(texts: Sequence[str]) -> list[tuple[float, ...]]:
        return _embed(state, caller, embedding, texts)

    return Engines(ask=ask, embed=embed, embedding_model=embedding.name)


def _singles(grader: Grader) -> list[Single]:
    return list(grader.graders.values()) if isinstance(grader, Multi) else [grader]


def _graded(grader: Grader, body: RunBody, engines: Engines) -> dict[str, Any]:
    with GraderRun(grader, engines) as grading:
        [graded] = grading.grade([(body.model_sample, body.item or {})])
    if any(
        isinstance(g, ScoreModel | LabelModel) and g.sampling_params.reasoning_effort
        for g in _singles(grader)
    ):
        note = "reasoning_effort changed nothing: this server's models have none"
        graded = replace(graded, notes=(*graded.notes, note))
    return graded.as_dict()


def _load_all(graders: Sequence[PythonGrader]) -> None:
    for grader in graders:
        _load(grader)


def _load(grader: PythonGrader) -> None:
    with Sandbox(grader.source, "grade", Limits(call_s=_LOAD_S)) as sandbox:
        outcome = sandbox.check()
    if outcome.ending == "refused":
        raise _no_sandbox(SandboxError(outcome.error or ""), "grader")
    if outcome.ending != "ok":
        raise ApiError(
            400,
            f"The source of the grader {grader.name[:100]!r} cannot be loaded: {outcome.error}",
            code="invalid_grader",
            param="grader.source",
        )


def _invalid(error: GraderError, param: str) -> ApiError:
    hint = f" {error.hint}" if error.hint else ""
    where = error.where or param
    return ApiError(
        400, f"Invalid grader at '{where}': {error.message}.{hint}", code="invalid_grader",
        param=where,
    )  # fmt: skip


def _no_sandbox(error: SandboxError, param: str) -> ApiError:
    message = f"Python graders cannot run on this server: {error.message}."
    hint = f" {error.hint}" if error.hint else ""
    return ApiError(400, f"{message}{hint}", code="sandbox_unavailable", param=param)


def _answer(state: ServerState, caller: Caller, model: ModelRef, question: Question) -> Completion:
    asked = question.request
    request = Generate(
        id=new_id("grade"),
        model=model,
        scope=caller.project,
        messages=tuple(dict(message) for message in asked.messages),
        prompt=None,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=question.top_p,
        seed=asked.seed,
        schema=asked.json_schema,
    )
    try:
        events = engine_of(state).generate_sync(request)
    except ApiError as error:
        return Completion(error=error.message)
    failed = next((e for e in events if isinstance(e, Failed)), None)
    if failed is not None:
        return Completion(error=failed.message)
    pieces = [event for event in events if isinstance(event, Piece)]
    done = next((event for event in events if isinstance(event, Done)), Done(0, 0, 0))
    count(state, caller, done)
    return Completion(
        text="".join(piece.text for piece in pieces),
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        finish_reason=next((p.finish_reason for p in reversed(pieces) if p.finish_reason), None),
    )


def _embedding_model(state: ServerState, caller: Caller) -> ModelRef | None:
    name = next((name for name in _EMBEDDINGS if name in state.settings.models), None)
    return model_of(state, caller, name) if name is not None else None


def _embed(
    state: ServerState, caller: Caller, model: ModelRef, texts: Sequence[str]
) -> list[tuple[float, ...]]:
    try:
        embedded = engine_of(state).embed_sync(Embed(new_id("embd"), model, tuple(texts)))
    except EngineError as error:
        raise ModelError(error.failed.message, where=model.name) from None
    count(state, caller, Done(embedded.tokens, 0, 0))
    return list(embedded.vectors)
