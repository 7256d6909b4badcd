"""Which sandbox can be had here: tried once, from inside, before anything is trusted to it."""

from __future__ import annotations

import functools
import platform
import shutil
import sys

from tunewise.scoring.sandbox.calls import Sandbox, SandboxError
from tunewise.scoring.sandbox.walls import Limits, Wrap, with_bubblewrap, with_namespaces

_PROBE_S = 20.0
# What the probe looks for from inside, so that a wall that is not there is found before it counts.
# Of the host's folders it takes such as Python does not lie in: where it does, they are there.
_PROBE = """
import os, socket
def probe():
    walls = [
        os.getpid() < 10,
        not any(os.path.exists(p) for p in ("/proc", "/sys", "/run", "/boot", "/etc/passwd")),
        [name for _, name in socket.if_nameindex()] in ([], ["lo"]),
        set(os.environ) <= {"HOME", "LANG", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                            "PWD"},
        not os.access("/", os.W_OK),
    ]
    return sum(1 << k for k, wall in enumerate(walls) if not wall)
"""
_WALLS = ("own process numbers", "no host files", "no network", "empty environment", "read-only")


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
        outcome = sandbox.call()
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
