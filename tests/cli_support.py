"""The command in a folder of its own, and studies of recorded answers to run with it."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest

from tunewise.cli import main

COMMAND = Path(sys.executable).parent / "tunewise"
TIMEOUT = 120


@dataclass(frozen=True)
class Run:
    """How a command ended: exit code, what it printed, and its CPU seconds."""

    code: int
    out: str
    err: str
    cpu_seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """As of a user's shell: bytecode is kept, so that only the first start compiles."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "COLUMNS": "100", **more}


def tunewise(
    *arguments: object,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    code: int | None = 0,
    process: bool = False,
) -> Run:
    """Run the command; its exit code must be ``code`` (None: any), and it may not crash.

    Its entry point is called in this process, since Python and the libraries take most of a second
    to start; with ``process`` the installed command runs in one of its own.
    """
    given, more = [*map(str, arguments)], environment(**(env or {}))
    run = _apart(given, cwd, more) if process else _here(given, cwd, more)
    assert "Traceback" not in run.out + run.err, run
    assert code is None or run.code == code, run
    return run


def _apart(arguments: list[str], cwd: Path, env: Mapping[str, str]) -> Run:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(done.returncode, done.stdout, done.stderr, cpu)


def _here(arguments: list[str], cwd: Path, env: Mapping[str, str]) -> Run:
    began = time.process_time()
    # Real files, since the command may ask for their descriptors.
    with TemporaryDirectory() as folder, ExitStack() as stack:
        paths = Path(folder, "out"), Path(folder, "err")
        out, err = (stack.enter_context(path.open("w", encoding="utf-8")) for path in paths)
        stack.enter_context(patch.object(sys, "argv", ["tunewise", *arguments]))
        stack.enter_context(patch.dict(os.environ, env))
        stack.enter_context(chdir(cwd))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        with pytest.raises(SystemExit) as ended:
            main()
        out.flush()
        err.flush()
        said = [path.read_text("utf-8") for path in paths]
    assert isinstance(ended.value.code, int)
    return Run(ended.value.code, said[0], said[1], time.process_time() - began)


def refused(*arguments: object, cwd: Path, code: int, says: Sequence[str], **more: Any) -> Run:
    """A command that must fail with ``code``, one ``error:`` line and all of ``says``."""
    run = tunewise(*arguments, cwd=cwd, code=code, **more)
    assert run.err.count("error: ") == 1 or run.err.startswith("Usage:"), run.err
    for text in says:
        assert text in run.err, run.err
    assert run.out == ""
    return run


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scores(
    path: Path, share: float, *, dev: int = 100, test: int = 400, seed: int = 0, **more: Any
) -> Path:
    """An answer file whose scores are 1 in ``share`` of the rows, else 0."""
    draw = random.Random(f"{path.name} {seed}")
    return jsonl(
        path,
        (
            {
                "id": f"row-{i}",
                "score": float(draw.random() < share),
                "split": "dev" if i < dev else "test",
                **more,
            }
            for i in range(dev + test)
        ),
    )


def recorded(folder: Path, shares: Mapping[str, float], *, extra: str = "", **more: Any) -> Path:
    """A study of recorded scores; candidates called ``tuned…`` are fine-tuned."""
    lines = ["name: quick", "metric: recorded", "candidates:"]
    for name, share in shares.items():
        scores(folder / f"{name}.jsonl", share, **more)
        tuned = ", fine_tuned: true" if name.startswith("tuned") else ""
        lines.append(f"  - {{name: {name}, kind: recorded, answers: {name}.jsonl{tuned}}}")
    path = folder / "study.yaml"
    path.write_text("\n".join([*lines, extra, ""]), encoding="utf-8")
    return path


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their path in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def no_halves(workspace: Path) -> None:
    """Nothing half-written lies in a workspace: no temporary files, and all JSON can be read."""
    for path in workspace.rglob("*"):
        assert not path.name.startswith((".verdict", ".report", ".data", ".fit", ".test")), path
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        if path.suffix == ".jsonl" and path.parent.name == "items":
            for line in path.read_text("utf-8").splitlines():
                json.loads(line)


def steady(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict without what may differ between two runs of one study: times of day and stages."""
    return {k: v for k, v in verdict.items() if k not in ("created", "stages")}


def change_a_bit(path: Path, *, unseen: bool = True) -> None:
    """Change one bit in the middle; ``unseen`` leaves the time of change as it was."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(stat.st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    if unseen:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
