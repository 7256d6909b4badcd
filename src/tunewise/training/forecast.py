"""What a job will take, before it is spent: real token counts and a few measured steps.

The measuring is done in a process of its own, so that its peak memory is the training's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunewise.data.findings import Finding
from tunewise.errors import TrainingError
from tunewise.training.fork_server import start
from tunewise.training.job import TrainingJob
from tunewise.training.job_files import read_job, write_job
from tunewise.training.label_audit import no_chat_template
from tunewise.training.rows import EncodedRows

CALIBRATION_SECONDS = 6.0

MEMORY_MARGIN = 1.1
"""Later epochs put other rows together, and the result is written: ``benchmarks/forecast.py``."""


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """What a training job will take on this machine.

    Attributes:
        seconds: training and dev loss, without loading the model.
        peak_memory_bytes: of the process, measured on the largest batch beside the optimiser's
            state, and a tenth more.
        tokens: learnt from over all epochs, as rows hold them; of answers that are sampled during
            training (grpo) only the prompts, though ``seconds`` has their time.
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
    from tunewise.training.methods import make_method
    from tunewise.training.ready import encoder_of

    loaded = load_local(parse_model(job.model), form=job.form)
    limit = min(job.fine_tune.max_length or loaded.context_length, loaded.context_length)
    method = make_method(job.fine_tune)
    items, findings = method.encode(encoder_of(job, loaded), job.examples, limit)
    if loaded.plain_template and method.name != "pretrain":
        findings.append(no_chat_template())
    return items.rows, findings


def forecast_job(job: TrainingJob) -> TrainingForecast:
    """Measure some steps of the job in another process and extrapolate.

    Raises:
        TrainingError: what would stop the job itself (wrong labels, a model that does not load).
    """
    with tempfile.TemporaryDirectory(prefix="tunewise-forecast-") as name:
        folder = Path(name)
        write_job(replace(job, output=folder / "run"), folder)
        start("forecast", folder).wait()
        try:
            value = json.loads((folder / "forecast.json").read_text("utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            said = (folder / "worker.log").read_text("utf-8", "replace").strip().splitlines()
            last = (said or ["no message"])[-1]
            raise TrainingError(f"the forecast failed: {last}") from error
    if "error" in value:
        raise TrainingError(**value["error"])
    return TrainingForecast(**value)


def calibrate(job: TrainingJob) -> TrainingForecast:
    """Measure in this process: the largest batch first, for memory, then steps, for time."""
    from tunewise.training.loop import Run
    from tunewise.training.surroundings import available_threads, computing, peak_memory

    run = Run(job, lambda _: None, lambda: False)
    with computing(job.threads or available_threads()):
        run.prepare()
        plan, lengths = run.plan, run.items.lengths
        order = plan.order(0)
        groups = [plan.step_rows(s, order) for s in range(plan.steps_per_epoch)]
        heaviest = max(groups, key=lambda g: sum(int(lengths[i]) for i in g))
        measured_groups = groups[:: max(1, len(groups) // 12)]
        numbers = sorted({i for group in (heaviest, *measured_groups) for i in group})
        place = {number: i for i, number in enumerate(numbers)}
        sample = run.items.subset(numbers)
        begin = time.perf_counter()
        run.method.begin(run.context, "train", sample)
        begin_seconds = (time.perf_counter() - begin) / sample.rows.tokens * run.items.rows.tokens
        run.step([sample[place[i]] for i in heaviest])  # also warms up
        # Once more, since from the first update on the optimiser's moments are held beside it.
        run.step([sample[place[i]] for i in heaviest])
        measured = computed = held = 0.0
        count = 0
        for group in measured_groups:
            chosen = [sample[place[i]] for i in group]
            held += sum(i.tokens for i in chosen)
            computed += sum(p.computed for p in run.context.parts(chosen))
            begin = time.perf_counter()
            run.step(chosen)
            measured += time.perf_counter() - begin
            count += 1
            if measured > CALIBRATION_SECONDS:
                break
        epochs = plan.total_steps / plan.steps_per_epoch
        tokens = run.items.rows.tokens * epochs
        per_token = measured / held
        evaluated = run.dev.rows.tokens * (int(epochs) + (epochs % 1 > 0))
        dev_seconds = 0.0
        if len(run.dev):
            dev = run.dev.subset(range(min(len(run.dev), 64)))
            run.method.begin(run.context, "dev", dev)
            begin = time.perf_counter()
            run.method.evaluate(run.context, dev)
            dev_seconds = (time.perf_counter() - begin) / dev.rows.tokens * evaluated
    return TrainingForecast(
        seconds=begin_seconds + per_token * tokens + dev_seconds,
        peak_memory_bytes=round(MEMORY_MARGIN * peak_memory()),
        tokens=round(tokens),
        computed_tokens=round(tokens * computed / held),
        steps=plan.total_steps,
        path=run.path,
        basis=f"{count} measured steps of {measured / count:.2g} s with {run.chosen['threads']} "
        "threads on this machine",
    )


def main(folder: Path) -> int:
    """Forecast the job in ``folder``, into ``forecast.json`` there; returns the exit code."""
    from tunewise.crash import unforeseen
    from tunewise.errors import TunewiseError

    try:
        value = asdict(calibrate(read_job(folder)))
    except Exception as error:
        told = error if isinstance(error, TunewiseError) else unforeseen(error, "The forecast")
        value = {"error": {"message": told.message, "where": told.where, "hint": told.hint}}
    (folder / "forecast.json").write_text(json.dumps(value), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
