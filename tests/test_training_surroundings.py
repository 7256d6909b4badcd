"""What surrounds a run: settings that are taken back, and memory that stays while it computes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch

from tunewise.training.surroundings import computing

COUNT_FAULTS = """
import resource, torch
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
