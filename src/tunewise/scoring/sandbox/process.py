"""The running sandbox and the pipes to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time

from tunewise.scoring.sandbox.walls import ENVIRONMENT, Limits, Wrap, command

LONGEST_REPLY = 64 * 1024


class Process:
    """One sandbox from its start to its end; not for several threads at once."""

    def __init__(self, wrap: Wrap, limits: Limits) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._process = subprocess.Popen(
            wrap(command(limits), limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=ENVIRONMENT,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        os.set_blocking(self._to.fileno(), False)
        os.set_blocking(self._from.fileno(), False)

    def exchange(self, line: bytes, seconds: float) -> bytes:
        """Send a line (or nothing), read a line.

        Raises:
            TimeoutError: not answered within ``seconds``.
            EOFError: the process ended.
            ValueError: the answer is longer than any answer of the worker.
        """
        deadline = time.monotonic() + seconds
        rest, answer = memoryview(line), b""
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        if line:
            poll.register(self._to, select.POLLOUT)
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for ready, _ in poll.poll(min(left, 60.0) * 1000):
                if ready == self._to.fileno():
                    rest = rest[self._send(rest) :]
                    if not rest:
                        poll.unregister(self._to)
                    continue
                more = os.read(ready, LONGEST_REPLY)
                answer += more
                if not more:
                    raise EOFError
                if len(answer) > LONGEST_REPLY:
                    raise ValueError("answer too long")
        return answer

    def _send(self, rest: memoryview) -> int:
        try:
            return os.write(self._to.fileno(), rest[: select.PIPE_BUF])
        except BrokenPipeError:
            raise EOFError from None

    def end(self, grace: float = 0.0) -> tuple[int, str]:
        """End it with all that runs inside; its exit code and what its start said on stderr.

        Args:
            grace: seconds to wait first for one that is ending by itself.
        """
        if self._said.closed:
            return self._process.returncode, ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._from.close()
        self._to.close()
        self._said.seek(0)
        said = self._said.read(2_000).decode("utf-8", "replace").strip()
        self._said.close()
        return code, said
