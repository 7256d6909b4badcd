"""Choosing the learning rate by the dev loss of short runs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunewise.data.chat import canonical_hash
from tunewise.errors import TrainingError
from tunewise.training.job import LossSpikeError, NotFiniteError, TrainingJob, TrainingResult
from tunewise.workspace import write_json_atomic

# Below this a model is "small" for the choice of learning rates.
SMALL = 50_000_000


@dataclass(frozen=True, slots=True)
class Trial:
    """One value tried.

    Attributes:
        dev_loss: the lowest of the short run; infinite where the loss was not a number or jumped.
        seconds: that the run took.
    """

    learning_rate: float
    dev_loss: float
    steps: int
    seconds: float

    def as_dict(self) -> dict[str, float | int | None]:
        """As JSON values; None for an infinite loss."""
        loss = self.dev_loss if math.isfinite(self.dev_loss) else None
        return {
            "learning_rate": self.learning_rate,
            "dev_loss": loss,
            "steps": self.steps,
            "seconds": self.seconds,
        }


def default_learning_rates(
    parameters: int, adapter: str, method: str = "sft"
) -> tuple[float, float, float]:
    """Three values around what usually works, in rising order.

    LoRA on models of the usual size: a factor of two around 2e-4, where most reports agree
    (Biderman et al., 2405.09673, sweep 1e-5 to 5e-4). Full fine-tuning wants about a tenth
    (Schulman et al., "LoRA Without Regret", 2025). Models under 50M parameters are narrow: their
    weights are larger (initialised with a spread of one over the square root of the width) and
    so must be their updates; their best values lie around 2e-3, and the curve is wider, hence
    the wider spacing.

    Args:
        parameters: of the base model.
        adapter: ``lora``, ``qlora`` or ``full``.
        method: preference methods and grpo get a tenth (Rafailov et al., 2305.18290, use 1e-6
            where supervised fine-tuning takes 1e-5): they move a model that answers already.
    """
    low, middle, high = (5e-4, 2e-3, 5e-3) if parameters < SMALL else (1e-4, 2e-4, 4e-4)
    if adapter == "full":
        low, middle, high = (1e-4, 3e-4, 1e-3) if parameters < SMALL else (1e-5, 2e-5, 4e-5)
    if method in ("dpo", "kto", "orpo", "grpo"):
        return low / 10, middle / 10, high / 10
    return low, middle, high


def count_parameters(spec: str) -> int:
    """Parameters of a local model, from the heads of its weight files.

    Raises:
        ModelError: when it is not there.
    """
    from safetensors import safe_open

    from tunewise.models.names import parse_model
    from tunewise.models.weights import locate

    total = 0
    for path in sorted(locate(parse_model(spec)).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(k).get_shape()) for k in file.keys())  # noqa: SIM118
    return total


def choose_learning_rate(
    job: TrainingJob,
    values: Sequence[float] | None = None,
    fraction: float = 1.0,
    run: Callable[[TrainingJob], TrainingResult] | None = None,
    kept: Sequence[Path] = (),
) -> tuple[float, list[Trial]]:
    """Try each value on a run of ``fraction`` of the job's epochs; the lowest dev loss wins.

    Args:
        job: its learning rate is replaced; runs lie in ``output/sweep``.
        values: to choose from; by default those of ``default_learning_rates``.
        fraction: of the job's epochs; each run has the whole schedule in that time.
        run: how a job is run; in this process by default.
        kept: folders of finished trials by content; new ones are written into the first.

    Returns:
        The chosen value and all trials, in the order of ``values``. One value is returned
        without a run. Runs are kept while the sweep lasts, so that an interrupted one goes on.

    Raises:
        TrainingError: there are no dev rows, or every value failed.
    """
    run = run or _in_this_process
    if values is None:
        values = default_learning_rates(
            count_parameters(job.model), job.fine_tune.adapter, job.fine_tune.method
        )
    if len(values) == 1:
        return values[0], []
    if not job.dev:
        raise TrainingError(
            "a learning rate cannot be chosen without dev rows",
            where="fine_tune.learning_rate",
            hint="Give one value, or dev rows.",
        )
    trials = []
    for value in values:
        folder = job.output / "sweep" / f"{value:g}"
        short = replace(job, learning_rate=value, epochs=job.epochs * fraction, output=folder)
        trials.append(_kept_trial(short, run, kept) if kept else _trial(short, run))
    best = min(trials, key=lambda t: t.dev_loss)
    if not math.isfinite(best.dev_loss):
        raise TrainingError(
            f"training failed with every learning rate tried ({', '.join(map(str, values))})",
            where="fine_tune.learning_rate",
            hint="Give lower values.",
        )
    shutil.rmtree(job.output / "sweep", ignore_errors=True)
    return best.learning_rate, trials


def _in_this_process(job: TrainingJob) -> TrainingResult:
    from tunewise.training.loop import train

    return train(job)


def _trial(job: TrainingJob, run: Callable[[TrainingJob], TrainingResult]) -> Trial:
    try:
        result = run(job)
    except (NotFiniteError, LossSpikeError):
        return Trial(job.learning_rate, math.inf, 0, 0.0)
    loss = result.best_dev_loss
    return Trial(
        job.learning_rate, math.inf if loss is None else loss, result.steps, result.seconds
    )


def _kept_trial(
    job: TrainingJob, run: Callable[[TrainingJob], TrainingResult], kept: Sequence[Path]
) -> Trial:
    """A trial that was made before, in any of the folders, or a new one; the first keeps it."""
    # When a run is given up plays no part in its weights, but in what is told of it.
    key = canonical_hash([job.key, job.fine_tune.loss_spike])
    name = f"{key[:16]}.json"
    found = (_read(folder / name, key, job.learning_rate) for folder in kept)
    trial = next((trial for trial in found if trial is not None), None) or _trial(job, run)
    write_json_atomic(kept[0] / name, {"key": key, **trial.as_dict()})
    return trial


def _read(path: Path, key: str, learning_rate: float) -> Trial | None:
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["key"] != key:
            return None
        loss = math.inf if value["dev_loss"] is None else float(value["dev_loss"])
        return Trial(learning_rate, loss, int(value["steps"]), float(value["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: tried again
