"""What a fine-tune was said to take, and what it took: memory and time, over varied runs.

python benchmarks/forecast.py MODEL... [--runs 40] [--json]

Each run draws a model, a method, LoRA or all weights, row lengths, a batch size and a number of
rows; it is forecast as a study would, then trained in a process of its own. Memory is the peak of
that process. Wanted: at or above the truth in 95 of 100 runs, and no more than 1.5 times in the
median; time within 1.5 times, on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tunewise.data.chat import Example
from tunewise.study.fine_tune import FineTune
from tunewise.training.forecast import forecast_job
from tunewise.training.fork_server import start
from tunewise.training.job import TrainingJob
from tunewise.training.job_files import write_job

_WORDS = ("red", "green", "blue", "cat", "dog", "sun", "moon", "tree", "river", "stone", "cloud")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", help="folders, or tunewise/tiny")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    found = []
    for number in range(options.runs):
        model = options.models[number % len(options.models)]
        one = measure(model, drawn(draw), draw)
        found.append(one)
        if not options.json:
            print(line(one), flush=True)
    if options.json:
        print(json.dumps(found))
        return
    print(summary(found))


def drawn(draw: random.Random) -> dict[str, Any]:
    """The settings of one run."""
    return {
        "method": draw.choice(["sft", "sft", "sft", "dpo", "orpo", "kto"]),
        "adapter": draw.choice(["lora", "lora", "full"]),
        "words": draw.choice([8, 30, 120, 300]),
        "answer": draw.choice([1, 10, 60]),
        "batch_size": draw.choice([1, 4, 8, 16]),
        "rows": draw.choice([16, 40, 96]),
    }


def rows_of(settings: dict[str, Any], draw: random.Random) -> list[Example]:
    """Rows whose lengths scatter around what the settings say."""

    def text(words: int) -> str:
        return " ".join(draw.choices(_WORDS, k=max(1, round(words * draw.uniform(0.3, 1.7)))))

    found = []
    for number in range(settings["rows"]):
        messages = (
            {"role": "user", "content": f"{number}: {text(settings['words'])}"},
            {"role": "assistant", "content": text(settings["answer"])},
        )
        more: dict[str, Any] = {}
        if settings["method"] in ("dpo", "orpo"):
            more["rejected"] = {"role": "assistant", "content": text(settings["answer"])}
        if settings["method"] == "kto":
            more["desirable"] = number % 2 == 0
        found.append(Example(id=f"r{number}", messages=messages, **more))
    return found


def measure(model: str, settings: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The forecast and the truth of one run: megabytes and seconds."""
    rows = rows_of(settings, draw)
    cut = max(4, len(rows) // 8)
    fine_tune = FineTune.model_validate(
        {key: settings[key] for key in ("method", "adapter", "batch_size")} | {"epochs": 1}
    )
    with tempfile.TemporaryDirectory(prefix="tunewise-forecast-") as name:
        folder = Path(name)
        job = TrainingJob(
            model=model,
            examples=rows[cut:],
            dev=rows[:cut],
            fine_tune=fine_tune,
            learning_rate=1e-5,
            epochs=1.0,
            seed=0,
            output=folder / "run",
        )
        said = forecast_job(job)
        write_job(job, job.output / "job")
        start("worker", job.output).wait()
        done = json.loads((job.output / "training.json").read_text("utf-8"))
    return {
        "model": Path(model).name,
        **settings,
        "said_mb": said.peak_memory_bytes / 1e6,
        "took_mb": done["peak_memory_bytes"] / 1e6,
        "said_s": said.seconds,
        "took_s": done["seconds"],
    }


def line(one: dict[str, Any]) -> str:
    """One run in a line."""
    memory, seconds = one["said_mb"] / one["took_mb"], one["said_s"] / one["took_s"]
    return (
        f"{one['model'][:22]:22} {one['method']:5} {one['adapter']:5} {one['words']:4}+"
        f"{one['answer']:<3} words, {one['rows']:3} rows by {one['batch_size']:2}: "
        f"{one['said_mb']:6,.0f} of {one['took_mb']:6,.0f} MB ({memory:.2f}), "
        f"{one['said_s']:6.1f} of {one['took_s']:6.1f} s ({seconds:.2f})"
    )


def summary(found: list[dict[str, Any]]) -> str:
    """How often memory was enough, and how far both were off."""
    memory = [one["said_mb"] / one["took_mb"] for one in found]
    seconds = [one["said_s"] / one["took_s"] for one in found]
    enough = sum(ratio >= 1 for ratio in memory)
    within = sum(1 / 1.5 <= ratio <= 1.5 for ratio in seconds)
    return (
        f"memory: at or above the truth in {enough} of {len(found)} runs, "
        f"median {statistics.median(memory):.2f}, lowest {min(memory):.2f}, "
        f"highest {max(memory):.2f}\n"
        f"time: within 1.5 times in {within} of {len(found)} runs, "
        f"median {statistics.median(seconds):.2f}"
    )


if __name__ == "__main__":
    main()
