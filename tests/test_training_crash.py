"""kill -9 at any moment and a rerun give the weights of an undisturbed run, bit by bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")

from training_support import save_small_model

_DRIVER = Path(__file__).with_name("training_crash_driver.py")
OTHERS = ("orpo", "kto", "reward", "distill")


def killed(folder: Path, kills: int, seed: int, *methods: str) -> dict[str, dict[str, Any]]:
    """What came of jobs of these methods, each killed so often."""
    model = save_small_model(folder / "model")
    done = subprocess.run(
        [sys.executable, str(_DRIVER), str(model), str(folder), str(kills), str(seed), *methods],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = map(json.loads, done.stdout.splitlines())
    return {one["method"]: one for one in found}


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_three_kills(tmp_path, method):
    found = killed(tmp_path, 3, 11, method)[method]
    assert found["kills"] == 3
    assert found["equal"], found


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    """All other methods in one process, which imports the libraries once."""
    return killed(tmp_path_factory.mktemp("once"), 1, 13, *OTHERS)


@pytest.mark.parametrize("method", OTHERS)
def test_one_kill_after_a_checkpoint(killed_once, method):
    found = killed_once[method]
    assert found["kills"] == found["resumed"] == 1
    assert found["equal"], found


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("method", ["sft", "dpo", *OTHERS])
def test_thirty_kills(tmp_path, method):
    found = killed(tmp_path, 30, 12, method)[method]
    print(json.dumps(found))
    assert found["kills"] == 30
    # A third of the kills, when loading takes half of a run's life; the others come before.
    assert found["resumed"] >= 5, "too few kills come after a checkpoint"
    assert found["equal"], found
