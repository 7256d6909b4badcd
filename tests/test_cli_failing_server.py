"""A study of a server that answers nothing: it ends soon, with the server's own words."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from rich.console import Console

from cli_support import jsonl, tunewise
from tunewise.cli.progress import TerminalReporter


class Server(ThreadingHTTPServer):
    """The client leaves in the middle of an answer once it has seen enough of them."""

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Broken(BaseHTTPRequestHandler):
    """Refuses every request in the same words."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        sent = json.dumps({"error": {"message": "the adapter is not loaded"}}).encode()
        self.send_response(422)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def broken() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_it_stops_early_and_says_what_the_server_says(broken: str, tmp_path: Path) -> None:
    rows = ({"input": f"Row {n}", "output": "yes" if n % 2 else "no"} for n in range(120))
    jsonl(tmp_path / "rows.jsonl", rows)
    study = {
        "name": "broken",
        "data": {"train": "rows.jsonl"},
        "model": "mine:m",
        "metric": "exact_match",
        "candidates": ["zero_shot"],
        "servers": {"mine": {"base_url": broken}},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    run = tunewise("run", "study.yaml", cwd=tmp_path, code=3)
    assert "10 requests in a row failed" in run.err and "the adapter is not loaded" in run.err
    assert "tunewise chat mine:m" in run.err
    assert len(Broken.asked) < 30


def test_the_progress_line_counts_failures() -> None:
    out = io.StringIO()
    reporter = TerminalReporter(Console(file=out, force_terminal=True, width=100))
    with reporter.task("asking") as progress:
        progress(7, 20, 3)
        time.sleep(0.3)  # it is drawn ten times a second
    assert "asking (3 failed)" in out.getvalue() and "7/20" in out.getvalue()
