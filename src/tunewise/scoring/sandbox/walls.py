"""How a sandbox is built: what it shows, and the command that puts the walls around it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunewise.scoring.sandbox import system_calls

ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    # Numeric libraries otherwise start a thread per core, and reserve memory for each.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_WORKER_INSIDE = "/worker.py"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandboxed function may use.

    Attributes:
        call_s: wall seconds of one call; also of loading the source.
        memory_bytes: address space of the one process.
        scratch_bytes: the folder ``/tmp`` inside, held in memory; also the largest file.
        threads: most threads at once.
        lifetime_s: processor seconds after which the process is renewed.
    """

    call_s: float = 120.0
    memory_bytes: int = 2 * 1024**3
    scratch_bytes: int = 256 * 1024**2
    threads: int = 32
    lifetime_s: int = 3600


Wrap = Callable[[list[str], Limits], list[str]]
"""Makes of a command, to be run inside, the command that builds the sandbox around it."""


def command(limits: Limits) -> list[str]:
    given = {
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.scratch_bytes,
        "threads": limits.threads + _threads_counted_with_ours(),
        "cpu_s": limits.lifetime_s,
        "call_cpu_s": max(1, round(limits.call_s)),
        "packages": _packages(),
        "system_calls": system_calls.program().hex(),
    }
    # -I: no environment, no user folder; -S: no site, whose .pth files name folders of the host.
    return [_interpreter(), "-I", "-S", "-B", _WORKER_INSIDE, json.dumps(given)]


def _threads_counted_with_ours() -> int:
    """Threads that the kernel counts against the same limit: all of this user's, before 5.14."""
    if os.geteuid() == 0:
        return 4
    count = 4
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid == os.geteuid():
                count += sum(1 for _ in (process / "task").iterdir())
    return count


def _interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _packages() -> list[str]:
    paths = sysconfig.get_paths()
    return sorted({paths["purelib"], paths["platlib"]})


@functools.cache
def _runtime() -> tuple[tuple[str, str], ...]:
    """The read-only paths of the Python runtime, as (outside, inside), none inside another."""
    wanted = [_interpreter(), *_packages()]
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
    wanted += [paths["stdlib"], paths["platstdlib"]]
    if sys.base_prefix != "/usr":
        wanted.append(f"{sys.base_prefix}/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH")
    folders = [f"/lib/{multiarch}", f"/usr/lib/{multiarch}"] if multiarch else []
    if not any(Path(f).is_dir() for f in folders):
        folders = ["/lib", "/usr/lib", "/usr/lib64"]
    wanted += [*folders, "/lib64", "/etc/ld.so.cache"]
    # A path and what it really is, for links between them lead from one to the other.
    pairs = {name: os.path.realpath(name) for name in wanted if Path(name).exists()}
    pairs.update({real: real for real in list(pairs.values())})
    inside = sorted(pairs)
    kept = [p for p in inside if not any(p.startswith(f"{other}/") for other in inside)]
    worker = str(Path(__file__).with_name("worker.py").resolve())
    return (*((pairs[p], p) for p in kept), (worker, _WORKER_INSIDE))


def with_namespaces(command: list[str], limits: Limits) -> list[str]:
    plan = {
        "read_only": _runtime(),
        "scratch_bytes": limits.scratch_bytes,
        "command": command,
        "environment": ENVIRONMENT,
    }
    script = str(Path(__file__).with_name("spawn.py"))
    return [sys.executable, "-I", "-S", "-B", script, json.dumps(plan)]


def with_bubblewrap(command: list[str], limits: Limits) -> list[str]:
    program = shutil.which("bwrap") or "bwrap"
    made = [program, "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000"]
    made += ["--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        made += ["--setenv", name, value]
    # Before what is shown read-only: Python itself may lie below /tmp.
    made += ["--size", str(limits.scratch_bytes), "--tmpfs", "/tmp"]
    for outside, inside in _runtime():
        made += ["--ro-bind", outside, inside]
    for device in ("null", "zero", "random", "urandom"):
        made += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*made, "--chdir", "/tmp", "--remount-ro", "/", "--", *command]
