"""One server on a database: files and weights lie in the folder of one server.

On SQLite a lock on a file beside the database, which the system frees when the process ends. On
PostgreSQL an advisory lock, which goes with its connection: it is gone when the database's server
was killed, so it is looked after as long as this server runs.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from tunewise.errors import WorkspaceError
from tunewise.server.database import WRITE_LOCK, open_engine
from tunewise.study.keys import redact

SERVER_LOCK = WRITE_LOCK + 1
"""Of PostgreSQL's advisory locks: held as long as a server runs."""
_SERVER_SECONDS = 10.0
"""Until the lock of a server that was killed is free at the latest, once its connection is seen
to be broken."""
_SQLITE_SECONDS = 1.0
"""Until the lock of a server that is just ending is free."""
_LOOK_SECONDS = 1.0
"""Between two looks whether the connection with the lock still stands."""

log = logging.getLogger("tunewise.server")


@contextmanager
def only_server(url: str) -> Iterator[None]:
    """Be the only server that works on the database.

    Taken before the database is opened, so that nobody migrates what another server works on. A
    server that loses it to another one, while PostgreSQL was away, is stopped.

    Raises:
        UsageError: the URL is wrong.
        WorkspaceError: another server does, from the start or since PostgreSQL was away.
    """
    engine = open_engine(url)
    try:
        alone = _alone_on_sqlite if engine.dialect.name == "sqlite" else _alone_on_postgres
        with alone(engine):
            yield
    finally:
        engine.dispose()


@contextmanager
def _alone_on_sqlite(engine: Engine) -> Iterator[None]:
    # A file of its own: SQLite's locks on the database go when any handle on it is closed.
    name = engine.url.database
    if name in (None, "", ":memory:"):
        yield
        return
    place = Path(f"{Path(name).resolve()}.server-lock")
    try:
        file = place.open("a")
    except OSError as error:
        raise WorkspaceError(
            f"the database cannot be used: {error.strerror}", where=str(place)
        ) from error
    with file:
        end = time.monotonic() + _SQLITE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise _taken(engine) from None
                time.sleep(0.1)
        yield


@contextmanager
def _alone_on_postgres(engine: Engine) -> Iterator[None]:
    lock = _PostgresLock(engine)
    lock.take()
    keeper = threading.Thread(target=lock.keep, name="only server", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        lock.over.set()
        keeper.join()
        lock.free()
        if lock.lost:
            raise _taken(engine)


class _PostgresLock:
    """The lock and the connection that it goes with.

    Attributes:
        over: set when the lock is needed no more.
        lost: another server has it.
    """

    def __init__(self, engine: Engine) -> None:
        self.over = threading.Event()
        self.lost = False
        self._engine = engine
        self._connection: Connection | None = None
        self._backend: tuple[object, ...] | None = None

    def take(self) -> None:
        """Take the lock, on a new connection.

        Raises:
            WorkspaceError: the database cannot be reached, or another server has the lock.
        """
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise WorkspaceError(
                f"the database cannot be opened: {redact(str(error.orig).strip())}",
                where=self._engine.url.render_as_string(hide_password=True),
                hint="Does it run there, and are user, password and the database's name right?",
            ) from error
        self._connection = connection
        end = time.monotonic() + _SERVER_SECONDS
        while not connection.scalar(text(f"SELECT pg_try_advisory_lock({SERVER_LOCK})")):
            self._end_earlier_backend(connection)
            if time.monotonic() > end or self.over.wait(0.25):
                self.free()
                raise _taken(self._engine)
        of_this = text(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
        self._backend = tuple(connection.execute(of_this).one())

    def keep(self) -> None:
        """Look again and again whether the lock is held, until ``over``; take it again where the
        connection broke, and stop this process where another server was quicker."""
        while not self.over.wait(_LOOK_SECONDS):
            try:
                if self._connection is None:
                    self.take()
                    log.warning("the database is back; this server is the only one on it again")
                else:
                    self._connection.execute(text("SELECT 1"))
            except DBAPIError:
                log.error("the database does not answer; it is tried again")
                self.free()
            except WorkspaceError as error:
                if self.over.is_set() or isinstance(error.__cause__, DBAPIError):
                    continue
                log.error("another server took the database while it was away; this one stops")
                self.lost = True
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def free(self) -> None:
        """Give the lock back: the connection is closed, not kept in the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):
                connection.invalidate()
                connection.close()

    def _end_earlier_backend(self, connection: Connection) -> None:
        """Where the network broke, the database may take our earlier connection for alive."""
        if self._backend is None:
            return
        pid, start = self._backend
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid = :pid AND backend_start = :start"
            ),
            {"pid": pid, "start": start},
        )


def _taken(engine: Engine) -> WorkspaceError:
    return WorkspaceError(
        "another server works on this database",
        where=engine.url.render_as_string(hide_password=True),
        hint="Stop it, or give this one another database: the files and weights that a database "
        "names lie in the folder of one server.",
    )
