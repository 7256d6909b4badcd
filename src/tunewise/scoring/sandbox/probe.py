"""Which sandbox can be had here: tried once, from inside, before anything is trusted to it."""

from __future__ import annotations

import functools
import platform
import shutil
import sys

from tunewise.scoring.sandbox import system_calls
from tunewise.scoring.sandbox.calls import Sandbox, SandboxError
from tunewise.scoring.sandbox.walls import Limits, Wrap, with_bubblewrap, with_namespaces

_PROBE_S = 20.0
# What the probe looks for from inside, so that a wall that is not there is found before it counts.
# Of the host's folders it takes such as Python does not lie in: where it does, they are there.
# A wall is tried by asking for the thing and nothing more: a socket is made, and joined to nothing.
_PROBE = """
import ctypes, errno, fcntl, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def refused(number, given):
    return libc.syscall(number, *map(ctypes.c_long, given)) == -1 and (
        ctypes.get_errno() == errno.EPERM
    )
def opens(family):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind).close()
            return True
        except OSError as error:
            if error.errno != errno.EPERM:
                return True
    return False
def interfaces():
    space = ctypes.create_string_buffer(4096)
    ask = struct.pack("@iP", len(space), ctypes.addressof(space))
    with socket.socket(socket.AF_UNIX) as any_socket:
        length = struct.unpack_from("@i", fcntl.ioctl(any_socket, 0x8912, ask))[0]
    return [space.raw[at : at + 16].rstrip(bytes(1)) for at in range(0, length, 40)]
def probe(calls):
    walls = [
        os.getpid() < 10,
        not any(os.path.exists(p) for p in ("/proc", "/sys", "/run", "/boot", "/etc/passwd")),
        set(interfaces()) <= {b"lo"},
        set(os.environ) <= {"HOME", "LANG", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                            "PWD"},
        not os.access("/", os.W_OK),
        not any(opens(family) for family in range(64) if family != socket.AF_UNIX),
        calls and all(refused(number, given) for number, given in calls),
    ]
    return sum(1 << k for k, wall in enumerate(walls) if not wall)
"""
_WALLS = (
    *("own process numbers", "no host files", "no network", "empty environment", "read-only"),
    *("no sockets but AF_UNIX", "few system calls"),
)


@functools.cache
def _probed() -> tuple[Wrap | None, str]:
    """The way that works here, tried once, and else why none does."""
    if sys.platform != "linux":
        return None, f"sandboxes are made of Linux namespaces, and this is {platform.system()}"
    ways: list[tuple[str, Wrap]] = [("user namespaces", with_namespaces)]
    if shutil.which("bwrap"):
        ways.insert(0, ("bubblewrap", with_bubblewrap))
    reasons = []
    for name, wrap in ways:
        failed = _why_not(wrap)
        if failed is None:
            return wrap, name
        reasons.append(f"{name}: {failed}")
    return None, "; ".join(reasons)


def _why_not(wrap: Wrap) -> str | None:
    with Sandbox(_PROBE, "probe", Limits(call_s=_PROBE_S), wrap=wrap) as sandbox:
        outcome = sandbox.call(list(system_calls.refused().values()))
    if outcome.ending != "ok":
        return outcome.error
    missing = [wall for k, wall in enumerate(_WALLS) if int(outcome.value) >> k & 1]
    return f"walls are missing: {', '.join(missing)}" if missing else None


def sandbox_kind() -> str | None:
    """``bubblewrap`` or ``user namespaces``, whichever works here; None where neither does."""
    wrap, name = _probed()
    return name if wrap is not None else None


def require_sandbox() -> Wrap:
    """The way to make a sandbox here; probed once in the life of this process.

    Raises:
        SandboxError: there is none; says what was tried.
    """
    wrap, why = _probed()
    if wrap is None:
        raise SandboxError(
            f"no sandbox can be had here, so no Python grader is run ({why})",
            hint="Install bubblewrap, or allow unprivileged user namespaces "
            "(sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0; in a "
            "container: --security-opt seccomp=unconfined).",
        )
    return wrap
