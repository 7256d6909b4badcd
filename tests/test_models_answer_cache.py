"""Kept answers: nothing is asked twice, and a kill loses at most the answer being written."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tunewise.data.chat import Completion, Progress, Request
from tunewise.errors import WorkspaceError
from tunewise.models.answer_cache import AnswerStore, CachedEngine
from tunewise.models.engine import Engine


def request(text: str) -> Request:
    return Request(messages=({"role": "user", "content": text},))


class Echo:
    """An engine that answers with the question, and counts."""

    model = "echo"
    context_length = None

    def __init__(self, revision: str = "1") -> None:
        self.revision = revision
        self.asked: list[str] = []

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        texts = [str(r.messages[-1]["content"]) for r in requests]
        self.asked += texts
        return [
            Completion(error="busy") if t == "fails" else
            Completion(text=t, tool_calls=({"function": {"name": t}},), latency_s=0.5)
            for t in texts
        ]  # fmt: skip

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        return len(messages)

    def close(self) -> None: ...


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    engine = Echo()
    assert isinstance(CachedEngine(engine, tmp_path), Engine)
    steps: list[tuple[int, int]] = []
    questions = [request(t) for t in ("a", "b", "a", "fails", "ü\ud800")]
    cached = CachedEngine(engine, tmp_path)
    first = cached.answer(questions, lambda done, total, failed=0: steps.append((done, total)))
    assert [a.text for a in first] == ["a", "b", "a", "", "ü\ud800"]
    assert engine.asked == ["a", "b", "fails", "ü\ud800"]
    assert steps[0] == (0, 5) and steps[-1] == (5, 5) and steps == sorted(steps)
    cached.close()

    again = CachedEngine(engine, tmp_path)
    assert again.answer(questions) == first
    assert engine.asked[4:] == ["fails"]  # failures are tried anew
    newer = Echo(revision="2")
    CachedEngine(newer, tmp_path).answer(questions[:1])
    assert newer.asked == ["a"]


def test_the_file_is_private(tmp_path: Path) -> None:
    CachedEngine(Echo(), tmp_path / "answers").answer([request("a")])
    files = list((tmp_path / "answers").iterdir())
    assert files
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


WRITER = """
import sys
from pathlib import Path
from tunewise.data.chat import Completion
from tunewise.models.answer_cache import AnswerStore
store = AnswerStore(Path(sys.argv[1]))
for number in range(10**9):
    store.put(f"{sys.argv[2]}{number}", Completion(text="x" * 2000))
    print(number, flush=True)
"""


OPENER = """
import sys, time
from pathlib import Path
from tunewise.models.answer_cache import AnswerStore
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
kept = []
for number in range(100):
    kept.append(AnswerStore(Path(sys.argv[1]) / str(number)))
    time.sleep(max(0.0, float(sys.argv[2]) + number / 100 - time.time()))
"""


def test_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    together = str(time.time() + 1.5)
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path), together]) for _ in range(3)
    ]
    assert [opener.wait(60) for opener in openers] == [0, 0, 0]


@pytest.mark.parametrize("attempt", range(3))
def test_a_kill_in_the_middle_loses_at_most_the_last(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "answers.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
    time.sleep(0.2 + 0.13 * attempt)
    reader = AnswerStore(path)  # reads while others write
    assert reader.get("a0") is not None
    said: dict[str, int] = {}
    for name, writer in zip("ab", writers, strict=True):
        os.kill(writer.pid, signal.SIGKILL)
        out, _ = writer.communicate()
        lines = [line for line in out.splitlines(keepends=True) if line.endswith("\n")]
        said[name] = int(lines[-1]) if lines else 0
    store = AnswerStore(path)
    for name, last in said.items():
        answers = [store.get(f"{name}{number}") for number in range(last + 1)]
        assert all(a is not None and a.text == "x" * 2000 for a in answers)
        assert store.get(f"{name}{last + 2}") is None
    store.put("after", Completion(text="goes on"))
    assert len(store) >= sum(said.values()) + 3


def test_a_damaged_file_is_an_error_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"this is no database, but long enough to be read as one" * 40)
    with pytest.raises(WorkspaceError, match="Delete the file"):
        CachedEngine(Echo(), tmp_path)


def test_a_full_disk_is_said_so_and_what_was_kept_stays(small_disk: Path) -> None:
    store = AnswerStore(small_disk / "answers.sqlite")
    kept = 0
    with pytest.raises(WorkspaceError, match="the disk is full") as caught:
        while kept < 1000:
            store.put(str(kept), Completion(text="x" * 2000))
            kept += 1
    assert "tunewise clean" in str(caught.value) and kept > 10
    store.close()
    store = AnswerStore(small_disk / "answers.sqlite")
    assert len(store) == kept
    store.close()
