"""JSON Schemas of strangers: each is compiled on trial first, in a process that can be ended.

What a regular expression costs to compile can double with each ``allOf`` around it, and a
compilation that runs cannot be stopped: two such requests would occupy the engine for good.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tunewise.models.constraint import OPTIONS, SchemaCompiler, SchemaError, SchemaGuide
from tunewise.processes import NOWHERE, command, environment

TRIAL_SECONDS = 5.0
_MOST_KEPT = 256


class TriedSchemas(SchemaCompiler):
    """Compiles schemas of requests: only those that a trial has shown to be quick."""

    def __init__(self, *args: Any, seconds: float = TRIAL_SECONDS) -> None:
        super().__init__(*args)
        self._trial = Trial(seconds)

    def guide(self, schema: Mapping[str, Any]) -> SchemaGuide:
        """A guide at the beginning of an answer; the oldest of many schemas are forgotten.

        Raises:
            SchemaError: it cannot be enforced, or not in a reasonable time.
        """
        while len(self._compiled) > _MOST_KEPT:
            with suppress(KeyError, StopIteration, RuntimeError):  # another thread was quicker
                del self._compiled[next(iter(self._compiled))]
        return super().guide(schema)

    def _compile(self, schema: Mapping[str, Any]) -> Any:
        if not self._trial.passes(schema):
            raise SchemaError(
                "this JSON Schema takes too long to be made into a grammar; use fewer or simpler "
                "patterns, and fewer of them in one `allOf`"
            )
        return super()._compile(schema)


class Trial:
    """The process that compiles first; started when needed, and again where a schema ended it.

    Args:
        seconds: that one compilation may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._failed: dict[bytes, None] = {}  # so that a schema that is sent again costs nothing

    def passes(self, schema: Mapping[str, Any]) -> bool:
        """Whether it was compiled in time; what it says of errors is for the compiler to say."""
        line = json.dumps({"schema": schema, "options": OPTIONS}, sort_keys=True).encode() + b"\n"
        with self._lock:
            if line in self._failed:
                return False
            passed = self._tried(line)
            if not passed:
                self._failed[line] = None
                if len(self._failed) > _MOST_KEPT:
                    del self._failed[next(iter(self._failed))]
            return passed

    def _tried(self, line: bytes) -> bool:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
            if process.stdout.readline():
                return True
        process.wait()  # it has closed its end, so it is over or about to be
        return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                command("tunewise.server.inference.schema_trial", str(self._seconds)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
                cwd=NOWHERE,
            )
        return self._process
