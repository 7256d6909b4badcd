"""Checkpoints are safetensors files, written without holding everything a second time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunewise.training import checkpoint

GROWN = """
import resource, sys
from pathlib import Path
import torch
from tunewise.training import checkpoint
tensors = {f"t{i}": torch.ones(8_000_000) for i in range(6)}  # 192 MB
checkpoint._save({"small": torch.ones(2)}, Path(sys.argv[1]) / "first.safetensors")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoint._save(tensors, Path(sys.argv[1]) / "all.safetensors")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("dtype", sorted(checkpoint._DTYPES, key=str), ids=str)
def test_any_reader_reads_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = (torch.randn(6, 5) * 9).to(dtype)
    tensors = {
        "whole": whole,
        "turned": whole.t(),
        "number": torch.tensor(3).to(dtype),
        "none": torch.empty(0, 4, dtype=dtype),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "name with \N{GREEK SMALL LETTER ALPHA}": torch.arange(5.0),
    }
    path = tmp_path / "state.safetensors"
    checkpoint._save(tensors, path)
    for read in (load_file(path), checkpoint._load(path)):
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name


def test_writing_takes_no_memory_to_speak_of(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWN, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1024 < 60, "megabytes; all of it would be 192, and 384 as it was"
