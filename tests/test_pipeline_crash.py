"""A run that is stopped, killed, or met by another one: the rerun gives the undisturbed verdict."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli_support import COMMAND, environment, files, recorded, steady, tunewise

SHARES = {"tuned": 0.8, "zero_shot": 0.5, "few_shot": 0.6}


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command, running."""
    with subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # As in a terminal: a shell starts what runs in the background with Ctrl-C switched off.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:  # fmt: skip
        try:
            yield run
        finally:
            run.kill()


def until(run: subprocess.Popen[str], words: str) -> None:
    """Wait for a line of its progress."""
    assert run.stderr is not None
    for line in run.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}")


def readable(workspace: Path) -> None:
    """Whatever has a final name is whole."""
    for path in workspace.rglob("*.json"):
        json.loads(path.read_text())
    for path in workspace.rglob("items/*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)


def undisturbed(study: Path) -> dict[str, Any]:
    """The verdict of a run in a workspace of its own."""
    run = tunewise("run", study, "--json", "--workspace", "calm", cwd=study.parent)
    return steady(run.json)


def test_ctrl_c_is_one_line_and_the_rerun_goes_on(tmp_path: Path) -> None:
    study = recorded(tmp_path, SHARES, dev=200, test=1500)
    wanted = undisturbed(study)
    with started(tmp_path, "run", study) as run:
        until(run, "G1")
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last == "Stopped. What was finished is kept; the same command goes on."
    assert "Traceback" not in err and "error" not in err
    readable(tmp_path / "home")
    assert not list((tmp_path / "home").rglob("verdict.json"))
    assert list((tmp_path / "home").rglob("stages/data.json"))
    assert steady(tunewise("run", study, "--json", cwd=tmp_path).json) == wanted


def test_killed_at_three_moments_and_run_again(tmp_path: Path) -> None:
    study = recorded(tmp_path, SHARES)
    wanted = undisturbed(study)
    for number, moment in enumerate(("G0", "G1", "few_shot: ")):
        home = ["--workspace", f"home-{number}"]
        with started(tmp_path, "run", study, *home) as run:
            until(run, moment)
            run.send_signal(signal.SIGKILL)
            run.wait(timeout=120)
        assert run.returncode == -signal.SIGKILL
        readable(tmp_path / home[1])
        assert steady(tunewise("run", study, "--json", *home, cwd=tmp_path).json) == wanted


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_killed_at_thirty_moments(tmp_path: Path) -> None:
    study = recorded(tmp_path, SHARES, dev=300, test=3000)
    began = time.monotonic()
    wanted = undisturbed(study)
    took = time.monotonic() - began
    draw = random.Random(0)
    killed = 0
    for number in range(30):
        again = study.with_name(f"study-{number}.yaml")  # the same study with nothing finished
        again.write_text(study.read_text() + f"seed: {number}\n")
        home = tmp_path / f"home-{number}"  # its test rows were never opened before
        with started(tmp_path, "run", again, "-q", "--workspace", home.name) as run:
            time.sleep(draw.random() * took)
            run.send_signal(signal.SIGKILL)
            run.wait(timeout=120)
        killed += run.returncode == -signal.SIGKILL
        readable(home)
        seed = ["--set", f"seed={number}"]
        calm = tunewise(
            "run", study, *seed, "--json", "--workspace", f"calm-{number}", cwd=tmp_path
        )
        rerun = tunewise("run", again, "--json", "--workspace", home.name, cwd=tmp_path)
        assert steady(rerun.json) == steady(calm.json)
    assert killed >= 20
    assert (
        steady(tunewise("run", study, "--json", cwd=tmp_path).json)["verdict"] == wanted["verdict"]
    )


HOLD = (
    "import sys\nfrom pathlib import Path\nfrom tunewise.workspace import Workspace\n"
    "with Workspace(Path(sys.argv[1])).lock('quick'):\n"
    "    print('held', flush=True)\n    sys.stdin.read()\n"
)


def test_a_second_run_on_the_same_study_waits_for_nobody(tmp_path: Path) -> None:
    study = recorded(tmp_path, SHARES)
    home = tmp_path / "home"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == b"held\n"
        before = files(home)
        for command in ("run", "report"):
            second = tunewise(command, study, cwd=tmp_path, code=3)
            assert f"another run works on this study (process {first.pid})" in second.err
            assert "give the study another `name`" in second.err
        assert files(home) == before
        other = tunewise("run", study, "--set", "name=another", "--json", cwd=tmp_path)
        assert other.json["study"] == "another"
        first.stdin.close()
    assert tunewise("run", study, "--json", cwd=tmp_path).json["verdict"] == "FINE_TUNE"


def test_a_disk_that_fills_up_and_is_freed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
    except FileNotFoundError:
        pytest.skip("no `mount` here")
    try:
        study = recorded(tmp_path, SHARES)
        options = ["--json", "--workspace", disk / "ws"]
        full = tunewise("run", study, *options, cwd=tmp_path, code=3, process=True)
        assert "the disk is full" in full.err and "tunewise clean" in full.err
        assert str(disk) in full.err and full.out == ""
        readable(disk)
        assert not [p for p in disk.rglob(".*.json*") if p.is_file()]
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        run = tunewise("run", study, *options, cwd=tmp_path, process=True)
        assert steady(run.json) == undisturbed(study)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
