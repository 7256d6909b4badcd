"""The workspace: whole files or none, one run at a time, an honest ledger, nobody else's eyes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewise.errors import WorkspaceError
from tunewise.workspace import (
    Workspace,
    default_root,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_root() == tmp_path / "home"  # TUNEWISE_HOME
    monkeypatch.delenv("TUNEWISE_HOME")
    assert default_root() == tmp_path / ".tunewise"
    Workspace()
    assert list(tmp_path.iterdir()) == []  # looking makes nothing


def test_private_and_ignored_by_git(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with workspace.lock("s"):
        pass
    assert mode(workspace.root) == mode(workspace.root / "studies") == 0o700
    assert mode(workspace.root / "answers") == 0o700
    assert (workspace.root / ".gitignore").read_text() == "*\n"


def test_a_folder_that_holds_something_else_keeps_its_mode_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / "code.py").write_text("")
    with Workspace(folder).lock("s"):
        pass
    assert mode(folder) == 0o755
    assert not (folder / ".gitignore").exists()  # `*` would hide the user's own files from git
    assert mode(folder / "studies") == mode(folder / "answers") == 0o700


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "ws").write_text("mine")
    with pytest.raises(WorkspaceError, match="a file stands where a folder is needed") as caught:
        Workspace(tmp_path / "ws").lock("s").__enter__()
    assert "TUNEWISE_HOME" in str(caught.value) and str(tmp_path / "ws") in str(caught.value)
    assert (tmp_path / "ws").read_text() == "mine"
    with pytest.raises(WorkspaceError, match="a file stands"):
        write_json_atomic(tmp_path / "ws" / "x.json", {})


def test_a_folder_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(WorkspaceError, match="no permission"):
        Workspace(tmp_path / "ws").lock("s").__enter__()


def test_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    path = small_disk / "a" / "x.bin"
    write_bytes_atomic(path, b"old")
    with pytest.raises(WorkspaceError, match="the disk is full") as caught:
        write_bytes_atomic(path, b"n" * 400_000)
    assert "tunewise clean" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_can_only_be_read(small_disk: Path) -> None:
    with Workspace(small_disk / "ws").lock("s"):
        pass
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name in ("s", "t"):
        with pytest.raises(WorkspaceError, match="no permission"):
            Workspace(small_disk / "ws").lock(name).__enter__()
    with pytest.raises(WorkspaceError, match="no permission"):
        Workspace(small_disk / "ws").open_test(["row"], "s", "look")


def test_killed_while_writing_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    program = (
        "import itertools, sys\nfrom pathlib import Path\n"
        "from tunewise.workspace import write_json_atomic\n"
        "for n in itertools.count():\n"
        "    write_json_atomic(Path(sys.argv[1]), [n] * 20_000)\n"
        "    print(n, flush=True)\n"
    )
    for round_ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.01 * round_)
            writer.send_signal(signal.SIGKILL)
        numbers = read_json(path)
        assert len(numbers) == 20_000 and len(set(numbers)) == 1
        left = [p for p in tmp_path.iterdir() if p.name.startswith(".x.json.")]
        assert len(left) <= round_ + 1  # at most the one it was writing


HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom tunewise.workspace import Workspace\n"
    "with Workspace(Path(sys.argv[1])).lock('s'):\n"
    "    print('held', flush=True)\n    time.sleep(99)\n"
)


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WorkspaceError, match=f"process {holder.pid}") as caught:
            workspace.lock("s").__enter__()
        assert "Wait for it" in str(caught.value)
        with workspace.lock("another"):
            pass
        holder.send_signal(signal.SIGKILL)
    with workspace.lock("s"):
        pass
    with workspace.lock("s"):  # and again: it is freed at the end of the block
        pass


def test_the_ledger_counts_looks_not_reruns(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with workspace.lock("s"):
        pass
    rows = [f"row {i}" for i in range(200)]
    assert workspace.test_looks(rows) == []
    assert workspace.open_test(rows, "s", "one") == 1
    assert workspace.open_test(rows, "s", "one") == 1  # after a crash, or to recompute
    assert workspace.open_test(rows, "s", "two") == 2  # the edited study
    assert workspace.open_test(["other"], "s", "two") == 1
    assert workspace.open_test(rows, "s", "one") == 1  # the look that it was
    assert len(workspace.test_looks(rows)) == 2
    assert [e["look"] for e in workspace.test_looks(rows)] == ["one", "two"]


def test_the_ledger_knows_rows_not_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with workspace.lock("s"):
        pass
    rows = [f"row {i}" for i in range(200)]
    assert workspace.open_test(rows[:100], "s", "one") == 1
    assert workspace.open_test(rows, "s", "two") == 2  # rows were added
    assert workspace.open_test(rows[50:60], "t", "three") == 3  # a part, by another study
    assert workspace.open_test([*rows[199:], *(f"new {i}" for i in range(200))], "t", "four") == 1


def test_a_half_written_ledger_line_swallows_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with workspace.lock("s"):
        pass
    workspace.open_test(["row"], "s", "one")
    ledger = workspace.root / "test-ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes() + b'{"rows": ["ro\xc3')
    assert workspace.open_test(["row"], "s", "two") == 2
    assert workspace.open_test(["row"], "s", "three") == 3
    assert json.loads(ledger.read_text("utf-8", "replace").splitlines()[-1])["look"] == "three"


def test_damaged_json_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    path.write_text('{"half": ')
    with pytest.raises(WorkspaceError, match="Delete the file") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_studies_are_listed_by_age_without_training_runs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    assert workspace.studies() == []
    for age, digest in ((20, "b" * 64), (10, "a" * 64)):
        folder = workspace.study("s", digest).root
        write_json_atomic(folder / "verdict.json", {})
        os.utime(folder, (time.time() - age,) * 2)
    (workspace.root / "studies" / "s" / "training").mkdir()
    assert [f.root.name for f in workspace.studies()] == ["b" * 12, "a" * 12]
