"""Deployments: made, found, deleted; and the thread that loads their models."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.access import Caller
from tunewise.server.azure import names
from tunewise.server.azure.tables import ACCEPTED, CREATING, FAILED, SUCCEEDED, Deployment
from tunewise.server.database import reading, writing
from tunewise.server.errors import ApiError, told
from tunewise.server.ids import new_id
from tunewise.server.inference.protocol import Done, Failed, Generate
from tunewise.server.jobs.resolve import visible, weights
from tunewise.server.jobs.story import OVER
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.state import ServerState

RETRY_SECONDS = 1.0
MOST_ATTEMPTS = 3
"""Of loading a model, where the engine's process ended meanwhile."""

_SHOWN = 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def put(
    session: Session, caller: Caller, resource: str, asked: dict[str, Any]
) -> tuple[Deployment, bool]:
    """Make a deployment, or change what may be changed of one; inside ``database.writing``.

    The same request twice is one deployment. One that failed is tried again.

    Args:
        resource: Resource Manager's path, which ends with the name.
        asked: the request's body, checked.

    Returns:
        The deployment, and whether it is new.

    Raises:
        ApiError: 400, no such name or model can be; 409, the name serves another model or another
            account, or the model's job is still running.
    """
    name = resource.rpartition("/")[2]
    if not _NAME.fullmatch(name):
        raise ApiError(
            400,
            f"'{name[:100]}' cannot be the name of a deployment: up to 64 letters, digits, '-', "
            "'_' and '.', beginning with a letter or digit.",
            code="InvalidResourceName",
        )
    model = _usable(session, caller, asked["properties"]["model"]["name"])
    found = names.find_deployment(session, caller.project, name)
    if found is None:
        made = Deployment(
            id=new_id("", 32),
            project=caller.project,
            name=name,
            resource=resource,
            model=model,
            requested=asked,
            state=ACCEPTED,
        )
        session.add(made)
        session.flush()
        return made, True
    if found.resource.lower() != resource.lower():
        raise ApiError(
            409,
            f"The name '{name}' is taken by {found.resource}. Names are unique on this server, "
            "whatever the account, since requests to a deployment name none.",
            code="Conflict",
        )
    if found.model != model:
        raise ApiError(
            409,
            f"The deployment '{name}' exists and serves another model "
            f"({found.requested['properties']['model']['name']}). Delete it first, or take "
            "another name.",
            code="Conflict",
        )
    found.requested = asked
    if found.state == FAILED:
        found.state, found.error = ACCEPTED, None
    return found, False


def _usable(session: Session, caller: Caller, wanted: str) -> str:
    """Our name of a model that the caller may deploy."""
    tuned = names.tuned_model(session, wanted)
    usable = {model.name for model in visible(session, caller)}
    name = tuned.name if tuned is not None else wanted
    if name not in usable:
        raise ApiError(
            400,
            f"The model '{wanted[:200]}' cannot be deployed: it does not exist or you do not have "
            f"access to it. There is: {', '.join(sorted(usable)[:_SHOWN]) or '(none)'}.",
            code="DeploymentModelNotSupported",
            param="properties.model.name",
        )
    unfinished = session.scalar(
        select(Job.id)
        .join(TunedModel, TunedModel.job_id == Job.id)
        .where(TunedModel.name == name, Job.status.not_in((*OVER, "paused")))
    )
    if unfinished is not None:
        raise ApiError(
            409,
            f"The job {unfinished} is still running and keeps its last checkpoints only. Pause or "
            "cancel it before you deploy one of them.",
            code="Conflict",
        )
    return name


def find(session: Session, project: str, resource: str) -> Deployment | None:
    """The project's deployment at this path of Resource Manager; paths are the same in any case."""
    found = names.find_deployment(session, project, resource.rpartition("/")[2])
    if found is None or found.resource.lower() != resource.lower():
        return None
    return found


def of_account(session: Session, project: str, account: str) -> list[Deployment]:
    """The project's deployments of one account, in order of creation.

    Args:
        account: Resource Manager's path of its deployments.
    """
    rows = session.scalars(
        select(Deployment).where(Deployment.project == project).order_by(Deployment.seq)
    )
    return [row for row in rows if row.resource.rpartition("/")[0].lower() == account.lower()]


class Deployer:
    """Loads the models of new deployments, one after another, by asking each for one token.

    What is to be done stands in the database: a server that was killed goes on where it was.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._attempts: dict[str, int] = {}
        self._asking: str | None = None
        self._thread = threading.Thread(target=self._run, name="deployments", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new deployment."""
        self._bell.set()

    def stop(self) -> None:
        """Give up what is being loaded; it is loaded when the server starts again."""
        self._stopping.set()
        self._bell.set()
        if self._asking is not None and self._state.inference is not None:
            self._state.inference.cancel(self._asking)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                again = self._turn()
            except Exception as error:
                told(error, "deploying failed")
                again = True
            self._bell.wait(RETRY_SECONDS if again else None)

    def _turn(self) -> bool:
        """Load what is to be loaded; whether some of it must be tried again."""
        waiting = select(Deployment.id).where(Deployment.state.in_((ACCEPTED, CREATING)))
        with reading(self._state.sessions) as session:
            ids = session.scalars(waiting.order_by(Deployment.seq)).all()
        outcomes = [self._load(one) for one in ids if not self._stopping.is_set()]
        return not all(outcomes)

    def _load(self, deployment_id: str) -> bool:
        """Load one model; whether the deployment's state is its last."""
        with writing(self._state.sessions) as session:
            row = _row(session, deployment_id)
            if row is None:
                return True
            row.state = CREATING
            caller = Caller(row.project, None, False)
            try:
                model = weights(session, caller, row.model)
            except ApiError as error:
                row.state, row.error = FAILED, error.message
                return True
        if self._state.inference is None:
            return self._end(deployment_id, "This server runs without models.")
        self._asking = f"deploy-{new_id('', 12)}"
        request = Generate(
            self._asking, model, messages=None, prompt="Hello", max_tokens=1, temperature=0.0
        )
        last = self._state.inference.generate_sync(request)[-1]
        self._asking = None
        if isinstance(last, Done):
            return self._end(deployment_id, None)
        assert isinstance(last, Failed)
        if self._stopping.is_set() or last.code == "overloaded":
            return False
        if last.code == "server_error":
            attempts = self._attempts[deployment_id] = self._attempts.get(deployment_id, 0) + 1
            if attempts < MOST_ATTEMPTS:
                return False
        return self._end(deployment_id, last.message)

    def _end(self, deployment_id: str, error: str | None) -> bool:
        with suppress(KeyError):
            del self._attempts[deployment_id]
        with writing(self._state.sessions) as session:
            row = _row(session, deployment_id)
            if row is not None:
                row.state, row.error = (SUCCEEDED if error is None else FAILED), error
        return True


def _row(session: Session, deployment_id: str) -> Deployment | None:
    return session.scalar(select(Deployment).where(Deployment.id == deployment_id))
