"""Memory does not grow with the data set: a row leaves some bytes of bookkeeping, no more."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from cli_support import jsonl
from training_support import save_small_model, word_examples
from tunewise.data.chat import Example
from tunewise.pipeline.quick import training_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.training_rows import read_training_rows
from tunewise.pipeline.tuning import Tuner
from tunewise.study.fine_tune import FineTune
from tunewise.training.forecast import forecast_job
from tunewise.training.fork_server import start
from tunewise.training.job import TrainingJob
from tunewise.training.job_files import read_job, write_job

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "train_memory.py"


def _peak(folder: Path, count: int) -> int:
    """Python's peak, in bytes, from the rows' file to a job that another process has read."""
    rows = ({"prompt": f"question {i} " * 20, "completion": f"answer {i}"} for i in range(count))
    file = jsonl(folder / f"rows-{count}.jsonl", rows)
    study = training_study(str(file), {"--model": ("model", str(folder / "model"))}).study
    (spec,) = study.candidates or ()
    work = folder / f"work-{count}"
    tracemalloc.start()
    try:
        found = read_training_rows(study, spec, work, SilentReporter())
        tuner = Tuner(study, spec, found.train, found.dev, work, SilentReporter())
        job = replace(tuner.job(1e-3, 0, found.train), output=work / "run")
        write_job(job, work / "job")
        again = read_job(work / "job")
        assert len(again.examples) + len(again.dev) == count
        assert again.examples[count // 2] == job.examples[count // 2]
        assert isinstance(again.dev[-1], Example)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_rows_are_read_and_handed_on_without_being_held(tmp_path: Path) -> None:
    save_small_model(tmp_path / "model")
    _peak(tmp_path, 100)  # what is imported and cached once
    few, many = _peak(tmp_path, 200), _peak(tmp_path, 1700)
    # An example of this size in memory takes about 1,500 bytes; offsets, ranks and hashes of ids
    # some 150.
    assert (many - few) / 1500 < 300, (few, many)


@pytest.mark.soak
def test_ten_times_the_rows_take_hardly_more_memory() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--rows", "3000", "30000", "--json"],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    few, many = json.loads(done.stdout)
    for part in ("prepare", "train"):
        grown = (many[part]["peak_mb"] - few[part]["peak_mb"]) * 1e6
        # Token ids, weights and offsets, which go to disk from 32 MB on; examples take 2,500.
        assert grown / 27_000 < 1000, (part, few, many)


@pytest.mark.soak
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_forecast_of_memory_is_enough(tmp_path: Path, adapter: str) -> None:
    """A model whose weights weigh: its gradients, AdamW's moments and what is written count too."""
    size = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6}
    save_small_model(tmp_path / "model", **size)
    job = TrainingJob(
        model=str(tmp_path / "model"),
        examples=word_examples(24),
        dev=word_examples(6, seed=1),
        fine_tune=FineTune.model_validate({"adapter": adapter, "batch_size": 4}),
        learning_rate=1e-4,
        epochs=1,
        seed=0,
        output=tmp_path / "run",
    )
    said = forecast_job(job).peak_memory_bytes
    write_job(job, job.output / "job")
    start("worker", job.output).wait()
    took = json.loads((job.output / "training.json").read_text())["peak_memory_bytes"]
    assert took <= said <= 1.5 * took
