"""Hostile Python graders: each is stopped or finds nothing, in time, and the host is unharmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewise.scoring.sandbox import (
    Limits,
    Outcome,
    Sandbox,
    SandboxError,
    sandbox_kind,
    system_calls,
)
from tunewise.scoring.sandbox import probe as sandbox_probe
from tunewise.scoring.sandbox.walls import with_namespaces

pytestmark = pytest.mark.skipif(
    sandbox_kind() is None, reason=f"no sandbox here: {sandbox_probe._probed()[1]}"
)

SHORT = Limits(call_s=2.0)


def ran(source: str, *arguments: object, limits: Limits = SHORT) -> Outcome:
    """The outcome of one call of ``grade`` in a sandbox of its own."""
    with Sandbox(textwrap.dedent(source), "grade", limits) as sandbox:
        return sandbox.call(*arguments)


def descendants(pid: int) -> set[int]:
    """Processes below ``pid``, as the host sees them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while more := {p for p, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = descendants(os.getpid())
    yield
    deadline = time.monotonic() + 5
    while (left := descendants(os.getpid()) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def test_a_function_is_called_with_json_values_again_and_again() -> None:
    source = """
        import json, math, re, statistics, collections
        calls = 0
        def grade(sample, item):
            global calls
            calls += 1
            print("this goes nowhere", flush=True)
            return calls + len(sample["output_text"]) * item["weight"]
    """
    with Sandbox(textwrap.dedent(source), "grade") as sandbox:
        values = [sandbox.call({"output_text": "abc"}, {"weight": 0.5}).value for _ in range(500)]
    assert values == [k + 2.5 for k in range(500)]


def test_installed_packages_can_be_used() -> None:
    outcome = ran(
        """
        import numpy as np
        from rapidfuzz import fuzz
        def grade(sample, item):
            return np.float32(np.mean([0.0, fuzz.ratio(sample, item) / 100]))
        """,
        "abc",
        "abc",
        limits=Limits(call_s=20),
    )
    assert outcome == Outcome("ok", 0.5)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def grade(sample, item): return 1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        ("def grade(sample, item): return 'one'", "must be a number, not str"),
        ("def grade(sample, item): return None", "must be a number, not NoneType"),
        ("def grade(sample, item): return float('nan')", "finite"),
        ("def grade(sample, item): return 10 ** 400", "OverflowError"),
        ("def grade(sample): return 1", "TypeError"),
        ("def grade(sample, item): return 1 +", "SyntaxError"),
        ("def other(sample, item): return 1", "defines no function 'grade'"),
        ("import no_such_package\ndef grade(sample, item): return 1", "ModuleNotFoundError"),
        ("def grade(sample, item):\n    import sys\n    sys.exit(3)", "SystemExit: 3 (line 3)"),
        ("def grade(sample, item): return grade(sample, item)", "RecursionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class E(Exception):\n  def __str__(self): raise self\ndef grade(s, i): raise E", "E"),
        ("(" * 5000, "Error"),
        ("def grade(s, i): return 1\n\0", "null bytes"),
    ],
)
def test_what_the_source_raises_is_told(source: str, told: str) -> None:
    outcome = ran(source, "", {})
    assert outcome.ending == "raised"
    assert told in (outcome.error or "")


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(3600)",
        "re.match('(a+)+$', 'a' * 64 + 'b')",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(3600)",
    ],
)
def test_an_endless_call_ends_in_time_and_the_next_one_works(body: str) -> None:
    source = f"import re, signal, time\ndef grade(s, i):\n  if i:\n    {body}\n  return 0.25\n"
    with Sandbox(source, "grade", Limits(call_s=1.0)) as sandbox:
        start = time.monotonic()
        assert sandbox.call("", True).ending == "timeout"
        assert time.monotonic() - start < 6
        assert sandbox.call("", False) == Outcome("ok", 0.25)


def test_a_hanging_import_costs_its_time_once() -> None:
    with Sandbox("while True: pass", "grade", Limits(call_s=1.0)) as sandbox:
        start = time.monotonic()
        outcomes = [sandbox.call("", {}) for _ in range(50)]
        assert time.monotonic() - start < 6
    assert {outcome.ending for outcome in outcomes} == {"timeout"}


def test_processor_time_is_limited_too() -> None:
    # Threads of C code could burn several seconds a second; the sum counts.
    outcome = ran("def grade(s, i):\n    while True: pass", "", {}, limits=Limits(call_s=1.4))
    assert outcome.ending == "timeout"


def test_no_process_can_be_started() -> None:
    outcome = ran(
        """
        import ctypes, os, subprocess, sys
        def grade(sample, item):
            started = 0
            for start in (
                os.fork,
                lambda: os.posix_spawn(sys.executable, [sys.executable], {}),
                lambda: subprocess.run(["/bin/sh", "-c", "true"]),
                lambda: os.execv(sys.executable, [sys.executable]),
                lambda: ctypes.CDLL(None).vfork() == -1 and os.fork(),
            ):
                try:
                    start()
                    started += 1
                except OSError:
                    pass
            return started
        """,
        "",
        {},
    )
    assert outcome == Outcome("ok", 0.0)


def test_a_fork_bomb_does_nothing() -> None:
    outcome = ran(
        """
        import os
        def grade(sample, item):
            while True:
                try:
                    os.fork()
                except OSError as error:
                    raise RuntimeError("refused") from error
        """,
        "",
        {},
    )
    assert outcome.ending == "raised" and "refused" in (outcome.error or "")


def test_threads_are_limited() -> None:
    outcome = ran(
        """
        import threading, time
        def grade(sample, item):
            started = 0
            try:
                for _ in range(10_000):
                    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                    started += 1
            except RuntimeError:
                pass
            return started
        """,
        "",
        {},
        limits=Limits(call_s=20),
    )
    assert outcome.ending == "ok"
    # 8 MB of stack each: the limit on memory holds where the kernel counts threads otherwise.
    assert 1 <= outcome.value < 400


@pytest.mark.parametrize(
    "body",
    [
        "return len(bytearray(8 * 1024**3))",
        "kept = []\n    while True: kept.append(bytearray(64 * 1024**2))",
        "kept = [0]\n    while True: kept += kept",
        "import mmap\n    return len(mmap.mmap(-1, 8 * 1024**3))",
    ],
)
def test_a_memory_hog_is_stopped(body: str) -> None:
    outcome = ran(f"def grade(sample, item):\n    {body}\n", "", {}, limits=Limits(call_s=30))
    assert outcome.ending in ("raised", "crashed")
    if outcome.ending == "raised":
        assert "memory" in str(outcome.error).lower()


def test_memory_that_no_limit_counts_cannot_be_had() -> None:
    outcome = ran(
        """
        import os
        def grade(sample, item):
            os.memfd_create("x")
        """,
        "",
        {},
    )
    assert "PermissionError" in (outcome.error or "")


def test_scratch_is_there_and_small_and_all_else_is_read_only() -> None:
    outcome = ran(
        """
        import errno, os, tempfile
        def grade(sample, item):
            with tempfile.TemporaryFile() as file:
                file.write(b"x")
            written = 0
            try:
                for number in range(1000):
                    with open(f"/tmp/{number}", "wb") as file:
                        written += file.write(bytes(1024**2))
            except OSError as error:
                assert error.errno in (errno.ENOSPC, errno.EFBIG), error
            for folder, _, _ in os.walk("/"):
                if not folder.startswith("/tmp"):
                    try:
                        open(f"{folder}/x", "w")
                    except OSError:
                        continue
                    raise AssertionError(folder)
            return written / 1024**2
        """,
        "",
        {},
        limits=Limits(call_s=30, scratch_bytes=32 * 1024**2),
    )
    assert outcome.ending == "ok", outcome.error
    assert 16 <= outcome.value <= 32


def test_a_file_cannot_grow_beyond_its_limit() -> None:
    outcome = ran(
        """
        def grade(sample, item):
            with open("/tmp/x", "wb") as file:
                file.truncate(10 * 1024**3)
        """,
        "",
        {},
    )
    assert "OSError" in (outcome.error or "")


def test_the_hosts_files_and_environment_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-parent")
    paths = [
        *("/etc/passwd", "/etc/shadow", "/proc/1/environ", "/proc/self/environ", "/root", "/sys"),
        *(str(Path.home()), str(secret), str(Path(__file__)), "/var", "/dev/shm", "/dev/mem"),
        *("/bin/sh", "/usr/bin/env", "/run", "/proc/sys/kernel/core_pattern"),
    ]
    # Folders on the way to the interpreter show, with nothing in them but that way.
    runtime = [sys.base_prefix, sys.prefix]
    outcome = ran(
        """
        import os
        def grade(sample, item):
            read = []
            for path in sample:
                try:
                    shown = os.listdir(path) if os.path.isdir(path) else open(path).read()
                except OSError:
                    continue
                ways = [r for r in item if r.startswith(path.rstrip("/") + "/")]
                if not ways or set(shown) != {r[len(path):].strip("/").split("/")[0] for r in ways}:
                    read.append(path)
            assert not read, read
            assert "secret" not in repr(dict(os.environ)), dict(os.environ)
            return len(os.environ)
        """,
        paths,
        runtime,
    )
    assert outcome.ending == "ok", outcome.error
    assert outcome.value <= 6


def test_no_socket_is_made_but_unix_ones_and_those_are_joined_to_nothing() -> None:
    outcome = ran(
        """
        import ctypes, errno, socket
        libc = ctypes.CDLL(None, use_errno=True)
        def refused(call, *given):
            return call(*given) == -1 and ctypes.get_errno() == errno.EPERM
        def grade(sample, item):
            kinds = (1, 2, 3, 5, 1 | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            families = [f for f in [*range(128), 2**31 - 1, -1] if f != socket.AF_UNIX]
            made = [f for f in families for k in kinds if not refused(libc.socket, f, k, 0)]
            assert not made, made
            pair = (ctypes.c_int * 2)()
            made = [f for f in families if not refused(libc.socketpair, f, 1, 0, pair)]
            assert not made, made
            one, other = socket.socketpair()
            one.sendall(b"x")
            assert other.recv(1) == b"x"
            with socket.socket(socket.AF_UNIX) as alone:
                # Asked of no descriptor, so that nothing happens where nothing refuses.
                for name in ("connect", "bind", "accept"):
                    assert refused(getattr(libc, name), -1, None, 0), name
                assert refused(libc.listen, -1, 1)
                return alone.family == socket.AF_UNIX
        """,
        "",
        {},
    )
    assert outcome == Outcome("ok", 1.0), outcome


def test_system_calls_that_no_grader_needs_are_refused() -> None:
    calls = system_calls.refused()
    assert {"semget", "msgget", "shmget", "bpf", "ptrace", "keyctl", "io_uring_setup"} < {*calls}
    outcome = ran(
        """
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        def grade(sample, item):
            done = {}
            for name, (number, given) in item.items():
                result = libc.syscall(number, *map(ctypes.c_long, given))
                if result != -1 or ctypes.get_errno() != errno.EPERM:
                    done[name] = (result, ctypes.get_errno())
            assert not done, done
            # Of a kernel newer than the table: unknown, so that the C library takes another way.
            assert libc.syscall(999, 0) == -1 and ctypes.get_errno() == errno.ENOSYS
            assert libc.syscall(0x40000000 + 39) == -1 and ctypes.get_errno() == errno.EPERM
            return len(item)
        """,
        "",
        calls,
    )
    assert outcome == Outcome("ok", len(calls)), outcome


def test_the_filter_names_each_call_once_and_none_that_is_refused() -> None:
    for known in (0, 1):
        numbers = [
            each[known] for each in system_calls._ALLOWED.values() if each[known] is not None
        ]
        numbers += [each[known] for each, _, _ in system_calls._BY_ARGUMENT.values()]
        assert len(set(numbers)) == len(numbers)
        refused = {name: each[known] for name, (each, _) in system_calls._REFUSED.items()}
        del refused["clone"]  # allowed where it makes a thread
        assert not set(refused.values()) & set(numbers)
        steps = system_calls._steps(known)
        assert max(max(yes, no) for _, yes, no, _ in steps) < 256 and len(steps) < 4096
        assert steps[-1][0] == system_calls._RETURN


def test_what_graders_are_made_of_works() -> None:
    outcome = ran(
        """
        import asyncio, concurrent.futures, hashlib, io, locale, logging, os, queue, random, re
        import select, shutil, signal, sqlite3, tempfile, threading, time, uuid, zoneinfo
        async def answer():
            await asyncio.sleep(0.001)
            return await asyncio.to_thread(lambda: 1)
        def grade(sample, item):
            assert asyncio.run(answer()) == 1
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                assert sum(pool.map(len, [sample] * 8)) == 8 * len(sample)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "a")
                with open(path, "w") as file:
                    file.write(sample)
                shutil.copy2(path, path + "2")
                os.replace(path + "2", path + "3")
                with sqlite3.connect(os.path.join(folder, "db")) as base:
                    base.execute("create table t (x)")
                    base.execute("insert into t values (1)")
                base.close()
                assert len(os.listdir(folder)) == 3 and os.stat(path).st_size == len(sample)
            rang = []
            signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            signal.pause()
            assert rang == [1]
            os.urandom(4), uuid.uuid4(), random.random(), time.sleep(0.001), os.cpu_count()
            hashlib.sha256(b"x"), logging.getLogger("x").info("x"), locale.getlocale()
            return 1
        """,
        "abc",
        {},
        limits=Limits(call_s=20),
    )
    assert outcome == Outcome("ok", 1.0), outcome


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP"])
@pytest.mark.parametrize("target", ["1", "-1", "os.getppid()"])
def test_killing_ends_nothing_outside(target: str, signal_name: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        source = f"""
            import os, signal
            def grade(sample, item):
                os.kill({target}, signal.{signal_name})
                os.kill(item, signal.SIGKILL)
        """
        outcome = ran(source, "", bystander.pid, limits=Limits(call_s=1.0))
        assert outcome.ending in ("raised", "crashed", "timeout")
        assert bystander.poll() is None
        bystander.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("os._exit(0)", "code 0"),
        ("os._exit(7)", "code 7"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
        ("ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_a_process_that_ends_itself_is_replaced(body: str, told: str) -> None:
    source = f"import ctypes, os\ndef grade(sample, item):\n    if item: {body}\n    return 1.0\n"
    with Sandbox(source, "grade", SHORT) as sandbox:
        crashed = sandbox.call("", True)
        assert (crashed.ending, told in (crashed.error or "")) == ("crashed", True), crashed
        assert sandbox.call("", False) == Outcome("ok", 1.0)


@pytest.mark.parametrize(
    "body",
    [
        "print('junk'); sys.stderr.write('junk'); os.write(1, b'junk'); os.write(2, b'junk')",
        "print('x' * 10_000_000)",
        "sys.stdout.close(); sys.stdin.close(); sys.stderr.close()",
        "os.close(0); os.close(1); os.close(2)",
        "assert sys.stdin.read() == ''",
    ],
)
def test_junk_on_the_standard_streams_harms_nothing(body: str) -> None:
    source = f"import os, sys\ndef grade(sample, item):\n    {body}\n    return 0.5\n"
    assert ran(source, "", {}) == Outcome("ok", 0.5)


@pytest.mark.parametrize(
    "write",
    [
        "b'junk\\n'",
        "b'x' * 200_000",
        "b'\\xff\\n'",
        "b'[1]\\n'",
        "b'{}\\n'",
        'b\'{"ok": "many"}\\n\'',
        "b'{\"ok\": NaN}\\n'",
    ],
)
def test_writing_into_the_channel_spoils_only_the_own_result(write: str) -> None:
    source = f"""
import os
def grade(sample, item):
    if item:
        for fd in range(3, 20):
            try:
                os.write(fd, {write})
            except OSError:
                pass
    return 1.0
"""
    with Sandbox(source, "grade", SHORT) as sandbox:
        spoilt = sandbox.call("", True)
        assert spoilt.ending != "ok" or spoilt.value == 1.0
        assert sandbox.call("", False) == Outcome("ok", 1.0)


def test_walls_cannot_be_taken_down_from_inside() -> None:
    outcome = ran(
        """
        import ctypes, os, resource
        def grade(sample, item):
            libc = ctypes.CDLL(None, use_errno=True)
            done = []
            for name, call in {
                "unshare": lambda: libc.unshare(0x10000000),
                "mount": lambda: libc.mount(b"proc", b"/tmp", b"proc", 0, None),
                "umount": lambda: libc.umount2(b"/", 2),
                "setns": lambda: libc.setns(0, 0),
                "ptrace": lambda: libc.ptrace(16, 1, 0, 0),
                "chroot": lambda: libc.chroot(b"/tmp"),
                "setuid": lambda: libc.setuid(0),
                "setgid": lambda: libc.setgid(0),
                "mknod": lambda: libc.mknod(b"/tmp/d", 0o60666, 0x800),
                "sethostname": lambda: libc.sethostname(b"x", 1),
                "32-bit": lambda: libc.syscall(0x40000000 + 39),
            }.items():
                if call() != -1:
                    done.append(name)
            for limit in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
                try:
                    resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                    done.append(limit)
                except (ValueError, OSError):
                    pass
            assert not done, done
            assert os.getuid() != 0 and set(os.getgroups()) <= {65534, os.getgid()}
            return 1
        """,
        "",
        {},
    )
    assert outcome == Outcome("ok", 1.0)


def test_arguments_that_are_no_json_are_told() -> None:
    with Sandbox("def grade(s, i): return 1", "grade", SHORT) as sandbox:
        assert sandbox.call(float("nan"), {}).ending == "raised"
        assert sandbox.call({1, 2}, {}).ending == "raised"
        assert sandbox.call("\ud800", {}) == Outcome("ok", 1.0)


def test_long_arguments_pass() -> None:
    with Sandbox("def grade(s, i): return len(s)", "grade", Limits(call_s=20)) as sandbox:
        assert sandbox.call("x" * 5_000_000, {}) == Outcome("ok", 5e6)


def test_a_source_beyond_the_limit_is_refused() -> None:
    with pytest.raises(SandboxError, match="256 KiB"):
        Sandbox("#" * (256 * 1024 + 1), "grade")


def test_several_threads_share_one_sandbox() -> None:
    results: list[float] = []
    with Sandbox("def grade(s, i): return i", "grade", SHORT) as sandbox:
        threads = [
            threading.Thread(target=lambda k=k: results.append(sandbox.call("", k).value))
            for k in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == list(range(20))


def test_all_ends_with_whoever_asks() -> None:
    script = (
        "import sys, threading\n"
        "from tunewise.scoring.sandbox import Limits, Sandbox\n"
        "box = Sandbox('import time\\ndef grade(s, i):\\n    while True: pass', 'grade')\n"
        "box.check()\n"
        "threading.Thread(target=box.call, args=('', {})).start()\n"
        "print('ready', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        below = descendants(parent.pid)
        assert len(below) >= 3
        parent.kill()
    deadline = time.monotonic() + 5
    while (left := {p for p in below if Path(f"/proc/{p}").exists()}) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left


def test_where_no_sandbox_can_be_had_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = Limits(scratch_bytes=-1)  # a file system that cannot be mounted
    marker = tmp_path / "marker"
    source = f"open({str(marker)!r}, 'w')\ndef grade(s, i): return 1"
    with Sandbox(source, "grade", broken, wrap=with_namespaces) as sandbox:
        outcome = sandbox.call("", {})
    assert outcome.ending == "refused"
    assert "could not be built" in (outcome.error or "")
    assert not marker.exists()
    monkeypatch.setattr(sandbox_probe, "_probed", lambda: (None, "user namespaces: forbidden"))
    with pytest.raises(SandboxError, match="user namespaces: forbidden"):
        Sandbox(source, "grade")


def test_the_probe_finds_a_wall_that_is_missing() -> None:
    # No walls at all: the worker as a plain process of the host.
    def unguarded(command: list[str], limits: Limits) -> list[str]:
        worker = Path(sandbox_probe.__file__).with_name("worker.py")
        return [part if part != "/worker.py" else str(worker) for part in command]

    why = sandbox_probe._why_not(unguarded)
    assert why is not None
    assert "no host files" in why and "own process numbers" in why
    assert "system calls" not in why


def test_the_probe_finds_a_filter_that_lets_something_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed = {**system_calls._ALLOWED, "socket": (41, 198), "semget": (64, 190)}
    monkeypatch.setattr(system_calls, "_ALLOWED", allowed)
    why = sandbox_probe._why_not(with_namespaces)
    assert why == "walls are missing: no sockets but AF_UNIX, few system calls"
    monkeypatch.setattr(system_calls, "machine", lambda: None)
    assert "system calls" in str(sandbox_probe._why_not(with_namespaces))
