"""What a job will take, before it is spent: real token counts and a few measured steps.

The measuring is done in a process of its own, so that its peak memory is the training's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunewise.data.findings import Finding
from tunewise.errors import TrainingError
from tunewise.training.job import TrainingJob
from tunewise.training.job_files import read_job, write_job
from tunewise.training.rows import EncodedRows

CALIBRATION_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """What a training job will take on this machine.

    Attributes:
        seconds: training and dev loss, without loading the model.
        peak_memory_bytes: of the process, measured on the largest batch.
        tokens: learnt from over all epochs, as rows hold them.
        computed_tokens: of those, what is computed when shared prefixes are computed once.
        steps: optimiser steps.
        path: ``flat`` or ``plain``.
        basis: what the figures rest on.
    """

    seconds: float
    peak_memory_bytes: int
    tokens: int
    computed_tokens: int
    steps: int
    path: str
    basis: str


def audit_job(job: TrainingJob) -> tuple[EncodedRows, list[Finding]]:
    """Encode a job's rows with its model's tokenizer, and audit their labels.

    Raises:
        DataError, ModelError: when a row cannot be encoded or the model is not there.
    """
    from tunewise.models.loading import load_local
    from tunewise.models.names import parse_model
    from tunewise.training.encode import Encoder
    from tunewise.training.label_audit import encode_and_audit

    loaded = load_local(parse_model(job.model))
    limit = min(job.fine_tune.max_length or loaded.context_length, loaded.context_length)
    encoder = Encoder(
        loaded.tokenizer, loaded.end_ids, trained=job.fine_tune.trained_rows, prompt=job.prompt
    )
    return encode_and_audit(encoder, job.examples, limit)


def forecast_job(job: TrainingJob) -> TrainingForecast:
    """Measure some steps of the job in another process and extrapolate.

    Raises:
        TrainingError: what would stop the job itself (wrong labels, a model that does not load).
    """
    with tempfile.TemporaryDirectory(prefix="tunewise-forecast-") as name:
        folder = Path(name)
        write_job(replace(job, output=folder / "run"), folder)
        done = subprocess.run(
            [sys.executable, "-m", "tunewise.training.forecast", name],
            capture_output=True,
            text=True,
            env={"GOMP_SPINCOUNT": "10000", "TOKENIZERS_PARALLELISM": "false", **os.environ},
            check=False,
        )
        try:
            value = json.loads((folder / "forecast.json").read_text("utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise TrainingError(f"the forecast failed: {last}") from error
    if "error" in value:
        raise TrainingError(**value["error"])
    return TrainingForecast(**value)


def calibrate(job: TrainingJob) -> TrainingForecast:
    """Measure in this process: the largest batch first, for memory, then steps, for time."""
    from tunewise.training.loop import Run
    from tunewise.training.surroundings import available_threads, deterministic, peak_memory

    run = Run(job, lambda _: None, lambda: False)
    with deterministic(job.threads or available_threads()):
        run.prepare()
        plan, rows = run.plan, run.rows
        order = plan.order(0)
        lengths = rows.lengths
        groups = [plan.step_rows(s, order) for s in range(plan.steps_per_epoch)]
        heaviest = max(groups, key=lambda g: sum(int(lengths[i]) for i in g))
        run.step([rows[i] for i in heaviest])  # also warms up
        measured = computed = held = 0.0
        count = 0
        stride = max(1, len(groups) // 12)
        for group in groups[::stride]:
            chosen = [rows[i] for i in group]
            held += sum(len(r.ids) for r in chosen)
            computed += sum(len(b.ids) for b in run.batches(chosen))
            begin = time.perf_counter()
            run.step(chosen)
            measured += time.perf_counter() - begin
            count += 1
            if measured > CALIBRATION_SECONDS:
                break
        epochs = plan.total_steps / plan.steps_per_epoch
        tokens = rows.tokens * epochs
        per_token = measured / held
        evaluated = run.dev.tokens * (int(epochs) + (epochs % 1 > 0))
        dev_rows = [run.dev[i] for i in range(min(len(run.dev), 64))]
        dev_seconds = 0.0
        if dev_rows:
            sample = EncodedRows(dev_rows)
            begin = time.perf_counter()
            run.dev_loss(sample)
            dev_seconds = (time.perf_counter() - begin) / sample.tokens * evaluated
    return TrainingForecast(
        seconds=per_token * tokens + dev_seconds,
        peak_memory_bytes=peak_memory(),
        tokens=round(tokens),
        computed_tokens=round(tokens * computed / held),
        steps=plan.total_steps,
        path=run.path,
        basis=f"{count} measured steps of {measured / count:.2g} s with {run.chosen['threads']} "
        "threads on this machine",
    )


def _main(folder: Path) -> None:
    from tunewise.errors import TunewiseError

    try:
        value = asdict(calibrate(read_job(folder)))
    except TunewiseError as error:
        value = {"error": {"message": error.message, "where": error.where, "hint": error.hint}}
    (folder / "forecast.json").write_text(json.dumps(value), "utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
