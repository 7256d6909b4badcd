"""What only a GPU can show, as one table; run by ``scripts/gpu_check.sh``.

Each check is a process group of its own with a time limit, so that one that hangs takes no other
with it. Those that only compare values run side by side; what is timed runs alone.

    python benchmarks/gpu_check.py --out FOLDER [--only CHECK ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
CHECKS = Path(__file__).with_name("gpu_checks.py")


@dataclass(frozen=True)
class Check:
    """One row or more of the table.

    Attributes:
        name: of a function in ``gpu_checks.py`` with ``_`` for ``-``, unless there is a command.
        limit: seconds after which it is ended.
        alone: whether it is timed, so that nothing may run beside it.
        command: arguments of Python; ``OUT`` stands for the folder of results.
    """

    name: str
    limit: int
    alone: bool = False
    command: tuple[str, ...] = ()


# Limits add up to eight minutes: that of those side by side, once, and of all others.
PLAN = (
    Check("machine", 20, alone=True),
    Check("kernel", 130),
    Check("models", 130),
    Check("learning", 130),
    Check("resume", 130),
    Check("demo", 130, command=("-m", "tunewise", "demo", "--dir", "OUT/demo")),
    Check("kernel-speed", 20, alone=True),
    Check("generate", 30, alone=True),
    Check("sft-task", 110, alone=True),
    Check("sft-chat", 85, alone=True),
    Check("sft-documents", 85, alone=True),
)


def run(check: Check, out: Path) -> tuple[str, dict[str, Any]]:
    """How the check ended, and what it found."""
    result = out / f"{check.name}.json"
    result.unlink(missing_ok=True)
    command = [a.replace("OUT", str(out)) for a in check.command] or [
        str(CHECKS), check.name, str(result)
    ]  # fmt: skip
    environment = os.environ | {"TUNEWISE_HOME": str(out / "home")}
    began = time.monotonic()
    with (out / f"{check.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [os.environ.get("PYTHON", sys.executable), *command],
            cwd=TREE,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(check.limit)
            state = "ok" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            state = "out of time"
        with contextlib.suppress(ProcessLookupError):  # children too, also those left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = json.loads(result.read_text("utf-8")) if result.exists() else {}
    print(f"{check.name}: {state} after {time.monotonic() - began:.0f} s", flush=True)
    return state, found


def table(results: dict[str, tuple[str, dict[str, Any]]], out: Path) -> str:
    """One line a figure; a check that failed shows the end of its log."""
    lines = ["| check | what | figure |", "|---|---|---|"]
    for name, (state, found) in results.items():
        lines += [f"| {name} | {what} | {figure} |" for what, figure in found.items()]
        if state != "ok" or not found:
            log = (out / f"{name}.log").read_text("utf-8", "replace").strip().splitlines()
            last = (log or [""])[-1].replace("|", "/")[:160]
            lines.append(f"| {name} | {state} | {last} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and logs")
    parser.add_argument("--only", nargs="*", choices=[c.name for c in PLAN])
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = [c for c in PLAN if not options.only or c.name in options.only]
    beside = [c for c in chosen if not c.alone]
    results: dict[str, tuple[str, dict[str, Any]]] = {}
    for check in chosen:
        if check.alone:
            results[check.name] = run(check, out)
        elif check is beside[0]:
            with ThreadPoolExecutor(len(beside)) as pool:
                done = pool.map(lambda c: run(c, out), beside)
                results |= {c.name: r for c, r in zip(beside, done, strict=True)}
        (out / "table.md").write_text(table(results, out), "utf-8")
    print("\n" + (out / "table.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
