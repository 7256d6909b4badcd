"""Builds a sandbox out of Linux namespaces and becomes the program that runs inside it.

Run as a script of its own by :mod:`tunewise.scoring.sandbox` where bubblewrap is not installed; it
imports the standard library only. One argument: the plan, as JSON (see ``Plan``). Three processes:

* the launcher writes the user map of the second one, which only a process outside may do;
* the second enters new user, mount, pid, network, IPC, UTS and cgroup namespaces;
* the third is process 1 of the new pid namespace. It builds a file system that holds nothing but
  the plan's read-only paths and a scratch folder, gives up every right and executes the plan's
  command. When it ends, the kernel ends whatever else runs in the namespace.

Source: the manual pages namespaces(7), user_namespaces(7), pivot_root(2) and mount_setattr(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import sys
from typing import Any, NoReturn, TypedDict

_CLONE_NEWNS = 0x00020000
_CLONE_ALL_NEW = (
    _CLONE_NEWNS
    | 0x02000000  # cgroup
    | 0x04000000  # UTS
    | 0x08000000  # IPC
    | 0x10000000  # user
    | 0x20000000  # pid
    | 0x40000000  # network
)
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # one number on all machines
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG = 1
_INSIDE = 1000  # user and group inside; any number but 0, so that executing drops all rights
_NOBODY = 65534
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


class Plan(TypedDict):
    """What the sandbox shows and runs."""

    read_only: list[list[str]]
    """Pairs (path outside, path inside)."""
    scratch_bytes: int
    command: list[str]
    environment: dict[str, str]


_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if t is None else os.fsencode(t) for t in (source, target, kind, data)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _check(result, f"mounting {target}")


class _MountAttr(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    ]


def _restrict(target: str, attributes: int, *, recursive: bool) -> None:
    given = _MountAttr(attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(given),
        ctypes.c_size_t(ctypes.sizeof(given)),
    )
    _check(result, f"making {target} read-only")


def _pivot(new: str, old: str) -> None:
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"not written for machines of the kind {platform.machine()}")
    _check(
        _libc.syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old)), "changing root"
    )


def _bind(source: str, target: str) -> None:
    """``source`` shows at ``target``, which is made, with its parents, as folder or empty file."""
    if os.path.isdir(source):  # noqa: PTH112 (the script starts for every grader: no pathlib)
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        with open(target, "ab"):  # noqa: PTH123
            pass
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _build_root(plan: Plan) -> None:
    """The new root, built beside the old one, which is then let go for good."""
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # A stage of our own first: paths of the host below /tmp are then still to be had.
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for name in ("/tmp/inner", "/tmp/host"):
        os.mkdir(name)  # noqa: PTH102
    _pivot("/tmp", "/tmp/host")
    os.chdir("/")
    _mount("tmpfs", "/inner", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    # Before what is shown read-only: Python itself may lie below /tmp.
    os.mkdir("/inner/tmp")  # noqa: PTH102
    scratch = f"mode=1777,size={plan['scratch_bytes']},nr_inodes=16384"
    _mount("tmpfs", "/inner/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, scratch)
    for outside, inside in plan["read_only"]:
        _bind(f"/host{outside}", f"/inner{inside}")
        rights = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
        _restrict(f"/inner{inside}", rights, recursive=True)
    for device in _DEVICES:
        _bind(f"/host{device}", f"/inner{device}")
        _restrict(f"/inner{device}", _MOUNT_ATTR_NOSUID, recursive=False)
    _restrict("/inner", _MOUNT_ATTR_RDONLY, recursive=False)
    os.chdir("/inner")
    _pivot(".", ".")
    _check(_libc.umount2(b".", ctypes.c_int(_MNT_DETACH)), "letting go of the host's files")
    os.chdir("/tmp")


def _become_nobody(*, was_root: bool) -> None:
    if was_root:
        os.setgroups([])
        os.setresgid(_INSIDE, _INSIDE, _INSIDE)
        os.setresuid(_INSIDE, _INSIDE, _INSIDE)
    # Last, for a change of user takes it away again.
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "tying the sandbox to its parent")


def _first_process(plan: Plan, *, was_root: bool) -> NoReturn:
    # No further user namespaces inside, in which a grader would hold rights over parts of the
    # kernel that it has no business with. Containers may forbid the write; the rest stands.
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:  # noqa: PTH123
        file.write("0")
    _build_root(plan)
    name = b"sandbox"
    _check(_libc.sethostname(name, ctypes.c_size_t(len(name))), "naming the host")
    _become_nobody(was_root=was_root)
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def _map_user(pid: int) -> None:
    """Root keeps itself while it builds and is nobody afterwards; others stay who they are.

    The kernel's limit on processes holds for everybody but root, so root must not stay root.
    """
    if os.geteuid() == 0:
        maps = dict.fromkeys(("uid_map", "gid_map"), f"0 0 1\n{_INSIDE} {_NOBODY} 1")
    else:
        maps = {
            "setgroups": "deny",
            "uid_map": f"{_INSIDE} {os.geteuid()} 1",
            "gid_map": f"{_INSIDE} {os.getegid()} 1",
        }
    for name, text in maps.items():
        with open(f"/proc/{pid}/{name}", "w") as file:  # noqa: PTH123
            file.write(text)


def _let_go_of_channel() -> None:
    """Who waits must not hold the pipes, or nobody would notice that the worker closed them."""
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)


def _follow(pid: int) -> NoReturn:
    _let_go_of_channel()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _second_process(plan: Plan, entered: int, mapped: int) -> NoReturn:
    was_root = os.geteuid() == 0
    _check(_libc.unshare(ctypes.c_int(_CLONE_ALL_NEW)), "entering new namespaces")
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "tying the sandbox to its parent")
    os.write(entered, b"x")
    if os.read(mapped, 1) != b"x":
        os._exit(1)
    first = os.fork()
    if first == 0:
        _guarded(_first_process, plan, was_root=was_root)
    _follow(first)


def _at(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _guarded(step: Any, *given: Any, **named: Any) -> NoReturn:
    try:
        step(*given, **named)
    except OSError as error:
        os.write(2, f"{error.strerror or error}{_at(error)}\n".encode())
    finally:
        os._exit(1)


def main() -> NoReturn:
    """Build the sandbox of the plan in the first argument and wait for its end.

    Exits with the command's code, 128 + signal, or 1 with a line on stderr where the sandbox could
    not be built.
    """
    plan: Plan = json.loads(sys.argv[1])
    entered, mapped = os.pipe(), os.pipe()
    second = os.fork()
    if second == 0:
        os.close(entered[0])
        os.close(mapped[1])
        _guarded(_second_process, plan, entered[1], mapped[0])
    os.close(entered[1])
    os.close(mapped[0])
    if os.read(entered[0], 1) == b"x":
        try:
            _map_user(second)
        except OSError as error:
            os.write(2, f"mapping users: {error.strerror}\n".encode())
            os._exit(1)
        os.write(mapped[1], b"x")
    os.close(mapped[1])
    _follow(second)


if __name__ == "__main__":
    main()
