"""How a run looks at dev: at all of it after an epoch, and at a few rows in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewise.training import checkpoint

if TYPE_CHECKING:
    from tunewise.training.loop import Run

PATIENCE = 2
"""Looks at dev without a lower loss, after which a run ends early."""


def evaluate(run: Run) -> None:
    """Measure all of dev; the weights of the lowest loss are kept, and a run may end early.

    Raises:
        WorkspaceError: when the disk is full.
    """
    loss, metrics = run.method.evaluate(run.context, run.dev)
    progress = run.progress
    figures = {f"valid_{name}": value for name, value in metrics.items()}
    progress.metrics |= figures
    progress.dev_loss.append((progress.step, loss))
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_step = loss, progress.step
        progress.evaluations_since_best = 0
        path = checkpoint.best_path(run.checkpoints, progress.step)
        checkpoint.save_weights(path, run.setup.weights)
    else:
        progress.evaluations_since_best += 1
        progress.stopped_early = (
            run.job.keep == "best" and progress.evaluations_since_best >= PATIENCE
        )
    run.tell(
        {
            "event": "eval",
            "step": progress.step,
            "dev_loss": loss,
            "best_step": progress.best_step,
            "stopped_early": progress.stopped_early,
            **figures,
        }
    )


def measure_before(run: Run) -> None:
    """Look at the whole of dev before step 0, where the job wants it."""
    if not (run.job.dev_before and len(run.dev)):
        return
    loss, metrics = run.method.evaluate(run.context, run.dev)
    run.progress.metrics["dev_loss_before"] = loss
    figures = {f"valid_{name}": value for name, value in metrics.items()}
    run.tell({"event": "before", "dev_loss": loss, **figures})


def looks(run: Run) -> bool:
    """Whether the run looks at a few rows of dev after the present step."""
    every = run.job.eval_every
    return every is not None and run.progress.step % every == 0 and len(run.dev) > 0


def look(run: Run) -> None:
    """Measure some rows of dev, the next ones each time; nothing is chosen by it."""
    assert run.job.eval_every is not None
    count, whole = min(run.job.eval_rows, len(run.dev)), len(run.dev)
    first = (run.progress.step // run.job.eval_every - 1) * count
    chosen = run.dev.subset([(first + i) % whole for i in range(count)])
    loss, metrics = run.method.evaluate(run.context, chosen)
    run.tell(
        {
            "event": "look",
            "step": run.progress.step,
            "rows": count,
            "dev_rows": whole,
            "dev_loss": loss,
            **{f"valid_{name}": value for name, value in metrics.items()},
        }
    )
