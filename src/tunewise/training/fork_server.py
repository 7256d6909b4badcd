"""Trainings in processes of their own, which begin with the libraries imported.

Importing torch, transformers and peft takes some ten seconds of a processor, often more than a
short training. So one process, the fork server, imports them once and forks for each training.
What is forked is a process like any other: in a session of its own, it outlives both the server
and whoever asked for it, and it ends only by itself or by a signal. The server does no arithmetic
and never asks CUDA for a GPU, since neither OpenMP's threads nor a CUDA context survive a fork.

It ends with the process that started it. Where the system cannot do this (it takes ``pidfd_open``
of Linux), or a library has asked for a GPU while it was imported, each training is a fresh process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from tunewise.processes import command, environment

Task = Literal["worker", "forecast"]
"""A module of this package with ``main(folder)``, which returns the exit code."""

_PRELOADED = (
    "peft",
    "tunewise.training.forecast",
    "tunewise.training.loop",
    "tunewise.training.trackers",
    "tunewise.training.worker",
)


class Process(Protocol):
    """A process that runs a task, as whoever started it sees it."""

    @property
    def pid(self) -> int: ...

    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    def wait(self) -> None:
        """Wait for its end."""
        ...


def start(task: Task, folder: Path) -> Process:
    """Run ``task`` on ``folder`` in a process of its own; its words go to ``worker.log`` there."""
    with _lock:
        forked = _fork(task, folder.absolute())
    if forked is not None:
        return forked
    with (folder / "worker.log").open("ab") as log:
        child = subprocess.Popen(
            command(f"tunewise.training.{task}", str(folder.absolute())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,  # the caller's Ctrl-C is the caller's to pass on
        )
    return _Spawned(child)


@dataclass(frozen=True, slots=True)
class _Spawned:
    _child: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self._child.pid

    def alive(self) -> bool:
        return self._child.poll() is None

    def wait(self) -> None:
        self._child.wait()


class _Forked:
    """The server's child: not ours to reap, but ours to watch."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._end = select.poll()
        try:
            self._fd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # over already
            self._fd = None
            return
        self._end.register(self._fd, select.POLLIN)

    def alive(self) -> bool:
        return not self._over(0)

    def wait(self) -> None:
        self._over(None)

    def _over(self, milliseconds: int | None) -> bool:
        if self._fd is not None and self._end.poll(milliseconds):
            self._end.unregister(self._fd)
            os.close(self._fd)
            self._fd = None
        return self._fd is None

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class _Server:
    """The fork server, as its client sees it; one request at a time.

    Attributes:
        usable: False where it could not start or has died.
    """

    def __init__(self, conditions: object) -> None:
        self.conditions = conditions
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            command("tunewise.training.fork_server"),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a fresh process meets the same trouble and logs it
            # Whether there is a GPU is then asked of the driver's library: once CUDA itself was
            # asked, a forked process can use none.
            env={**environment(), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            start_new_session=True,
        )
        try:
            # Before anything is asked for: a Ctrl-C while it imports leaves nothing that starts.
            self.usable = self._answer() == _READY
        except BaseException:
            self.close()
            raise

    def fork(self, task: Task, folder: Path) -> _Forked | None:
        """A new process; None where the server has died."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([task, str(folder)]).encode() + b"\n")
            pid = self._answer()
            if pid:
                return _Forked(int(pid))
        self.usable = False
        return None

    def close(self) -> None:
        """End it; what it has forked goes on."""
        if self._owner == os.getpid():  # else this process is a fork and has only copies
            self._process.kill()
        with self._process:  # closes the pipes and waits
            pass

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


_READY = b"ready\n"
_server: _Server | None = None
_lock = threading.Lock()


def _fork(task: Task, folder: Path) -> _Forked | None:
    """A process of the server's, which is started where there is none; None if it cannot be."""
    global _server
    if not hasattr(os, "pidfd_open"):
        return None
    # All that a fresh process would take from this one.
    conditions = (os.getpid(), str(Path.cwd()), dict(os.environ))
    if _server is None or _server.conditions != conditions:
        _close()
        _server = _Server(conditions)
    if not _server.usable:
        return None
    try:
        return _server.fork(task, folder)
    except BaseException:  # its answer is still to come, and would be taken for the next one's
        _close()
        raise


@atexit.register
def _close() -> None:
    global _server
    if _server is not None:
        _server.close()
    _server = None


def _serve() -> int:
    """Import, then fork for each line ``[task, folder]`` of standard input; the answer is a pid."""
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):  # who needs it will say so
            importlib.import_module(name)
    if not _fork_can_use_a_gpu():
        return 1
    signal.signal(signal.SIGCHLD, _reap)
    gc.collect()
    gc.freeze()  # else each child's collector would copy all that they share
    _say(_READY)
    while line := sys.stdin.readline():
        task, folder = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return _run(task, Path(folder))
        _say(b"%d\n" % pid)
    return 0


def _fork_can_use_a_gpu() -> bool:
    """Whether CUDA would work in a forked process, tried in one; True where there is no torch.

    Only a fork can tell: torch notes there that its parent had asked CUDA for something.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return True
    pid = os.fork()
    if pid == 0:
        os._exit(bool(torch.cuda._is_in_bad_fork()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _reap(_: int, __: FrameType | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(task: Task, folder: Path) -> int:
    """The child's life."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(folder / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for place, file in enumerate((nothing, log, log)):
        os.dup2(file, place)
    os.close(log)
    os.close(nothing)
    code: int = importlib.import_module(f"tunewise.training.{task}").main(folder)
    return code


def _say(line: bytes) -> None:
    os.write(1, line)


if __name__ == "__main__":
    sys.exit(_serve())
