"""The main job, a study from file to verdict, by two trees of Tunewise side by side.

    git worktree add ../old COMMIT
    python benchmarks/main_job.py ../old . --train train.jsonl --test test.jsonl --metric list_f1 \
        --model FOLDER

Each tree runs the same study in a process and a workspace of its own, in turn (old, new, old, new,
… with ``--rounds``), so that what else the machine does meets both. The table has a line a stage:
seconds, seconds of processor, answers that were computed, and tokens that were read (without those
of a shared beginning) and written. Where others work on the machine the processor's seconds say
more than the clock's; of a training, which is a process of its own, they stand in the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("seconds", "cpu", "answers", "read", "written")
Sums = dict[str, float]


def study(options: argparse.Namespace) -> dict[str, Any]:
    """The study that both trees run."""
    rows: dict[str, Any] = {} if options.rows is None else {"max_rows": options.rows}
    if options.test_rows is not None:
        rows["max_test_rows"] = options.test_rows
    return {
        "name": "main-job",
        "model": options.model,
        "data": {"train": str(options.train), "test": str(options.test), **rows},
        "metric": options.metric,
        "effort": "quick",
        **({"candidates": options.candidates} if options.candidates else {}),
        "fine_tune": {"epochs": options.epochs},
    }


def measured(path: Path) -> dict[str, Any]:
    """Run the study in this process, with the tree that ``tunewise`` is imported from."""
    from rich.console import Console

    from tunewise.cli.progress import TerminalReporter
    from tunewise.data.chat import Completion, Request
    from tunewise.models.local_engine import LocalEngine
    from tunewise.pipeline.run import run_study
    from tunewise.pipeline.store import Store
    from tunewise.study.loading import load_study
    from tunewise.workspace import Workspace

    sums: dict[str, Sums] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0.0))
    running = ["(between)"]
    iterate, stage = LocalEngine.iterate, Store.stage

    def counted(
        engine: LocalEngine, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion]]:
        for index, completion in iterate(engine, requests):
            told = sums[running[-1]]
            told["answers"] += 1
            told["read"] += (completion.prompt_tokens or 0) - (completion.cached_tokens or 0)
            told["written"] += completion.completion_tokens or 0
            yield index, completion

    def timed(
        store: Store, name: str, gate: str, depends_on: object, work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        def told() -> dict[str, Any]:
            running.append(name)
            began, used = time.monotonic(), time.process_time()
            try:
                return work()
            finally:
                sums[name]["seconds"] += time.monotonic() - began
                sums[name]["cpu"] += time.process_time() - used
                running.pop()

        return stage(store, name, gate, depends_on, told)

    LocalEngine.iterate = counted  # type: ignore[method-assign]
    Store.stage = timed  # type: ignore[method-assign]
    began = time.monotonic()
    home = Workspace(path.parent / "home")
    verdict = run_study(load_study(path), home, TerminalReporter(Console(stderr=True))).verdict
    return {
        "stages": {name: told for name, told in sums.items() if told["seconds"] >= 0.05},
        "seconds": time.monotonic() - began,
        "verdict": verdict.verdict,
        "headline": verdict.headline,
        "scores": {c.name: c.score for c in verdict.candidates if c.score is not None},
    }


def run_tree(tree: Path, text: dict[str, Any]) -> dict[str, Any]:
    """One run by one tree; ``cpu`` is of all its processes."""
    with tempfile.TemporaryDirectory() as temporary:
        path, out = Path(temporary) / "study.yaml", Path(temporary) / "out.json"
        path.write_text(json.dumps(text))  # JSON is YAML
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, __file__, "--worker", str(path), str(out)],
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result: dict[str, Any] = json.loads(out.read_text())
    result["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result


def table(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> str:
    """Stages side by side; means over the rounds."""

    def mean(runs: Sequence[dict[str, Any]], stage: str, column: str) -> float:
        return sum(run["stages"].get(stage, {}).get(column, 0.0) for run in runs) / len(runs)

    lines = ["| stage |" + "".join(f" {name}, old | new |" for name in COLUMNS)]
    lines.append("|---|" + "---:|---:|" * len(COLUMNS))
    for stage in dict.fromkeys(name for run in (*old, *new) for name in run["stages"]):
        pairs = [(mean(old, stage, c), mean(new, stage, c)) for c in COLUMNS]
        lines.append(f"| {stage} |" + "".join(f" {a:,.0f} | {b:,.0f} |" for a, b in pairs))
    whole = [
        tuple(sum(run[name] for run in runs) / len(runs) for runs in (old, new))
        for name in ("seconds", "cpu")
    ]
    lines.append("| **all** |" + "".join(f" {a:,.0f} | {b:,.0f} |" for a, b in whole))
    for name, (a, b) in zip(("time", "processor"), whole, strict=True):
        lines.append(f"\n{name}: new / old = {b / a:.2f}")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        Path(sys.argv[3]).write_text(json.dumps(measured(Path(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", type=Path, nargs="+", help="OLD NEW, or one tree alone")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--metric", required=True)
    parser.add_argument("--model", default="tunewise/tiny")
    parser.add_argument("--rows", type=int, help="most rows of train; all by default")
    parser.add_argument("--test-rows", type=int)
    parser.add_argument("--candidates", nargs="*")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    options.train, options.test = options.train.resolve(), options.test.resolve()
    if Path(options.model).exists():
        options.model = str(Path(options.model).resolve())
    trees = [tree.resolve() for tree in options.trees]
    runs: list[list[dict[str, Any]]] = [[] for _ in trees]
    for _ in range(options.rounds):
        for tree, found in zip(trees, runs, strict=True):
            found.append(run_tree(tree, study(options)))
            print(f"{tree.name}: {json.dumps(found[-1])}", flush=True)
    print(table(runs[0], runs[-1]))
    for tree, found in zip(trees, runs, strict=True):
        print(f"\n{tree.name}: {found[0]['verdict']}: {found[0]['headline']}")


if __name__ == "__main__":
    main()
