"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and models; tests that need it skip where it is absent."""
    folder = os.environ.get("TUNEWISE_SHARED")
    path = Path(folder) if folder else Path(__file__).parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("real data are not here (set TUNEWISE_SHARED to their folder)")
    return path


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the workspace of whoever runs it."""
    monkeypatch.setenv("TUNEWISE_HOME", str(tmp_path / "home"))
