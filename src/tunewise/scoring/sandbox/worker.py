"""What runs inside the sandbox: one function of somebody else's source, called again and again.

Run as a script of its own by :mod:`tunewise.scoring.sandbox`; it imports the standard library
only. One argument: the limits, as JSON (see ``Limits``). JSON lines come in on stdin and go out on
stdout, one answer per line read:

                                             {"ok": null}  once, when it is ready
    {"source": "…", "function": "grade"}     {"ok": null}  or {"error": "…"}
    {"arguments": [sample, item]}            {"ok": 0.5}   or {"error": "…"}

The source sees neither pipe: its own stdin, stdout and stderr lead nowhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import numbers as number_kinds
import os
import resource
import select
import signal
import struct
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn, TypedDict

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LONGEST_ERROR = 2_000


class Limits(TypedDict):
    """Limits that the worker sets on itself before it reads any source."""

    memory_bytes: int
    file_bytes: int
    threads: int
    cpu_s: int
    call_cpu_s: int
    packages: list[str]
    system_calls: str
    """The filter, as hexadecimal digits (see ``system_calls.py``)."""


def _allow_only(calls: bytes) -> str | None:
    """Put the filter of system calls on; why that cannot be, else None."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(calls, len(calls))
    program = struct.pack("@HP", len(calls) // 8, ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0
    ):
        return f"system calls cannot be filtered: {os.strerror(ctypes.get_errno())}"
    return None


def _limit(limits: Limits) -> None:
    for name, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["threads"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def _allow_call(seconds: int) -> None:
    """Processor time of one call; the process ends where it is used up."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def _told(error: BaseException) -> str:
    """The error in a line, with the line of the source that it comes from."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    with contextlib.suppress(Exception):
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == _NAME]
        place = f" (line {lines[-1]})" if lines else ""
        return f"{type(error).__name__}: {error}{place}"[:_LONGEST_ERROR]
    return type(error).__name__


_NAME = "<source>"


def _load(source: str, function: str) -> Callable[..., Any]:
    module = types.ModuleType("source")
    # A module that can be found by name, as dataclasses and pickles expect.
    sys.modules["source"] = module
    exec(compile(source, _NAME, "exec"), module.__dict__)
    found = getattr(module, function, None)
    if not callable(found):
        raise NameError(f"the source defines no function {function!r}")
    made: Callable[..., Any] = found
    return made


def _number(result: object) -> float:
    if not isinstance(result, number_kinds.Real):
        raise TypeError(f"the result must be a number, not {type(result).__name__}")
    value = float(result)
    if not math.isfinite(value):
        raise ValueError(f"the result must be a finite number, not {value}")
    return value


def _serve(channel: BinaryIO, out: int, limits: Limits) -> None:
    grade: Callable[..., Any] | None = None
    reply: dict[str, Any] = {"ok": None}
    _say(out, reply)
    for line in channel:
        request = json.loads(line)
        _allow_call(limits["call_cpu_s"])
        # Whatever the source raises, SystemExit and KeyboardInterrupt too, is its answer.
        try:
            if "source" in request:
                grade = _load(request["source"], request["function"])
                reply = {"ok": None}
            elif grade is None:
                reply = {"error": "there is no function to call"}
            else:
                reply = {"ok": _number(grade(*request["arguments"]))}
        except BaseException as error:
            reply = {"error": _told(error)}
        _say(out, reply)


def _say(out: int, reply: dict[str, Any]) -> None:
    text = json.dumps(reply).encode() + b"\n"
    while text:
        text = text[os.write(out, text) :]


def _work(limits: Limits) -> NoReturn:
    channel, out = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    sys.path.extend(limits["packages"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that is too large is an OSError
    _limit(limits)
    reason = _allow_only(bytes.fromhex(limits["system_calls"]))
    if reason is not None:
        _say(out, {"error": reason})
        os._exit(1)
    _serve(channel, out, limits)
    os._exit(0)


def main() -> NoReturn:
    """Start the worker and wait until it ends or whoever asks is gone; then all ends with us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits: Limits = json.loads(sys.argv[1])
    worker = os.fork()
    if worker == 0:
        _work(limits)
    os.close(1)
    ended = os.pidfd_open(worker)
    poll = select.poll()
    poll.register(0, 0)  # reports only that the other end is closed
    poll.register(ended, select.POLLIN)
    if any(fd == ended for fd, _ in poll.poll()):
        code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    os._exit(0)


if __name__ == "__main__":
    main()
