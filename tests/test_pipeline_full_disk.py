"""A study that trains, on a disk that is full at one moment or another, then freed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli_support import no_halves, tunewise
from test_pipeline_local import study

__all__ = ["study"]

SIZES_KB = (150, 600, 900, 1300, 1700, 2100)
"""Of disks, from one that is full at the first answers to one that is full while it trains."""


def _measured(verdict: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What was found, without latencies."""
    arms = [(c["name"], c["measured_on"], c["score"], c["failures"]) for c in verdict["candidates"]]
    return [(verdict["verdict"], verdict["ended_at"]), *arms]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_study_that_trains_goes_on_once_there_is_space(study: Path, tmp_path: Path) -> None:
    calm = tunewise("run", study, "--json", "--workspace", "calm", cwd=tmp_path, process=True)
    stopped = 0
    for size in SIZES_KB:
        disk = tmp_path / f"disk-{size}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            run = ["run", study, "--json", "--workspace", disk / "ws"]
            full = tunewise(*run, cwd=tmp_path, code=None, process=True)
            if full.code:
                stopped += 1
                assert full.code == 3 and full.out == "", (size, full)
                assert "the disk is full; " in full.err and "Free some space" in full.err, (
                    size,
                    full,
                )
                no_halves(disk)
                subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
                full = tunewise(*run, cwd=tmp_path, process=True)
            assert _measured(full.json) == _measured(calm.json), size
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    print(f"tried: {len(SIZES_KB)} disks, {stopped} of them full before the study's end")
    assert stopped >= 3
