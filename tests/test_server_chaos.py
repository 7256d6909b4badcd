"""A server whose processes are killed at any moment keeps every promise that it made.

Clients upload, train and chat without a pause while the killer is about; afterwards all that was
acknowledged is compared with what is there. ``chaos.jsonl`` in the test's folder tells what was
acknowledged and killed, and when.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from chaos_audit import audit, audit_disk
from chaos_clients import Chats, Client, Files, Jobs, Parts
from chaos_killer import Killer
from chaos_ledger import Ledger
from postgres_support import Cluster, running_cluster

FINISH_SECONDS = 240


def rampage(
    folder: Path, *, seed: int, kills: list[str], jobs: int, cluster: Cluster | None = None
) -> Ledger:
    """Let clients and killer loose on a server, then let the server finish, and audit it.

    Args:
        seed: of all that is random but the machine's own pace.
        kills: what is killed, in this order: ``server``, ``worker``, ``engine``, or ``start``: the
            server, and the next one while it starts; of PostgreSQL ``backend``, the process of one
            connection, or ``postgres``, all of it.
        jobs: fine-tuning jobs that are made meanwhile.
        cluster: where the database is; None is SQLite in the server's folder.
    """
    ledger = Ledger(folder / "chaos.jsonl")
    killer = Killer(folder / "server", ledger, seed, cluster)
    running = killer.server.running
    stop = threading.Event()
    training = Jobs(running, ledger, seed, jobs)
    others: list[Client] = [kind(running, ledger, seed) for kind in (Files, Parts, Chats)]
    try:
        with ThreadPoolExecutor(len(others)) as pool, ThreadPoolExecutor(1) as trainer:
            finish = threading.Event()
            threads = {client: pool.submit(client.run, stop) for client in others}
            threads[training] = trainer.submit(training.run, finish)
            try:
                _turns(threads, [training, *others[:2]])  # the first kill meets work in full swing
                for what in kills:
                    killer.strike(what)
                _turns(threads, others)  # and the last server works for everybody
                stop.set()
                deadline = time.monotonic() + FINISH_SECONDS
                while not training.finished and time.monotonic() < deadline:
                    _all_well(threads)
                    time.sleep(0.1)
            finally:
                stop.set()
                finish.set()
        for thread in threads.values():
            thread.result()
        assert training.finished, "jobs reach their last status"
        assert sum(killer.kills.values()) >= len(kills)
        audit(running, ledger)
        assert killer.server.stop() == 0
        assert "Traceback" not in killer.server.log.read_text()
        audit_disk(running.home, killer.database)
    finally:
        if killer.server.process.poll() is None:
            killer.server.stop()
        ledger.close()
    return ledger


Threads = dict[Client, Future[None]]


def _turns(threads: Threads, clients: Sequence[Client]) -> None:
    """Wait until each of ``clients`` has done some work from now on."""
    before = {client: client.turns for client in clients}
    while any(client.turns < turns + 2 for client, turns in before.items()):
        _all_well(threads)
        time.sleep(0.1)


def _all_well(threads: Threads) -> None:
    for thread in threads.values():
        if thread.done():
            thread.result()  # raises what it ended with


@pytest.mark.timeout(600)  # two starts of a server and of workers, on a machine that may be busy
def test_two_kills(tmp_path: Path) -> None:
    ledger = rampage(tmp_path, seed=1, kills=["worker", "server"], jobs=1)
    assert ledger.files and ledger.uploads and ledger.chats and ledger.answers > 20


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thirty_kills(tmp_path: Path) -> None:
    kinds = ["server"] * 4 + ["worker"] * 3 + ["engine"] * 2 + ["start"]
    ledger = rampage(tmp_path, seed=30, kills=random.Random(30).choices(kinds, k=30), jobs=12)
    assert len(ledger.files) >= 30 and ledger.chats


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thirty_kills_on_postgresql(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    kinds = ["server"] * 3 + ["worker"] * 2 + ["backend"] * 3 + ["postgres"] * 2
    kills = random.Random(31).choices(kinds, k=30)
    with running_cluster() as cluster:
        ledger = rampage(tmp_path, seed=31, kills=kills, jobs=12, cluster=cluster)
    assert len(ledger.files) >= 30 and ledger.chats
