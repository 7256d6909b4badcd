"""Names in both dialects, databases from before deployments, and servers that are killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from azure_support import ACCOUNT, deployment, wait_for_deployment
from server_support import make_key, start_server
from tunewise.server.access import Caller, find_project
from tunewise.server.azure import names, objects
from tunewise.server.azure.deployments import put
from tunewise.server.azure.tables import ACCEPTED, CREATING, SUCCEEDED, Deployment
from tunewise.server.database import open_database, writing
from tunewise.server.errors import ApiError
from tunewise.server.jobs import service
from tunewise.server.jobs.resolve import remove, resolve
from tunewise.server.jobs.schema import CreateJob
from tunewise.server.jobs.service import JobRefused
from tunewise.server.jobs.story import model_name as our_model_name
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.settings import ServerSettings
from tunewise.server.tables import File


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    settings = ServerSettings(home=tmp_path, models={"gpt-4o": "tunewise/tiny", "b/c": "x"})
    sessions = open_database(settings.database_url)
    sessions.configure(info={"settings": settings})
    with writing(sessions) as opened:
        yield opened


def caller_of(session: Session, project: str) -> Caller:
    return Caller(find_project(session, project).id, None, False)


def a_job(
    session: Session, caller: Caller, model: str = "gpt-4o", suffix: str | None = None
) -> Job:
    """A job that has succeeded, with its model and one checkpoint."""
    settings = session.info["settings"]
    session.add(
        file := File(
            id=f"file-{model}-{suffix}", project=caller.project, filename="a", bytes=1, blob="0",
            purpose="fine-tune",
        )
    )  # fmt: skip
    session.flush()
    asked = CreateJob(model=model, training_file=file.id, suffix=suffix)
    job = service.create(session, settings, caller.project, asked)
    for step in (None, 7):
        session.add(
            TunedModel(
                id=f"ftckpt_{job.tail}{step}", project=caller.project, job_id=job.id,
                name=our_model_name(job, "acme", step), model=model, base=job.base,
                folder="jobs/x", step=step,
            )
        )  # fmt: skip
    job.status, job.fine_tuned_model = "succeeded", our_model_name(job, "acme")
    session.flush()
    return job


def deploy(session: Session, caller: Caller, name: str, model: str) -> Deployment:
    made, _ = put(session, caller, f"{ACCOUNT}/{name}", deployment(model))
    return made


@pytest.mark.parametrize("suffix", [None, "recipes", "a.ft-0123-b"])
@pytest.mark.parametrize("model", ["gpt-4o", "b/c"])
def test_names_lead_back_to_their_models(session: Session, model: str, suffix: str | None) -> None:
    caller = caller_of(session, "one")
    job = a_job(session, caller, model, suffix)
    for step in (None, 7):
        name = names.model_name(job, step)
        tail = f"-{suffix}" if suffix else ""
        tail += ":ckpt-step-7" if step else ""
        assert re.fullmatch(rf"{re.escape(model)}\.ft-[0-9a-f]{{32}}{re.escape(tail)}", name)
        found = names.tuned_model(session, name)
        assert found is not None and found.step == step
        found_by_id = names.tuned_model(session, names.checkpoint_id(found.id))
        assert found_by_id is found
        assert resolve(session, caller, name).name == name
    last = names.model_name(job)
    for wrong in (
        last + "x",
        last.replace(".ft-", ".ft-0"),
        last[:-1] + "\n",
        "gpt-4o.ft-" + "f" * 32,
    ):
        assert names.tuned_model(session, wrong) is None


def test_another_projects_models_are_not_told(session: Session) -> None:
    owner, other = caller_of(session, "one"), caller_of(session, "two")
    job = a_job(session, owner, suffix="secret")
    name = names.model_name(job, 7)
    for ask in (
        lambda: resolve(session, other, name),
        lambda: resolve(session, other, names.checkpoint_id(f"ftckpt_{job.tail}7")),
        lambda: deploy(session, other, "mine", name),
    ):
        with pytest.raises(ApiError) as caught:
            ask()
        assert "does not exist" in caught.value.message
        assert our_model_name(job, "acme") not in caught.value.message
    deploy(session, owner, "name", "gpt-4o").state = SUCCEEDED
    with pytest.raises(ApiError, match="does not exist"):
        resolve(session, other, "name")


def test_a_deployment_goes_before_a_model_of_its_name(session: Session) -> None:
    caller = caller_of(session, "one")
    job = a_job(session, caller)
    made = deploy(session, caller, "gpt-4o", names.model_name(job))
    with pytest.raises(ApiError) as caught:
        resolve(session, caller, "gpt-4o")
    assert (caught.value.status, caught.value.code) == (404, "DeploymentNotReady")
    made.state = SUCCEEDED
    assert resolve(session, caller, "gpt-4o").adapter is not None
    assert resolve(session, caller_of(session, "two"), "gpt-4o").adapter is None
    # Deployed again, it is still the model of the request and not the deployment of its name.
    with pytest.raises(ApiError, match="serves another model"):
        deploy(session, caller, "gpt-4o", "gpt-4o")


def test_what_is_deployed_stays(session: Session) -> None:
    caller = caller_of(session, "one")
    job = a_job(session, caller)
    job.status, job.resolved = "running", dict(job.requested)
    checkpoint = names.model_name(job, 7)
    with pytest.raises(ApiError, match="still running"):
        deploy(session, caller, "point", checkpoint)
    job.status = "paused"
    made = deploy(session, caller, "point", checkpoint)
    with pytest.raises(JobRefused, match="deployed as 'point'"):
        service.resume(session, caller.project, job.id)
    with pytest.raises(ApiError, match="deployed as 'point'") as caught:
        remove(session, caller, our_model_name(job, "acme", 7))
    assert caught.value.status == 409
    session.delete(made)
    session.flush()
    assert service.resume(session, caller.project, job.id).status == "queued"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("validating_files", "created"), ("queued", "pending"), ("paused", "paused")],
)
def test_statuses(session: Session, ours: str, theirs: str) -> None:
    job = a_job(session, caller_of(session, "one"))
    job.status = ours
    shown = objects.job_object(job, "acme")
    assert shown["status"] == theirs and None not in shown.values()
    assert set(shown["hyperparameters"].values()) == {-1}
    assert objects.v1_job_object(job, "acme")["status"] == ours


def test_a_server_goes_on_deploying_where_a_killed_one_was(tmp_path: Path) -> None:
    home = tmp_path / "server"
    key = make_key(home, admin=True)
    sessions = open_database(ServerSettings(home=home).database_url)
    sessions.configure(info={"settings": ServerSettings(home=home)})
    with writing(sessions) as opened:
        body, caller = deployment("tunewise/tiny"), caller_of(opened, "default")
        for name, state in (("new", ACCEPTED), ("begun", CREATING)):
            put(opened, caller, f"{ACCOUNT}/{name}", body)[0].state = state
    sessions.kw["bind"].dispose()
    server = start_server(home, key=key)
    try:
        for name in ("new", "begun"):
            shown = wait_for_deployment(server.running, name)
            assert shown["properties"]["provisioningState"] == "Succeeded"
    finally:
        assert server.stop() == 0
