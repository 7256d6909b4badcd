"""Ends a server, its workers, its engine and its database with SIGKILL; what must, starts again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from chaos_ledger import Ledger
from cli_support import COMMAND, environment
from postgres_support import Cluster
from server_support import Server, start_server
from tunewise.server import keys
from tunewise.server.settings import load_settings

DATABASE = "chaos"


class Killer:
    """The server under attack; always on the same port and folder.

    Attributes:
        server: the one that runs.
        kills: how many processes of each kind were killed.
    """

    def __init__(
        self, home: Path, ledger: Ledger, seed: int, cluster: Cluster | None = None
    ) -> None:
        self._random = random.Random(f"killer {seed}")
        self._ledger = ledger
        self._cluster = cluster
        self._settings: dict[str, Any] = {
            "port": _free_port(), "worker_threads": 1, "workers": 2
        }  # fmt: skip
        key = None
        if cluster is not None:
            url = self._settings["database"] = cluster.database(DATABASE)
            settings = load_settings(None, {"home": home, "database": url})
            key = keys.create(settings, "default", "", True, None)
        self.kills = {"server": 0, "worker": 0, "engine": 0, "start": 0, "database": 0}
        self.server: Server = start_server(home, key=key, **self._settings)

    @property
    def database(self) -> str | None:
        """The URL of the server's database; None for its own SQLite."""
        return self._settings.get("database")

    def strike(self, what: str) -> None:
        """Kill something of this kind, at a random moment from now on; where there is none, the
        server."""
        time.sleep(self._random.uniform(0.2, 2.5))
        if what == "worker":
            found = self._workers()
        elif what == "engine":
            found = _children(self.server.process.pid, "inference.process")
        elif what in ("backend", "postgres"):
            self._kill_database(whole=what == "postgres")
            return
        else:
            found = []
        if found:
            pid = self._random.choice(found)
            os.kill(pid, signal.SIGKILL)
            self.kills[what] += 1
            self._ledger.note("KILL", kind=what, pid=pid)
            return
        self.server.kill()
        self.kills["server"] += 1
        self._ledger.note("KILL", kind="server")
        log = self.server.log.read_text()
        assert "Traceback" not in log, log
        if what == "start":
            self._die_while_starting()
        running = self.server.running
        self.server = start_server(running.home, key=running.key, **self._settings)
        self._ledger.note("started again")

    def _kill_database(self, *, whole: bool) -> None:
        """Kill all of PostgreSQL, or what serves one connection, after which it recovers."""
        assert self._cluster is not None
        if whole:
            self._cluster.kill()
        else:
            self._cluster.kill_backend(DATABASE)
        self.kills["database"] += 1
        self._ledger.note("KILL", kind="database", whole=whole)

    def _die_while_starting(self) -> None:
        home = self.server.running.home
        process = subprocess.Popen(
            [COMMAND, "serve", "--config", home.parent / f"{home.name}.yaml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        time.sleep(self._random.uniform(0.2, 6.0))
        process.kill()
        process.wait()
        self.kills["start"] += 1
        self._ledger.note("KILL", kind="start")

    def _workers(self) -> list[int]:
        """Processes that train, whoever started them; one is waited for."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = []
            for lock in (self.server.running.home / "jobs").glob("*/worker.lock"):
                pid = int(lock.read_text() or 0)
                if pid and lock.parent.name in _command(pid):
                    found.append(pid)
            if found:
                return found
            time.sleep(0.1)
        return []


def _children(pid: int, words: str) -> list[int]:
    """Children of a process whose command line holds ``words``."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in tasks.read_text().split()]
    return [child for child in found if words in _command(child)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
