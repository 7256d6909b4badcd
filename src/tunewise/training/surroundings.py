"""What a run needs around it: its folder's lock, its events, and reproducible arithmetic."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunewise.errors import TrainingError
from tunewise.training.job import OnEvent

# Numbers of options and their defaults, from glibc's malloc.h (mallopt(3)).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def computing(threads: int) -> Iterator[None]:
    """Reproducible arithmetic: a fixed number of threads, and no kernel that depends on timing."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filler: Any = torch.utils.deterministic
    filling = filler.fill_uninitialized_memory
    torch.set_num_threads(threads)
    # Without it torch refuses products on a GPU; it is read when the first one is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling each new tensor guards against reads of what was never written; it costs a pass.
    filler.fill_uninitialized_memory = False
    try:
        with _freed_memory_kept():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        filler.fill_uninitialized_memory = filling


@contextlib.contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Let what is freed stay with the process, since each step asks for the same again.

    By default glibc hands every large tensor back to the system and takes new pages for the next,
    and the first touch of a page is dear. Other allocators are left alone.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError, TypeError):
        yield
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, 65536)
        mallopt(_M_TRIM_THRESHOLD, 128 * 1024)
        trim(0)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder; the system frees it when the process ends.

    Raises:
        TrainingError: when another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                "another process trains here",
                where=str(folder),
                hint="Wait for it to end, or stop it.",
            ) from error
        yield


class Events(contextlib.AbstractContextManager["Events"]):
    """Writes events to a file, a line each, and passes them on."""

    def __init__(self, path: Path, on_event: OnEvent | None) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._on_event = on_event

    def __call__(self, event: Any) -> None:
        stamped = {"time": time.time(), **event}
        self._file.write(json.dumps(stamped, ensure_ascii=False) + "\n")
        self._file.flush()
        if self._on_event is not None:
            self._on_event(stamped)

    def __exit__(self, *_: object) -> None:
        self._file.close()
