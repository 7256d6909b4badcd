"""Backups, and databases of older versions: nothing is lost, nothing half done."""

from __future__ import annotations

import hashlib
import io
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select

from server_support import client, make_key, running_server, start_server
from tunewise.errors import TunewiseError, UsageError, WorkspaceError
from tunewise.server.backup import read_backup, write_backup
from tunewise.server.database import Base, load_tables, open_database, open_engine, reading
from tunewise.server.jobs.tables import Job
from tunewise.server.migrations.run import SCRIPTS, upgrade
from tunewise.server.settings import load_settings

CONTENT = b"what must come back"


def test_a_backup_of_a_running_server_becomes_a_server(tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    with running_server(tmp_path) as running, client(running) as api:
        made = api.files.create(file=("a.txt", CONTENT), purpose="user_data")
        (running.home / "models").mkdir(exist_ok=True)
        (running.home / "models" / "adapter.safetensors").write_bytes(b"weights")
        (running.home / "models" / "link").symlink_to("/etc/passwd")
        count, size = write_backup(load_settings(None, {"home": running.home}), archive)
        assert size == archive.stat().st_size and count >= 3
        assert archive.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UsageError, match="exists already"):
            write_backup(load_settings(None, {"home": running.home}), archive)
        with pytest.raises(UsageError, match="nothing is overwritten"):
            read_backup(load_settings(None, {"home": running.home}), archive)
        key = running.key
    restored = load_settings(None, {"home": tmp_path / "new"})
    assert read_backup(restored, archive) == count
    assert (restored.home / "models" / "adapter.safetensors").read_bytes() == b"weights"
    assert not (restored.home / "models" / "link").is_symlink()
    server = start_server(restored.home, key=key)
    with client(server.running) as api:
        assert api.files.content(made.id).read() == CONTENT
    assert server.stop() == 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def _members(*changes: tuple[str, bytes]) -> Callable[[tarfile.TarFile], None]:
    def write(tar: tarfile.TarFile) -> None:
        for name, content in changes:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    return write


def _link(tar: tarfile.TarFile) -> None:
    _members(MANIFEST)(tar)
    info = tarfile.TarInfo("models")
    info.type, info.linkname = tarfile.SYMTYPE, "/tmp"
    tar.addfile(info)


MANIFEST = ("backup.json", b'{"format": 1}')
DATABASE = ("tunewise.db", b"SQLite format 3\x00 broken")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_members(MANIFEST, ("../evil", b"x")), "which no backup does"),
        (_members(MANIFEST, ("files/../../evil", b"x")), "which no backup does"),
        (_members(MANIFEST, ("/evil", b"x")), "which no backup does"),
        (_link, "which no backup does"),
        (_members(("a", b"x")), "no backup of a server"),
        (_members(("backup.json", b"no json")), "damaged"),
        (_members(("backup.json", b'{"format": 99}')), "another version"),
        (_members(MANIFEST, ("files/aa/" + "a" * 64, b"changed"), DATABASE), "has changed"),
        (_members(MANIFEST), "its end"),
        (_members(MANIFEST, DATABASE), "database is broken"),
    ],
)
def test_archives_that_are_no_backups_leave_nothing_behind(
    tmp_path: Path, write: Callable[[tarfile.TarFile], None], says: str
) -> None:
    archive = tmp_path / "in" / "a.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        write(tar)
    settings = load_settings(None, {"home": tmp_path / "out" / "home"})
    with pytest.raises(WorkspaceError, match=says):
        read_backup(settings, archive)
    assert list((tmp_path / "out").iterdir()) == [] and not (tmp_path / "evil").exists()


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    settings = load_settings(None, {"home": tmp_path / "home"})
    (tmp_path / "text").write_bytes(b"hello" * 1000)
    for name in ("text", "missing"):
        with pytest.raises(TunewiseError):
            read_backup(settings, tmp_path / name)
    with pytest.raises(UsageError, match="no server's database"):
        write_backup(settings, tmp_path / "b.tar")
    postgres = load_settings(None, {"home": tmp_path, "database": "postgresql://u:secret@h/n"})
    with pytest.raises(UsageError, match="pg_dump") as refused:
        write_backup(postgres, tmp_path / "b.tar")
    assert "secret" not in str(refused.value)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database with a key in it."""
    make_key(tmp_path / "home")
    return tmp_path / "home" / "tunewise.db"


def _scripts(tmp_path: Path, body: str) -> Path:
    """The migrations with one more step at their end."""
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    last = sorted((scripts / "versions").glob("*.py"))[-1].name.partition("_")[0]
    (scripts / "versions" / "9999_next.py").write_text(
        f"from alembic import op\nrevision = '9999'\ndown_revision = {last!r}\n"
        f"def upgrade():\n    {body}\n"
    )
    return scripts


def _keys(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM api_keys").fetchone()[0])


def test_a_failed_migration_leaves_the_database_as_it_was(old: Path, tmp_path: Path) -> None:
    body = "op.execute('DELETE FROM api_keys'); op.execute('not sql')"
    scripts = _scripts(tmp_path, body)
    before = hashlib.sha256(_dump(old)).hexdigest()
    with pytest.raises(WorkspaceError, match="as it was"):
        upgrade(f"sqlite:///{old}", scripts)
    assert hashlib.sha256(_dump(old)).hexdigest() == before
    assert [p.name for p in old.parent.iterdir() if "migrating" in p.name] == []
    sessions = open_database(f"sqlite:///{old}")
    sessions.kw["bind"].dispose()


def test_a_migration_keeps_the_old_database_beside_the_new(old: Path, tmp_path: Path) -> None:
    scripts = _scripts(tmp_path, "op.execute('DELETE FROM api_keys')")
    with closing(sqlite3.connect(old)) as held:
        held.execute("SELECT * FROM api_keys").fetchall()
        held.execute("BEGIN IMMEDIATE")
        with pytest.raises(WorkspaceError, match="in use"):
            upgrade(f"sqlite:///{old}", scripts)
    upgrade(f"sqlite:///{old}", scripts)
    assert (_keys(old), _keys(old.with_name("tunewise.db.before-9999"))) == (0, 1)
    # This version does not know the step that the newer one took.
    with pytest.raises(WorkspaceError, match="newer version"):
        open_database(f"sqlite:///{old}")


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'new.db'}")
    engine = open_engine(f"sqlite:///{tmp_path / 'new.db'}")
    load_tables()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_a_damaged_database_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "tunewise.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(WorkspaceError, match="cannot be opened"):
        open_database(f"sqlite:///{tmp_path / 'tunewise.db'}")


def _dump(database: Path) -> bytes:
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump()).encode()


def test_jobs_of_older_databases_stay(tmp_path: Path) -> None:
    """From the first tables on, step by step."""
    scripts, url = tmp_path / "migrations", f"sqlite:///{tmp_path / 'old.db'}"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for later in sorted((scripts / "versions").glob("*.py"))[1:]:
        later.unlink()
    upgrade(url, scripts)
    values = {"id": "ftjob-1", "model": "gpt-4o", "status": "succeeded", "tail": "a1b2c3d4"}
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection, connection:
        columns = connection.execute("PRAGMA table_info(jobs)").fetchall()
        needed = {row[1]: values.get(row[1], 0) for row in columns if row[3] and row[1] != "seq"}
        names, marks = ", ".join(needed), ", ".join("?" * len(needed))
        connection.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", [*needed.values()])
    sessions = open_database(url)
    with reading(sessions) as session:
        job = session.scalars(select(Job)).one()
        assert (job.id, job.model, job.status) == ("ftjob-1", "gpt-4o", "succeeded")
        assert job.parent is None and job.asked_model is None
    sessions.kw["bind"].dispose()
