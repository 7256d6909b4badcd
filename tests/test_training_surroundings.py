"""What surrounds a run: settings that are taken back, and memory that stays while it computes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch

from tunewise.models.loading import processor_has_bfloat16
from tunewise.processes import environment
from tunewise.training.surroundings import computing

COUNT_FAULTS = """
import resource, torch
from tunewise.models.loading import processor_has_bfloat16
from tunewise.processes import environment
from tunewise.training.surroundings import computing

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 * 1024 * 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
with computing(1):
    faults()
    within = faults()
print(before, within, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_stays_while_computing_and_no_longer():
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True
    )
    before, within, after = map(int, done.stdout.split())
    assert 10 * within < min(before, after)


def test_settings_are_taken_back():
    def settings():
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    before = settings()
    with pytest.raises(KeyError), computing(before[0] + 1):
        assert settings() == (before[0] + 1, True, False)
        raise KeyError
    assert settings() == before


MANY_SHAPES = """
import sys
from pathlib import Path
import torch

def held():
    return int(Path("/proc/self/statm").read_text().split()[1])  # pages

torch.set_num_threads(1)
weights = torch.ones(576, 576, dtype=torch.bfloat16)
for rows in range(1, 401):
    torch.ones(rows, 576, dtype=torch.bfloat16) @ weights
    if rows == 100:
        before = held()
print((held() - before) * 4096)
"""


@pytest.mark.skipif(
    not processor_has_bfloat16(), reason="the processor does not multiply bfloat16 itself"
)
def test_products_of_many_shapes_do_not_pile_up():
    def grown(environment):
        done = subprocess.run(
            [sys.executable, "-c", MANY_SHAPES],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return int(done.stdout)

    ours = environment()
    torchs = {k: v for k, v in ours.items() if not k.endswith("_CACHE_CAPACITY")}
    assert 3 * grown(ours) < grown(torchs)
