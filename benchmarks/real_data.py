"""Verdicts on real data sets, from file to report: a table of verdicts and times.

    python benchmarks/real_data.py DATA_FOLDER --model tunewise/tiny --rows 600

The folder holds one folder a data set (recipes, banking77, snips, xquad_en) as JSON Lines. Nothing
of it ships with the project. The rows are drawn by hash, so that a run takes minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tunewise.cli.progress import TerminalReporter
from tunewise.pipeline.run import run_study
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace


def studies(folder: Path, model: str, rows: int) -> dict[str, dict[str, Any]]:
    """The studies by name."""
    few = {"kind": "few_shot", "k": [2], "selection": ["nearest"], "orders": 1}

    def study(
        name: str, data: dict[str, Any], metric: str, candidates: list[Any]
    ) -> dict[str, Any]:
        found = {k: str(folder / name / v) for k, v in data.items()}
        return {
            "name": name,
            "model": model,
            "data": {**found, "max_rows": rows, "max_test_rows": 100},
            "metric": metric,
            "candidates": candidates,
            "fine_tune": {"epochs": 1, "learning_rate": 0.002},
            "output": {"max_tokens": 32},
            "effort": "quick",
        }

    return {
        "recipes": study(
            "recipes",
            {"train": "train.jsonl", "test": "validation.jsonl"},
            "list_f1",
            ["zero_shot", "fine_tuned"],
        ),
        "banking77": study(
            "banking77",
            {"train": "train.jsonl", "test": "test.jsonl"},
            "accuracy",
            ["zero_shot", few, "classifier", "fine_tuned"],
        ),
        "snips": study(
            "snips", {"examples": "train.jsonl"}, "json_fields", ["zero_shot", few, "fine_tuned"]
        ),
        "xquad_en": study(
            "xquad_en",
            {"examples": "qa.jsonl", "documents": "corpus.jsonl"},
            "token_f1",
            ["zero_shot", {"kind": "rag", "k": [1]}, "fine_tuned"],
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tunewise/tiny")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    reporter = TerminalReporter(Console(stderr=True))
    for name, text in studies(options.folder.resolve(), options.model, options.rows).items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "study.yaml"
            path.write_text(yaml.safe_dump(text))
            began = time.monotonic()
            outcome = run_study(load_study(path), Workspace(Path(temporary) / "home"), reporter)
            verdict = outcome.verdict
            seconds = time.monotonic() - began
            scores = ", ".join(f"{c.name} {c.score:.1f}" for c in verdict.candidates if c.score)
            print(f"{name}: {verdict.verdict}, use {verdict.use}, {seconds:.0f} s; {scores}")
            print(f"  {verdict.headline}", flush=True)


if __name__ == "__main__":
    main()
