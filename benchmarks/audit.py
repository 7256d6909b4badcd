"""Rate and memory of reading and auditing: python benchmarks/audit.py 1000000 --no-near-duplicates

Writes rows to a temporary file, audits them in a process of its own, and prints rows a second, by
the clock and by processor time (which other programs on the machine do not change), and the
largest resident memory. With several sizes the last lines show how both grow.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SYLLABLES = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")]


def write_rows(path: Path, count: int, seed: int = 0) -> None:
    """Rows of 10 to 40 words and a label; 2 % repeat an earlier row, 3 % change one word of it."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    earlier: list[list[str]] = []
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            kind = rng.random()
            if kind < 0.05 and earlier:
                text = list(rng.choice(earlier))
                if kind > 0.02:
                    text[rng.randrange(len(text))] = rng.choice(words)
            else:
                # Frequencies fall off as in language: a few words stand in most rows.
                text = [
                    words[int(len(words) * rng.random() ** 3)] for _ in range(rng.randint(10, 40))
                ]
                if len(earlier) < 10_000:
                    earlier.append(text)
            row = {"input": " ".join(text), "output": f"label {len(text[0]) % 7}"}
            file.write(json.dumps(row) + "\n")


def measure(path: Path, near_duplicates: bool) -> None:
    """Audit ``path`` in this process and print the figures as JSON."""
    from tunewise.data.audit import audit

    clock, processor = time.perf_counter(), time.process_time()
    report = audit(path, near_duplicates=near_duplicates)
    rows = sum(report.rows.values())
    figures = {
        "rows": rows,
        "near_duplicates": near_duplicates,
        "rows_per_second": round(rows / (time.perf_counter() - clock)),
        "rows_per_processor_second": round(rows / (time.process_time() - processor)),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "findings": {finding.code: finding.count for finding in report.findings},
    }
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("--near-duplicates", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.near_duplicates)
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in options.rows:
            path = Path(folder) / f"{count}.jsonl"
            write_rows(path, count)
            flag = "--near-duplicates" if options.near_duplicates else "--no-near-duplicates"
            command = [sys.executable, __file__, str(count), flag, "--measure", str(path)]
            subprocess.run(command, check=True)
            path.unlink()


if __name__ == "__main__":
    main()
