"""Verdicts on data sets of others, from file to report: a table of verdicts, times and warnings.

    python benchmarks/data_sets.py FOLDER --model tunewise/tiny --rows 400

FOLDER holds one folder a data set as JSON Lines (`SETS` below says which files). Nothing of it
ships with the project. A part of the rows is drawn, a fourth of it for the test; effort is `quick`,
all else is what a study has by default. Time is the clock's and the processor's, of this process
and those that it started. A set whose folder is not there is left out.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tunewise.cli.progress import TerminalReporter
from tunewise.errors import TunewiseError
from tunewise.pipeline.run import run_study
from tunewise.report.document import Verdict
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace


@dataclass(frozen=True)
class DataSet:
    """A data set: its files by role, its metric, and what a person would ask for in a sentence."""

    files: Mapping[str, str]
    metric: str
    prompt: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


SETS = {
    "banking77": DataSet(
        {"train": "train.jsonl", "test": "test.jsonl"},
        "accuracy",
        "Name the intent of this question to a bank.",
    ),
    "snips": DataSet(
        {"train": "train.jsonl", "test": "test.jsonl"},
        "json_fields",
        "Write the intent of this command and its slots as JSON.",
    ),
    "recipes": DataSet({"train": "train.jsonl", "test": "validation.jsonl"}, "list_f1"),
    "xquad_en": DataSet(
        {"examples": "qa.jsonl", "documents": "corpus.jsonl"},
        "token_f1",
        "Answer the question in a few words.",
    ),
    "nl2bash": DataSet(
        {"examples": "all.jsonl"}, "token_f1", "Write one line of bash that does what is said."
    ),
    "wnut17": DataSet(
        {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
        "json_fields",
        "List the named entities of this text with their types as JSON.",
    ),
    "e2e_nlg": DataSet(
        {"train": "train.jsonl", "test": "test.jsonl"},
        "rouge_l",
        "Say in a sentence what these data on a restaurant mean.",
    ),
}


def study(name: str, folder: Path, home: Path, model: str, rows: int) -> dict[str, Any]:
    """The study of one data set, whose drawn rows are written to ``home``."""
    one = SETS[name]
    test = max(1, rows // 4)
    given = "test" in one.files
    shares = {"train": rows - test - test // 2, "dev": test // 2, "test": test, "examples": rows}
    if "dev" not in one.files:
        shares["train"] = rows - test
    data: dict[str, Any] = {} if given else {"max_test_rows": test}
    for role, file in one.files.items():
        path = folder / name / file
        if role in shares:
            lines = path.read_text("utf-8").splitlines(keepends=True)
            drawn = sorted(
                random.Random(0).sample(range(len(lines)), min(shares[role], len(lines)))
            )
            path = home / f"{name}-{role}.jsonl"
            path.write_text("".join(lines[i] for i in drawn), "utf-8")
        data[role] = str(path)
    return {
        "name": name,
        "model": model,
        "data": data,
        "metric": one.metric,
        **({"prompt": one.prompt} if one.prompt else {}),
        "effort": "quick",
        **one.more,
    }


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, who))


def line(name: str, verdict: Verdict, seconds: float, cpu: float) -> str:
    """A row of the table, with all scores and all that is told beside the headline."""
    low, high = verdict.primary.interval or (None, None)
    gain = "–" if low is None else f"{verdict.primary.gain:+.1f} ({low:+.1f} to {high:+.1f})"
    scores = ", ".join(f"{c.name} {c.score:.1f}" for c in verdict.candidates if c.score is not None)
    told = " / ".join([*verdict.cautions, *verdict.warnings]) or "–"
    cells = (
        name,
        f"{verdict.verdict} ({', '.join(verdict.because)})",
        verdict.use or f"{verdict.use_for_now or 'nothing'}, for now",
        gain,
        scores,
        f"{seconds:.0f} / {cpu:.0f}",
        told.replace("|", "\\|").replace("\n", " "),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tunewise/tiny")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--only", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--reports", type=Path, help="keep studies and reports in this folder")
    options = parser.parse_args()
    reporter = TerminalReporter(Console(stderr=True))
    print("| data | verdict | use | gain | scores | seconds / CPU | told |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.only:
        if not (options.folder / name).is_dir():
            print(f"| {name} | not there | | | | | |", flush=True)
            continue
        with tempfile.TemporaryDirectory() as temporary:
            home = Path(options.reports or temporary).resolve()
            home.mkdir(parents=True, exist_ok=True)
            path = home / f"{name}.yaml"
            made = study(name, options.folder.resolve(), home, options.model, options.rows)
            path.write_text(yaml.safe_dump(made))
            began, spent = time.monotonic(), cpu_seconds()
            try:
                loaded = load_study(path, overrides=options.overrides)
                verdict = run_study(loaded, Workspace(home / "home"), reporter).verdict
            except TunewiseError as error:
                print(
                    f"| {name} | failed | | | | | {str(error).replace(chr(10), ' ')} |", flush=True
                )
                continue
            took = time.monotonic() - began, cpu_seconds() - spent
            print(line(name, verdict, *took), flush=True)


if __name__ == "__main__":
    main()
