"""A server that nobody asks anything leaves the processor alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from server_support import call, start_server

SECONDS = 6
SHARE = 0.015
"""Of one processor, for the API's process. It uses about a fifth of that."""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_an_idle_server_hardly_computes(tmp_path: Path) -> None:
    server = start_server(tmp_path / "server")
    try:
        call(server.running, "GET", "/v1/files")
        time.sleep(3)
        before = _used(server.process.pid)
        time.sleep(SECONDS)
        assert _used(server.process.pid) - before < SHARE * SECONDS
    finally:
        assert server.stop() == 0


def _used(pid: int) -> float:
    """Processor seconds of a process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
