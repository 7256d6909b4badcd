"""The database: SQLite (WAL) by default, PostgreSQL by URL; opened, migrated, in transactions."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Engine, Integer, String, create_engine, event, text
from sqlalchemy.engine import Connection, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from tunewise.errors import DataError, UsageError
from tunewise.releases import import_failed

Sessions = sessionmaker[Session]

TABLES = (
    "tunewise.server.tables",
    "tunewise.server.jobs.tables",
    "tunewise.server.chat.tables",
    "tunewise.server.azure.tables",
    "tunewise.server.batches.tables",
)

_WRITING = "tunewise_writing"
WRITING: dict[str, Any] = {_WRITING: True}
"""Execution options of a connection whose transactions write."""
WRITE_LOCK = 0x74756E65
"""Of PostgreSQL's advisory locks: ours, for as long as a transaction writes."""
_BUSY_SECONDS = 30


class Base(DeclarativeBase):
    """Of all tables."""


def now() -> int:
    """Seconds since 1970, as the API gives times."""
    return int(time.time())


class Listed:
    """Columns of everything that a project owns and the API lists.

    Attributes:
        seq: order of creation; what lists are sorted and paged by.
        id: what users see, made by ``ids.new_id``.
        project: whose it is; every query of a user's request filters by it.
        created_at: seconds since 1970.
    """

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    id: Mapped[str] = mapped_column(String(128), unique=True)
    project: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


def load_tables() -> None:
    """Import every module that defines tables, so that ``Base.metadata`` is whole."""
    for name in TABLES:
        package = name.rpartition(".")[0]
        if importlib.util.find_spec(package) and importlib.util.find_spec(name):
            importlib.import_module(name)


def open_engine(url: str) -> Engine:
    """An engine for ``url``, with SQLite's settings made safe.

    Raises:
        UsageError: it is no database URL, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):  # as most services write it
            parsed = parsed.set(drivername="postgresql+psycopg")
        sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"pool_pre_ping": not sqlite}
        if not sqlite or parsed.database not in (None, "", ":memory:"):
            options |= {"pool_size": 16, "max_overflow": 64}
        engine = create_engine(parsed, **options)
    except (ArgumentError, NoSuchModuleError):
        raise UsageError(
            "this is not the URL of a database",
            where="database",
            hint="For instance sqlite:////srv/tunewise.db or postgresql+psycopg://user@host/name",
        ) from None
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the database's driver is not installed ({error.name})",
            where="database",
            hint='For PostgreSQL: pip install "psycopg[binary]"',
        ) from None
    except ImportError as error:  # psycopg without its library, for instance
        raise import_failed("The database's driver", "postgres", error) from error
    if sqlite:
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    else:
        event.listen(engine, "handle_error", _explain)
    return engine


def open_database(url: str) -> Sessions:
    """Sessions on the database at ``url``, made or migrated to this version where needed.

    Raises:
        UsageError: the URL is wrong or the driver missing.
        WorkspaceError: the database is damaged, newer than this version, or cannot be migrated.
    """
    from tunewise.server.migrations.run import upgrade

    load_tables()
    upgrade(url)
    return sessionmaker(open_engine(url), expire_on_commit=False)


@contextmanager
def reading(sessions: Sessions) -> Iterator[Session]:
    """A transaction that only reads, from one state of the database."""
    with sessions() as session:
        if session.get_bind().dialect.name == "postgresql":
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


@contextmanager
def writing(sessions: Sessions) -> Iterator[Session]:
    """A transaction that writes; committed at the end, undone by an exception.

    There is one writer at a time, in all processes together, so that what was read inside stays
    true until it ends. Keep it short: no model, no network, no long file inside.
    """
    with sessions.begin() as session:
        write_alone(session.connection(execution_options=WRITING))
        yield session


def write_alone(connection: Connection) -> None:
    """Wait until no other transaction writes; of SQLite, ``WRITING`` has done so already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))


def _sqlite_connect(connection: Any, record: Any) -> None:
    # The driver's own BEGIN comes too late and without IMMEDIATE: ours is in _sqlite_begin.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITING)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _explain(context: ExceptionContext) -> None:
    """Refuse in words what PostgreSQL cannot hold and SQLite can."""
    state = getattr(context.original_exception, "sqlstate", None)
    if "NUL (0x00)" in str(context.original_exception) or state == "22021":
        raise DataError(
            "a text holds the character U+0000, which the server's database cannot store"
        ) from None
    if state == "22001":
        raise DataError("a text is longer than the server's database can store") from None
