"""Supervised fine-tuning: from a job to finished weights."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tunewise.data.findings import Finding
from tunewise.errors import TrainingError
from tunewise.training import checkpoint, fast_path
from tunewise.training.batches import BatchPlan, FlatBatch, flatten, split_by_budget
from tunewise.training.checkpoint import Progress
from tunewise.training.encode import Encoder
from tunewise.training.job import (
    NotFiniteError,
    OnEvent,
    TrainingJob,
    TrainingResult,
    TrainingStopped,
)
from tunewise.training.label_audit import encode_and_audit, gate
from tunewise.training.results import finished, write_result
from tunewise.training.rows import EncodedRow, EncodedRows
from tunewise.training.setup import Setup, prepare, tokens_per_batch
from tunewise.training.surroundings import (
    Events,
    available_threads,
    deterministic,
    locked,
)

GRADIENT_NORM = 1.0
PATIENCE = 2


def train(
    job: TrainingJob,
    on_event: OnEvent | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Run a job to its end, from its last checkpoint where there is one.

    The output folder then holds ``adapter/`` (peft's format) or ``model/``, ``training.json`` and
    ``events.jsonl``. A finished job is returned at once.

    Args:
        on_event: called with each event, which also stands in ``events.jsonl``.
        stop: asked between batches; True makes a checkpoint and stops.

    Raises:
        TrainingStopped: after ``stop``.
        TrainingError: labels are wrong, the loss is not a number, or the folder is in use.
        DataError, ModelError, WorkspaceError: as their names say.
    """
    done = finished(job)
    if done is not None:
        return done
    with locked(job.output), Events(job.output / "events.jsonl", on_event) as tell:
        return Run(job, tell, stop).run()


class Run:
    """One run of a job: loads, prepares, then steps until the plan is done."""

    def __init__(self, job: TrainingJob, tell: OnEvent, stop: Callable[[], bool]) -> None:
        self.job = job
        self.tell = tell
        self.stop = stop
        self.checkpoints = job.output / "checkpoints"

    def run(self) -> TrainingResult:
        progress, _, _ = checkpoint.newest(self.checkpoints, self.job.key)
        if progress is None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        threads = (progress.chosen["threads"] if progress else None) or self.job.threads
        with deterministic(threads or available_threads()):
            self.prepare(progress)
            self._begin(progress)
            self._steps()
            return write_result(self)

    def prepare(self, before: Progress | None = None) -> None:
        """Load the model, encode and audit the rows, choose the path, make the optimiser.

        Args:
            before: of an earlier run; what it took from the machine is taken again.
        """
        from tunewise.models.loading import load_local, processor_has_bfloat16
        from tunewise.models.names import parse_model

        fine_tune = self.job.fine_tune
        low = torch.cuda.is_available() or processor_has_bfloat16()
        precision = fine_tune.precision
        if precision == "auto":
            precision = "bfloat16" if low else "float32"
        loaded = load_local(parse_model(self.job.model), dtype=precision)
        encoder = Encoder(
            loaded.tokenizer,
            loaded.end_ids,
            trained=fine_tune.trained_rows,
            prompt=self.job.prompt,
        )
        limit = min(fine_tune.max_length or loaded.context_length, loaded.context_length)
        self.rows, findings = encode_and_audit(encoder, self.job.examples, limit)
        self._report(findings, "train")
        gate(findings, self.rows)
        self.dev, dev_findings = encode_and_audit(encoder, self.job.dev, limit)
        self._report(dev_findings, "dev")
        self.left_out = {f.code: f.count for f in findings if f.code == "too_long"}
        self.setup: Setup = prepare(loaded, fine_tune, self.job.seed)
        probed = [self.rows[i] for i in range(min(64, len(self.rows)))]
        self.path_reason = fast_path.enable(self.setup, probed) or ""
        self.path = "flat" if self.setup.flat else "plain"
        self.tell({"event": "path", "path": self.path, "reason": self.path_reason})
        self.budget: int = (
            before.chosen["tokens_per_batch"] if before else tokens_per_batch(self.setup.causal)
        )
        self.plan = self._plan()
        self.optimiser = torch.optim.AdamW(
            list(self.setup.weights.values()),
            lr=self.job.learning_rate,
            weight_decay=fine_tune.weight_decay,
            fused=True,
        )
        self.chosen = {
            "threads": torch.get_num_threads(),
            "tokens_per_batch": self.budget,
            "path": self.path,
            "precision": precision,
            "batch_size": self.plan.batch_size,
            "max_length": limit,
        }
        self.progress = Progress(self.job.key, self.plan.digest(self.rows), self.chosen)

    def _report(self, findings: Sequence[Finding], split: str) -> None:
        for finding in findings:
            self.tell({"event": "finding", "split": split, **finding.as_dict()})

    def _plan(self) -> BatchPlan:
        job = self.job
        size = job.fine_tune.batch_size or default_batch_size(len(self.rows))
        return BatchPlan(len(self.rows), size, job.epochs, job.seed, job.max_steps)

    def _begin(self, before: Progress | None) -> None:
        """Start at step 0, or where an earlier run left off."""
        total = self.plan.total_steps
        if before is None:
            self.tell({"event": "start", "total_steps": total, **self._sizes()})
            return
        if before.plan != self.progress.plan or before.chosen != self.chosen:
            raise TrainingError(
                "the checkpoint was made under other conditions (rows, path or precision)",
                where=str(self.checkpoints),
                hint="Delete the folder to train from the start.",
            )
        self.progress = before
        checkpoint.load_checkpoint(
            self.checkpoints, self.job.key, self.setup.weights, self.optimiser
        )
        self.tell({"event": "resume", "step": before.step, "total_steps": total})

    def _sizes(self) -> dict[str, Any]:
        return {
            "rows": len(self.rows),
            "dev_rows": len(self.dev),
            "tokens_per_epoch": self.rows.tokens,
            "trained_tokens_per_epoch": self.rows.trained,
            "trainable_parameters": sum(p.numel() for p in self.setup.weights.values()),
        }

    def _steps(self) -> None:
        progress, plan = self.progress, self.plan
        epoch, order = -1, None
        saved = time.monotonic()
        begun, seconds_before, tokens_before = saved, progress.seconds, progress.tokens
        while progress.step < plan.total_steps and not progress.stopped_early:
            if progress.step // plan.steps_per_epoch != epoch:
                epoch = progress.step // plan.steps_per_epoch
                order = plan.order(epoch)
            rows = [self.rows[i] for i in plan.step_rows(progress.step, order)]  # type: ignore[arg-type]
            if not self.step(rows):
                self._save()
                self.tell({"event": "stopped", "step": progress.step})
                raise TrainingStopped(
                    f"stopped at step {progress.step} of {plan.total_steps}",
                    where=str(self.job.output),
                    hint="Run the same again: it goes on from there.",
                )
            progress.seconds = seconds_before + time.monotonic() - begun
            rate = (progress.tokens - tokens_before) / (progress.seconds - seconds_before)
            left = plan.total_steps - progress.step
            self.tell(
                {
                    "event": "step",
                    "step": progress.step,
                    "total_steps": plan.total_steps,
                    "epoch": progress.step / plan.steps_per_epoch,
                    "loss": progress.train_loss[-1],
                    "lr": self.optimiser.param_groups[0]["lr"],
                    "tokens_per_second": rate,
                    "seconds_left": left * progress.seconds / progress.step,
                }
            )
            last = progress.step == plan.total_steps
            epoch_ends = progress.step % plan.steps_per_epoch == 0
            if (epoch_ends or last) and len(self.dev):
                self._evaluate()
            if epoch_ends or last or time.monotonic() - saved > self.job.checkpoint_seconds:
                self._save()
                saved = time.monotonic()

    def step(self, rows: list[EncodedRow]) -> bool:
        """One optimiser step; False, with nothing changed, when asked to stop."""
        progress, setup = self.progress, self.setup
        torch.manual_seed(self.job.seed * 1_000_003 + progress.step)
        batches = self.batches(rows)
        weight = sum(b.weight for b in batches)
        loss_sum = 0.0
        for batch in batches:
            if self.stop():
                self.optimiser.zero_grad(set_to_none=True)
                return False
            summed, each = setup.losses(batch)
            self._require_finite(each, batch)
            (summed / weight).backward()  # type: ignore[no-untyped-call]
            loss_sum += float(summed.detach())
        norm = torch.nn.utils.clip_grad_norm_(list(setup.weights.values()), GRADIENT_NORM)
        if not math.isfinite(float(norm)):
            raise self._not_finite("gradient", [r.id for r in rows])
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(progress.step)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.train_loss.append(loss_sum / weight)
        progress.tokens += sum(len(r.ids) for r in rows)
        progress.trained_tokens += sum(r.trained for r in rows)
        return True

    def batches(self, rows: Sequence[EncodedRow]) -> list[FlatBatch]:
        """One step's rows as forward and backward passes."""
        if not self.setup.flat:
            return [flatten([r]) for r in rows if r.trained]
        return [flatten(part) for part in split_by_budget(rows, self.budget)]

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a tenth of the peak."""
        total = self.plan.total_steps
        warm = math.ceil(total * self.job.fine_tune.warmup_ratio)
        peak = self.job.learning_rate
        if step < warm:
            return peak * (step + 1) / (warm + 1)
        done = (step - warm) / max(1, total - warm)
        return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))

    def _require_finite(self, each: torch.Tensor, batch: FlatBatch) -> None:
        bad = ~torch.isfinite(each)
        if bool(bad.any()):
            owners = sorted({int(i) for i in batch.owner[bad.cpu().numpy()]})
            raise self._not_finite("loss", [batch.rows[i] for i in owners])

    def _not_finite(self, what: str, rows: list[str]) -> NotFiniteError:
        shown = ", ".join(map(repr, rows[:8]))
        return NotFiniteError(
            f"the {what} is not a number at step {self.progress.step + 1}; rows {shown}",
            where=str(self.job.output),
            hint="A lower learning rate usually helps; look at these rows for odd content. The "
            "last good checkpoint is intact.",
        )

    def _evaluate(self) -> None:
        loss = self.dev_loss(self.dev)
        progress = self.progress
        progress.dev_loss.append((progress.step, loss))
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            progress.evaluations_since_best = 0
            path = checkpoint.best_path(self.checkpoints, progress.step)
            checkpoint.save_weights(path, self.setup.weights)
        else:
            progress.evaluations_since_best += 1
            progress.stopped_early = progress.evaluations_since_best >= PATIENCE
        self.tell(
            {
                "event": "eval",
                "step": progress.step,
                "dev_loss": loss,
                "best_step": progress.best_step,
                "stopped_early": progress.stopped_early,
            }
        )

    def dev_loss(self, rows: EncodedRows) -> float:
        """Mean loss of the trained tokens, weighted as in training; forward only."""
        total = weight = 0.0
        self.setup.outer.eval()
        try:
            with torch.no_grad():
                for begin in range(0, len(rows), 256):
                    for batch in self.batches(rows[begin : begin + 256]):
                        if len(batch.keep):
                            total += float(self.setup.losses(batch)[0])
                            weight += batch.weight
        finally:
            self.setup.outer.train()
        return total / weight if weight else math.nan

    def _save(self) -> None:
        checkpoint.save_checkpoint(
            self.checkpoints, self.progress, self.setup.weights, self.optimiser
        )
        self.tell({"event": "checkpoint", "step": self.progress.step})


def default_batch_size(rows: int) -> int:
    """Rows per optimiser step: 16, fewer for small sets so that an epoch has about 20 steps.

    LoRA loses more than full fine-tuning when batches grow (Schulman et al., "LoRA Without
    Regret", 2025), and a set of 60 rows needs more than four steps an epoch.
    """
    return max(4, min(16, rows // 20))
