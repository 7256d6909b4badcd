"""The server on PostgreSQL: a cluster of its own, in a temporary folder, on a loopback port."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")
pytest.importorskip("psycopg")

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from cli_support import COMMAND, environment
from postgres_support import Cluster, running_cluster
from server_support import Running, call, chats, client, envelope, running_server
from tunewise.errors import DataError, WorkspaceError
from tunewise.server import alone, keys
from tunewise.server.database import (
    Base,
    load_tables,
    now,
    open_database,
    open_engine,
    reading,
    writing,
)
from tunewise.server.jobs.queue import next_job
from tunewise.server.jobs.tables import Job
from tunewise.server.migrations.run import upgrade
from tunewise.server.settings import load_settings

MODEL = "gpt-4o-mini-2024-07-18"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def server(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, str]]:
    url = cluster.database("served")
    home = tmp_path_factory.mktemp("postgres")
    settings = load_settings(None, {"home": home / "server", "database": url})
    key = keys.create(settings, "default", "", True, None)
    options: dict[str, Any] = {"models": {MODEL: "tunewise/tiny"}, "workers": 2}
    with running_server(home, key=key, database=url, worker_threads=1, **options) as running:
        assert not (running.home / "tunewise.db").exists()
        yield running, url


@pytest.fixture
def url(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A new and empty database."""
    return cluster.database(request.node.name[:40].lower())


def test_migrations_make_the_same_tables(url: str) -> None:
    upgrade(url)
    upgrade(url)
    load_tables()
    engine = open_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_failed_migration_leaves_nothing(url: str, tmp_path: Path) -> None:
    upgrade(url)
    scripts = tmp_path / "migrations"
    shutil.copytree(
        Path(sys.modules["tunewise.server.migrations.run"].__file__ or "").parent, scripts
    )
    last = sorted((scripts / "versions").glob("*.py"))[-1].name.partition("_")[0]
    (scripts / "versions" / "9999_next.py").write_text(
        f"from alembic import op\nrevision = '9999'\ndown_revision = {last!r}\n"
        "def upgrade():\n    op.execute('DROP TABLE job_labels'); op.execute('not sql')\n"
    )
    with pytest.raises(WorkspaceError, match="as it was"):
        upgrade(url, scripts)
    sessions = open_database(url)
    with reading(sessions) as session:
        assert session.execute(text("SELECT count(*) FROM job_labels")).scalar_one() == 0
    sessions.kw["bind"].dispose()


def test_processes_that_start_together_migrate_once(url: str, tmp_path: Path) -> None:
    code = f"from tunewise.server.migrations.run import upgrade; upgrade({url!r})"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        _, words = process.communicate(timeout=60)
        assert process.returncode == 0, words


def test_a_server_that_is_not_there_is_said_so(cluster: Cluster) -> None:
    with pytest.raises(WorkspaceError, match="cannot be opened") as caught:
        open_database(f"{cluster.url}/missing")
    assert "Does it run there" in str(caught.value)
    parsed = make_url(cluster.url).set(port=1, password="hush-hush", database="x")
    with pytest.raises(WorkspaceError, match="cannot be opened") as caught:
        open_database(parsed.render_as_string(hide_password=False))
    assert "hush-hush" not in str(caught.value)


def test_one_writer_at_a_time_and_readers_see_one_state(url: str) -> None:
    sessions = open_database(url)
    counted: list[int] = []
    with reading(sessions) as session:
        counted.append(len(session.scalars(select(Job.id)).all()))
        with writing(sessions) as other:
            other.add(_job(0))
        counted.append(len(session.scalars(select(Job.id)).all()))
    assert counted == [0, 0], "what a reader sees stays as it was"

    def claim(_: int) -> str | None:
        with writing(sessions) as session:
            job = next_job(session, 64, 64)
            if job is None:
                return None
            time.sleep(0.02)
            job.status, job.has_worker, job.started_at = "running", True, now()
            return job.id

    with writing(sessions) as session:
        session.add_all(_job(n) for n in range(1, 12))
    with ThreadPoolExecutor(8) as pool:
        claimed = [job for job in pool.map(claim, range(16)) if job is not None]
    assert len(claimed) == len(set(claimed)) == 12
    with pytest.raises(DataError, match=r"U\+0000"), writing(sessions) as session:
        session.add(_job(90, suffix="a\0b"))
    with pytest.raises(DataError, match="longer than"), writing(sessions) as session:
        session.add(_job(91, suffix="a" * 65))
    sessions.kw["bind"].dispose()


def _job(number: int, **values: Any) -> Job:
    return Job(
        id=f"ftjob-{number}",
        project=f"p{number % 3}",
        status="queued",
        model="m",
        base="tunewise/tiny",
        method={"type": "supervised"},
        requested={},
        seed=1,
        tail="a1b2c3d4",
        training_file="file-1",
        result_files=[],
        **values,
    )


def test_files_a_job_and_chats(server: tuple[Running, str]) -> None:
    running, _ = server
    with client(running, timeout=120) as api:
        file = api.files.create(file=("rows.jsonl", chats(12)), purpose="fine-tune")
        assert api.files.content(file.id).read() == chats(12)
        made = [
            api.fine_tuning.jobs.create(
                model=MODEL,
                training_file=file.id,
                validation_file=file.id,
                metadata={"team": team},
                hyperparameters={"n_epochs": 2, "batch_size": 6},
            )
            for team in ("red", "blue")
        ]
        deadline, statuses = time.monotonic() + 150, set[tuple[str, ...]]()
        while time.monotonic() < deadline:
            jobs = [api.fine_tuning.jobs.retrieve(job.id) for job in made]
            statuses.add(tuple(job.status for job in jobs))
            if all(job.status in ("succeeded", "failed") for job in jobs):
                break
            time.sleep(0.1)
        assert [job.status for job in jobs] == ["succeeded"] * 2, [job.error for job in jobs]
        assert ("running", "running") in statuses, "two workers, each with a job of its own"
        assert [j.id for j in api.fine_tuning.jobs.list(metadata={"team": "red"})] == [made[0].id]
        (result,) = jobs[0].result_files
        assert api.files.content(result).text.startswith("step,")
        tuned = jobs[0].fine_tuned_model or ""
        said = api.chat.completions.create(
            model=tuned,
            messages=[{"role": "user", "content": "What is 4 plus one?"}],
            store=True,
            metadata={"kind": "sum"},
            max_tokens=8,
        )
        stored = api.chat.completions.list(metadata={"kind": "sum"}).data
        assert [s.id for s in stored] == [said.id]
        api.chat.completions.delete(said.id)
        response = api.responses.create(model=tuned, input="What is 5 plus one?")
        assert api.responses.retrieve(response.id).output_text == response.output_text
        checkpoints = api.fine_tuning.jobs.checkpoints.list(made[0].id).data
        assert [c.step_number for c in checkpoints] == [4, 2]
        further = api.fine_tuning.jobs.create(model=tuned, training_file=file.id)
        envelope(call(running, "DELETE", f"/v1/models/{tuned}"), 409, "model_in_use")
        api.fine_tuning.jobs.cancel(further.id)


def test_equal_requests_at_once_make_one_job(server: tuple[Running, str]) -> None:
    running, _ = server
    with client(running) as api:
        file = api.files.create(file=("rows.jsonl", chats(12)), purpose="fine-tune").id
        before = len(api.fine_tuning.jobs.list(limit=100).data)
        barrier = threading.Barrier(8)

        def make(_: int) -> tuple[int, str]:
            barrier.wait()
            answer = call(
                running,
                "POST",
                "/v1/fine_tuning/jobs",
                headers={"Idempotency-Key": "the same"},
                json={"model": MODEL, "training_file": file},
            )
            return answer.status_code, answer.json()["id"]

        with ThreadPoolExecutor(8) as pool:
            answers = set(pool.map(make, range(8)))
        assert len(answers) == 1 and {status for status, _ in answers} == {200}
        assert len(api.fine_tuning.jobs.list(limit=100).data) == before + 1
        api.fine_tuning.jobs.cancel(answers.pop()[1])


def test_what_the_database_cannot_hold_is_refused(server: tuple[Running, str]) -> None:
    running, _ = server
    for path in ("/v1/files/file-%00", "/v1/models/a%00b", "/v1/fine_tuning/jobs/%00"):
        answer = call(running, "GET", path)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        envelope(answer, answer.status_code)
    with client(running) as api:
        file = api.files.create(file=("rows.jsonl", chats(12)), purpose="fine-tune").id
    for body in (
        {"model": "a\0b", "training_file": file},
        {"model": MODEL, "training_file": file, "metadata": {"a": "\0"}},
        {"model": MODEL, "training_file": file, "metadata": {"a": "\ud800"}},
    ):
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        answer = call(running, "POST", "/v1/fine_tuning/jobs", content=content, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        envelope(answer, answer.status_code)


def test_a_second_server_is_told_to_leave(server: tuple[Running, str], tmp_path: Path) -> None:
    _, url = server
    started = [COMMAND, "serve", "--port", "0", "--home", tmp_path / "other", "--database", url]
    done = subprocess.run(started, capture_output=True, text=True, env=environment(), timeout=90)
    assert done.returncode == 3, done.stderr
    assert "another server works on this database" in done.stderr
    assert "Traceback" not in done.stderr


def test_backup_names_postgresqls_own_way(server: tuple[Running, str], tmp_path: Path) -> None:
    running, url = server
    config = tmp_path / "server.yaml"
    config.write_text(json.dumps({"home": str(running.home), "database": url}))
    done = subprocess.run(
        [COMMAND, "server", "backup", tmp_path / "b.tar", "--config", config],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 2 and "pg_dump" in done.stderr, done.stderr
    assert not (tmp_path / "b.tar").exists()


def test_a_database_that_was_killed_and_came_back(
    cluster: Cluster, server: tuple[Running, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, url = server
    statuses: list[int] = []

    def upload(name: str) -> str:
        """Send a file until it is stored; only a database that is away may be in the way."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            answer = call(
                running, "POST", "/v1/files", files={"file": (name, name.encode())},
                data={"purpose": "user_data"}, headers={"Idempotency-Key": name},
            )  # fmt: skip
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                return str(answer.json()["id"])
            envelope(answer, 503, "database_unavailable")
            assert answer.headers["retry-after"]
            time.sleep(0.05)
        raise AssertionError("it does not come back")

    before = upload("before")
    cluster.kill_backend("served", of_lock=alone.SERVER_LOCK)
    assert upload("during") != before
    cluster.stop()
    stopped = call(running, "GET", "/v1/files")
    envelope(stopped, 503, "database_unavailable")
    assert call(running, "GET", "/healthz").status_code == 200
    cluster.start()
    upload("after")
    with client(running) as api:
        names = [file.filename for file in api.files.list(purpose="user_data")]
    assert names == ["after", "during", "before"]

    def locked() -> bool:
        engine = open_engine(url)
        with engine.connect() as connection:
            query = text("SELECT count(*) FROM pg_locks WHERE objid = :lock AND granted")
            held = connection.scalar(query, {"lock": alone.SERVER_LOCK})
        engine.dispose()
        return bool(held)

    end = time.monotonic() + 10
    while not locked():  # it went with the connection, and is taken again
        assert time.monotonic() < end
        time.sleep(0.1)
    monkeypatch.setattr(alone, "_SERVER_SECONDS", 0.0)
    with pytest.raises(WorkspaceError, match="another server works"), alone.only_server(url):
        pass


def test_a_server_that_lost_its_database_to_another_stops(cluster: Cluster, url: str) -> None:
    code = (
        "import sys, time\nfrom tunewise.errors import WorkspaceError\n"
        "from tunewise.server import alone\n"
        "alone._SERVER_SECONDS = 0.5\n"
        "try:\n"
        "    with alone.only_server(sys.argv[1]):\n"
        "        print('alone', flush=True)\n"
        "        time.sleep(60)\n"
        "except WorkspaceError as error:\n"
        "    sys.exit(str(error))\n"
    )
    stop = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    with subprocess.Popen(
        [sys.executable, "-c", stop + code, url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert first.stdout.readline() == "alone\n"
        engine = open_engine(url)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            # It waits for the lock, so that it has it as soon as the first one's connection ends.
            with ThreadPoolExecutor(1) as pool:
                query = text(f"SELECT pg_advisory_lock({alone.SERVER_LOCK})")
                waiting = pool.submit(other.execute, query)
                time.sleep(0.3)
                end_it = text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks "
                    f"WHERE objid = {alone.SERVER_LOCK} AND granted"
                )
                with engine.connect() as ending:
                    ending.execute(end_it)
                waiting.result(timeout=20)
            _, words = first.communicate(timeout=30)
        engine.dispose()
    assert first.returncode == 1 and "another server works on this database" in words, words
