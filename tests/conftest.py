"""What several tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tunewise.processes import prepare_computing

if TYPE_CHECKING:
    from server_support import Running

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
prepare_computing()  # as the command line does

LONGEST = (
    "test_pipeline_local.py",
    "test_server_jobs_crash.py",
    "test_server_jobs_methods.py",
    "test_server_contract.py",
    "test_server_chaos.py",
    "test_server_jobs_run.py",
    "test_training_methods.py",
    "test_training_exactness.py",
    "test_demo.py",
    "test_examples.py",
    "test_cli_train.py",
    "test_scoring_graders_sandbox.py",
    "test_server_azure.py",
    "test_server_hostile.py",
    "test_pipeline_crash.py",
    "test_training_crash.py",
    "test_training_loop.py",
)
"""They begin first: else one worker would still be at the last of them when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, for `--dist loadfile --no-loadscope-reorder`."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how much was tried, where a test has told it (``record_property("tried", …)``)."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "tried":
                terminalreporter.write_line(f"tried: {value}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and models; tests that need it skip where it is absent."""
    folder = os.environ.get("TUNEWISE_SHARED")
    path = Path(folder) if folder else Path(__file__).parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("real data are not here (set TUNEWISE_SHARED to their folder)")
    return path


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder with real models; tests that need one skip where it is not named."""
    folder = os.environ.get("TUNEWISE_REAL_MODELS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real models are not here (name their folder in TUNEWISE_REAL_MODELS)")
    return Path(folder)


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the workspace of whoever runs it, or what they trust."""
    monkeypatch.setenv("TUNEWISE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all files that need none of their own: its engine takes seconds to start."""
    from server_support import running_server

    models = dict.fromkeys(("tunewise/tiny", "gpt-4o-mini-2024-07-18"), "tunewise/tiny")
    settings = {"models": models, "worker_threads": 1, "chat_retention_days": 7}
    with running_server(tmp_path_factory.mktemp("shared"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def server(shared_server: Running, request: pytest.FixtureRequest) -> Running:
    """The shared server, with an admin's key of a project that is this file's own."""
    from server_support import make_key

    key = make_key(shared_server.home, project=request.module.__name__, admin=True)
    return shared_server._replace(key=key)


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, or of another size by ``parametrize(…, indirect=True)``."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = getattr(request, "param", "256k")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no `mount` here")
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
