"""The sandbox shows its Python read-only, wherever that lies."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tunewise.scoring.sandbox import sandbox_kind

FOLDERS = ("/tmp", "/home", "/var/tmp")
SOURCE = Path(__file__).parents[1] / "src"


@pytest.mark.skipif(sandbox_kind() is None, reason="no sandbox here")
@pytest.mark.parametrize("parent", FOLDERS)
def test_python_may_lie_in(parent: str) -> None:
    try:
        folder = tempfile.TemporaryDirectory(dir=parent)
    except OSError as error:
        pytest.skip(f"no folder of ours there: {error}")
    with folder as name:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", name], check=True)
        ask = "from tunewise.scoring.sandbox.probe import _probed; print(_probed()[1])"
        packages = next(p for p in sys.path if p.endswith("site-packages"))
        done = subprocess.run(
            [f"{name}/bin/python", "-c", ask],
            env={"PYTHONPATH": f"{SOURCE}:{packages}"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.strip() == sandbox_kind()
