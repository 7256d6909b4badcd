"""Bring a database to this version; a failed step leaves the old one as it was."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DatabaseError

from tunewise.errors import WorkspaceError
from tunewise.server.database import WRITING, open_engine, write_alone
from tunewise.study.keys import redact

SCRIPTS = Path(__file__).parent


def upgrade(url: str, scripts: Path = SCRIPTS) -> None:
    """Make or migrate the database at ``url``.

    An SQLite database is copied, the copy migrated, and then swapped in; the old one stays
    beside it as ``….before-<revision>``. Elsewhere one transaction holds all steps.

    Args:
        scripts: folder of the migrations.

    Raises:
        WorkspaceError: the database is damaged, newer than this version, or a step failed.
    """
    engine = open_engine(url)
    try:
        shown = engine.url.render_as_string(hide_password=True)
        directory = ScriptDirectory(str(scripts))
        target = directory.get_current_head()
        present = revision(engine, shown)
        if present == target:
            return
        if present is not None and present not in {r.revision for r in directory.walk_revisions()}:
            raise WorkspaceError(
                f"the database was made by a newer version of Tunewise (revision {present})",
                where=shown,
                hint="Install that version, or restore a backup made with this one.",
            )
        database = engine.url.database
        if engine.dialect.name == "sqlite" and database and present is not None:
            engine.dispose()
            _upgrade_copy(Path(database), scripts, target or "", shown)
        else:
            _run(engine, scripts, shown)
    finally:
        engine.dispose()


def revision(engine: Engine, shown: str) -> str | None:
    """Which migration the database has reached; None for an empty one.

    Raises:
        WorkspaceError: it cannot be opened.
    """
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DatabaseError as error:
        hint = "Restore a backup: tunewise server restore FILE --home FOLDER"
        if engine.dialect.name != "sqlite":
            hint = "Does it run there, and are user, password and the database's name right?"
        raise WorkspaceError(
            f"the database cannot be opened: {redact(str(error.orig).strip())}",
            where=shown,
            hint=hint,
        ) from error


def _run(engine: Engine, scripts: Path, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    try:
        # Another process that starts at the same time waits here, and then finds nothing to do.
        with engine.connect().execution_options(**WRITING) as connection, connection.begin():
            write_alone(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except Exception as error:
        raise WorkspaceError(
            f"the database could not be brought to this version: {error}",
            where=shown,
            hint="It is as it was. Keep the version of Tunewise that made it, and report this.",
        ) from error


def _upgrade_copy(path: Path, scripts: Path, target: str, shown: str) -> None:
    copy = path.with_name(f"{path.name}.migrating")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as old:
            _take_alone(old, path)
            shutil.copyfile(path, copy)
            engine = create_engine(f"sqlite:///{copy}")
            try:
                _run(engine, scripts, shown)
            finally:
                engine.dispose()
            kept = path.with_name(f"{path.name}.before-{target}")
            kept.unlink(missing_ok=True)
            kept.hardlink_to(path)
            copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)


def _take_alone(old: sqlite3.Connection, path: Path) -> None:
    """Hold the database alone, and without a log beside it: the log would be played into the new
    one."""
    try:
        old.execute("PRAGMA journal_mode=DELETE")
        old.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        raise WorkspaceError(
            "the database is in use, so it cannot be brought to this version",
            where=str(path),
            hint="Stop the server that uses it and start again.",
        ) from error
