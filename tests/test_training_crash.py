"""kill -9 at any moment and a rerun give the weights of an undisturbed run, bit by bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft")

from training_support import save_small_model

_DRIVER = Path(__file__).with_name("training_crash_driver.py")


def killed(tmp_path: Path, kills: int, seed: int, method: str) -> dict[str, float]:
    model = save_small_model(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, str(_DRIVER), str(model), str(tmp_path), str(kills), str(seed), method],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_three_kills(tmp_path, method):
    found = killed(tmp_path, 3, seed=11, method=method)
    assert found["kills"] == 3
    assert found["equal"], found


@pytest.mark.soak
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_thirty_kills(tmp_path, method):
    found = killed(tmp_path, 30, seed=12, method=method)
    assert found["kills"] == 30
    assert found["resumed"] >= 10, "most kills should come after the first checkpoint"
    assert found["equal"], found
