"""OpenAI's whole description, asked by schemathesis's own runner: all phases, states too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract_support import corrected
from server_support import running_server

MODEL = "gpt-4o-mini-2024-07-18"
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance"
START = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


def _ask(folder: Path, shared: Path, *options: str) -> str:
    """What the runner says at its end; nothing may be found."""
    document = folder / "description.json"
    document.write_text(json.dumps(corrected(shared)))
    models = dict.fromkeys(("tunewise/tiny", "gpt-4o-mini", MODEL), "tunewise/tiny")
    with running_server(folder, models=models, worker_threads=1) as running:
        done = subprocess.run(
            [
                *(sys.executable, "-c", START, "run", str(document), "--url", running.base_url),
                *("-H", f"Authorization: Bearer {running.key}", "--checks", CHECKS),
                *("--seed", "1", "--request-timeout", "120", "--continue-on-failure", *options),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    found = re.search(r"([\d,]+) generated", done.stdout)
    assert found, done.stdout
    return found[1]


def test_its_examples(tmp_path: Path, shared: Path) -> None:
    """A few, of the operations where something was found before."""
    options = ("--phases", "examples,fuzzing", "--max-examples", "2")
    options += ("--include-path-regex", "files|graders/validate|models")
    assert int(_ask(tmp_path, shared, *options).replace(",", "")) > 20


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all_phases(
    tmp_path: Path, shared: Path, record_property: Callable[[str, object], None]
) -> None:
    sent = _ask(tmp_path, shared, "--max-examples", "40")
    record_property("tried", f"{sent} requests generated from OpenAI's description")
