"""A PostgreSQL of the test's own, in a temporary folder, on a loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from tunewise.server.database import open_engine

NOBODY = 65534
"""Of the system's users; PostgreSQL does not run as root."""


class Cluster:
    """A running PostgreSQL.

    Attributes:
        url: of it, without a database's name.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._data = folder / "data"
        root = os.geteuid() == 0
        self._who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
        if root:
            os.chown(folder, NOBODY, NOBODY)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"postgresql://tunewise@127.0.0.1:{port}"
        self._options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("initdb", "-U", "tunewise", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-l", log, "-o", self._options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def kill(self) -> None:
        """As the system does when memory runs out: no goodbye. It is started again."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while True:  # until its processes have noticed, it refuses to start
            try:
                self.start()
                return
            except AssertionError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def kill_backend(self, database: str, *, of_lock: int | None = None) -> int:
        """Kill the process behind one connection to ``database``: PostgreSQL ends all others too,
        and recovers.

        Args:
            of_lock: the connection that holds this advisory lock; None takes any.

        Returns:
            The number of the process.
        """
        query = "SELECT pid FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
        if of_lock is not None:
            query += " AND pid IN (SELECT pid FROM pg_locks WHERE objid = :lock)"
        engine = open_engine(f"{self.url}/postgres")
        with engine.connect() as connection:
            found = connection.scalars(text(query), {"name": database, "lock": of_lock}).all()
        engine.dispose()
        assert found, "nobody is connected"
        os.kill(found[0], signal.SIGKILL)
        return int(found[0])

    def database(self, name: str) -> str:
        """The URL of a new and empty database."""
        engine = open_engine(f"{self.url}/postgres").execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine.dispose()
        return f"{self.url}/{name}"

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / name, "-D", self._data, *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            **self._who,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster, stopped and removed at the end; the test skips where PostgreSQL is missing."""
    found = shutil.which("pg_ctl")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    binaries = next(
        (p for p in places if (p / "initdb").exists() and (p / "pg_ctl").exists()), None
    )
    if binaries is None:
        pytest.skip("no PostgreSQL here (initdb and pg_ctl)")
    folder = Path(tempfile.mkdtemp(prefix="tunewise-pg-"))
    try:
        cluster = Cluster(binaries, folder)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
