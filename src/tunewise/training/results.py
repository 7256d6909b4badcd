"""What a finished run leaves: the weights that were best, and ``training.json``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.digests import hold, of_folder
from tunewise.models.trained_as import TrainedAs
from tunewise.training import checkpoint
from tunewise.training.job import TrainingJob, TrainingResult
from tunewise.training.surroundings import peak_memory
from tunewise.workspace import write_json_atomic

if TYPE_CHECKING:
    from tunewise.training.loop import Run


def finished(job: TrainingJob) -> TrainingResult | None:
    """The result of a job that has run to its end in its folder, or None.

    Raises:
        DamagedError: the weights are not those that the run has written.
    """
    try:
        value = json.loads((job.output / "training.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    if value.get("key") != job.key:
        return None
    result = TrainingResult.from_dict(value, job.output)
    folder = result.adapter or result.model
    if folder is None or not folder.is_dir():
        return None
    if (digest := value.get("sha256")) is not None:
        hold(
            folder,
            digest,
            "the trained weights' folder",
            f"Put the files back, or delete {job.output} to train again.",
        )
    return result


def write_result(run: Run) -> TrainingResult:
    """Write the best weights, then ``training.json``, then remove the checkpoints.

    In this order, so that a crash in between leaves a run that can be finished again.

    Raises:
        WorkspaceError: when the disk is full.
    """
    job, progress, setup = run.job, run.progress, run.setup
    # Its moments are in the last checkpoint; loading and saving weights copies as much once more.
    run.optimiser.state.clear()
    best_step = progress.best_step if job.keep == "best" else None
    kept = best_step or progress.step
    if kept != progress.step:
        best = checkpoint.best_path(run.checkpoints, kept)
        checkpoint.load_weights(best, setup.weights)
    full = job.fine_tune.adapter == "full"
    folder = job.output / ("model" if full else "adapter")
    checkpoint.write_folder(folder, lambda place: _save(run, place))
    result = TrainingResult(
        adapter=None if full else folder,
        model=folder if full else None,
        steps=progress.step,
        best_step=kept,
        tokens=progress.tokens,
        trained_tokens=progress.trained_tokens,
        rows=len(run.items),
        rows_left_out=run.left_out,
        seconds=progress.seconds,
        peak_memory_bytes=peak_memory(),
        train_loss=list(progress.train_loss),
        dev_loss=list(progress.dev_loss),
        path=run.path,
        path_reason=run.path_reason,
        config=_config(run),
        metrics={**progress.metrics, **progress.counts},
    )
    digest = of_folder(folder)
    value = {"key": job.key, "sha256": digest, **result.as_dict()}
    write_json_atomic(job.output / "training.json", value)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.tell(
        {
            "event": "end",
            "step": progress.step,
            "best_step": result.best_step,
            "seconds": result.seconds,
            "peak_memory_bytes": result.peak_memory_bytes,
        }
    )
    return result


def save_epoch(run: Run) -> None:
    """Write the present weights to ``epochs/<step>/``; of these folders the last few stay.

    Raises:
        WorkspaceError: when the disk is full.
    """
    keep, step = run.job.keep_epochs, run.progress.step
    if keep < 1:
        return
    folder = run.job.output.absolute() / "epochs" / str(step)
    checkpoint.write_folder(folder, lambda place: _save(run, place))
    older = sorted(int(p.name) for p in folder.parent.iterdir() if p.name.isdigit())
    for number in [n for n in older if n <= step][:-keep]:
        shutil.rmtree(folder.parent / str(number), ignore_errors=True)
    run.tell(
        {"event": "epoch_saved", "step": step, "folder": str(folder), "sha256": of_folder(folder)}
    )


def _save(run: Run, place: Path) -> None:
    from tunewise.models.quiet import quiet

    setup = run.setup
    with quiet():
        if run.job.fine_tune.adapter == "full":
            attention = setup.causal.config._attn_implementation
            setup.causal.set_attn_implementation(setup.stock_attention)
            setup.causal.save_pretrained(place)
            setup.causal.set_attn_implementation(attention)
            tokenizer = setup.loaded.tokenizer
            asked_by = tokenizer.chat_template
            if run.job.form == "raw":  # what it came with is still how it is asked in a chat
                tokenizer.chat_template = setup.loaded.brought
            tokenizer.save_pretrained(place)
            tokenizer.chat_template = asked_by
        else:
            config = setup.outer.peft_config["default"]
            config.base_model_name_or_path = run.job.model
            setup.outer.save_pretrained(place, save_embedding_layers=False)
    date = run.job.date if setup.loaded.asks_for_date else None
    TrainedAs(date, run.job.form).write(place)


def _config(run: Run) -> dict[str, Any]:
    """What ran, with every default filled in."""
    job = run.job
    return {
        "model": job.model,
        "model_revision": run.setup.loaded.revision,
        "prompt": job.prompt,
        "date": job.date,
        "form": job.form,
        "learning_rate": job.learning_rate,
        "epochs": job.epochs,
        "seed": job.seed,
        "total_steps": run.plan.total_steps,
        "fine_tune": job.fine_tune.model_dump(mode="json"),
        **run.progress.chosen,
    }
