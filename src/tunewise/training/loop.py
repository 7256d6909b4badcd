"""From a job to finished weights: the one loop of all methods (``methods/``)."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunewise.digests import DamagedError
from tunewise.errors import TrainingError
from tunewise.training import checkpoint
from tunewise.training.checkpoint import Progress
from tunewise.training.evaluation import evaluate, look, looks, measure_before
from tunewise.training.guard import check_spike, not_finite
from tunewise.training.items import Item, Items
from tunewise.training.job import (
    NotFiniteError,
    OnEvent,
    TrainingJob,
    TrainingResult,
    TrainingStopped,
)
from tunewise.training.methods.base import StopAsked, Tally
from tunewise.training.ready import Ready
from tunewise.training.results import finished, save_epoch, write_result
from tunewise.training.schedule import learning_rate
from tunewise.training.surroundings import (
    Events,
    available_threads,
    computing,
    locked,
)

GRADIENT_NORM = 1.0


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


class Run(Ready):
    """One run of a job: made ready, then step by step until the plan is done."""

    def run(self) -> TrainingResult:
        progress = self._before()
        if progress is None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        threads = (progress.chosen["threads"] if progress else None) or self.job.threads
        with computing(threads or available_threads()):
            self.prepare(progress)
            try:
                self._begin(progress)
                self._steps()
            except StopAsked:
                raise self._stopped() from None
            return write_result(self)

    def _before(self) -> Progress | None:
        """Where an earlier run left off. From a damaged checkpoint nothing is taken over: a run
        from the start ends in the same weights."""
        try:
            return checkpoint.newest(self.checkpoints, self.job.key)[0]
        except DamagedError as error:
            self.tell(
                {"event": "damaged", "what": error.message, "file": Path(error.where or "").name}
            )
            return None

    def _begin(self, before: Progress | None) -> None:
        """Start at step 0, or where an earlier run left off."""
        total = self.plan.total_steps
        if before is not None and (
            before.plan != self.progress.plan or before.chosen != self.chosen
        ):
            raise TrainingError(
                "the checkpoint was made under other conditions (rows, path or precision)",
                where=str(self.checkpoints),
                hint="Delete the folder to train from the start.",
            )
        if before is None:
            self.tell({"event": "start", "total_steps": total, **self._sizes()})
        for split, items in (("train", self.items), ("dev", self.dev)):
            self._begin_split(split, items)
        if before is None:
            measure_before(self)
            return
        self.progress = before
        checkpoint.load_checkpoint(
            self.checkpoints, self.job.key, self.setup.weights, self.optimiser
        )
        self.tell({"event": "resume", "step": before.step, "total_steps": total})

    def _begin_split(self, split: str, items: Items) -> None:
        """What the method computes before step 0: once, also where the run is interrupted."""
        known = checkpoint.load_values(self.checkpoints, split, self.progress.plan)
        if known is not None:
            items.values.update(known)
            return
        before = set(items.values)
        self.method.begin(self.context, split, items)
        new = {name: v for name, v in items.values.items() if name not in before}
        if new:
            checkpoint.save_values(self.checkpoints, split, self.progress.plan, new)

    def _sizes(self) -> dict[str, Any]:
        return {
            "rows": len(self.items),
            "dev_rows": len(self.dev),
            "tokens_per_epoch": self.items.rows.tokens,
            "trained_tokens_per_epoch": self.items.rows.trained,
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
            items = [self.items[i] for i in plan.step_rows(progress.step, order)]  # type: ignore[arg-type]
            if not self.step(items):
                self._save()
                raise StopAsked
            progress.seconds = seconds_before + time.monotonic() - begun
            rate = (progress.tokens - tokens_before) / (progress.seconds - seconds_before)
            left = plan.total_steps - progress.step
            last = progress.step == plan.total_steps
            epoch_ends = progress.step % plan.steps_per_epoch == 0
            looking = not (epoch_ends or last) and looks(self)
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
                    **{k: v for k, v in progress.metrics.items() if k.startswith("train_")},
                    **({"look": True} if looking else {}),
                }
            )
            if looking:
                look(self)
            if (epoch_ends or last) and len(self.dev):
                evaluate(self)
            if epoch_ends or last:
                save_epoch(self)
            if epoch_ends or last or time.monotonic() - saved > self.job.checkpoint_seconds:
                self._save()
                saved = time.monotonic()

    def _stopped(self) -> TrainingStopped:
        self.tell({"event": "stopped", "step": self.progress.step})
        return TrainingStopped(
            f"stopped at step {self.progress.step} of {self.plan.total_steps}",
            where=str(self.job.output),
            hint="Run the same again: it goes on from there.",
        )

    def step(self, items: Sequence[Item]) -> bool:
        """One step of the plan; False, with nothing changed, when asked to stop."""
        progress = self.progress
        torch.manual_seed(self.job.seed * 1_000_003 + progress.step)
        tally = Tally()
        try:
            learnt = self.method.gather(self.context, items, progress.step)
            tally.add(self.method.gathered())
            loss = self._learn(learnt, tally) if learnt else 0.0
        except StopAsked:
            self.optimiser.zero_grad(set_to_none=True)
            return False
        progress.step += 1
        progress.train_loss.append(loss)
        progress.metrics |= tally.means("train_")
        for name, count in self.method.counts.items():
            progress.counts[name] = progress.counts.get(name, 0.0) + count
        progress.tokens += sum(i.tokens for i in learnt)
        progress.trained_tokens += sum(i.trained for i in learnt)
        return True

    def _learn(self, items: Sequence[Item], tally: Tally) -> float:
        """The optimiser's updates from a step's items; returns the loss before the first."""
        parts = self.context.parts(items)
        weight = self.method.weigh(items)
        first = math.nan
        for update in range(self.method.updates):
            loss_sum = 0.0
            each: list[tuple[float, str]] = []
            for part in parts:
                if update == 0:  # later the step can no longer be left undone
                    self.context.check_stop()
                found = self.method.loss(self.context, part)
                ids = [item.id for item in part.items]
                bad = [ids[i] for i in np.flatnonzero(~np.isfinite(found.each))]
                if bad or not bool(torch.isfinite(found.summed)):
                    raise self._not_finite("loss", bad or ids)
                (found.summed / weight).backward()  # type: ignore[no-untyped-call]
                loss_sum += float(found.summed.detach())
                each += zip(found.each.tolist(), ids, strict=True)
                tally.add(found.metrics)
            if update == 0:
                first = loss_sum / weight
                if self.method.steady:
                    limit, where = self.job.fine_tune.loss_spike, str(self.job.output)
                    check_spike(self.progress.train_loss, first, limit, each, where)
            self._update([item.id for item in items])
        return first

    def _update(self, rows: list[str]) -> None:
        norm = torch.nn.utils.clip_grad_norm_(list(self.setup.weights.values()), GRADIENT_NORM)
        if not math.isfinite(float(norm)):
            raise self._not_finite("gradient", rows)
        total, peak = self.plan.total_steps, self.job.learning_rate
        rate = learning_rate(self.progress.step, total, peak, self.job.fine_tune.warmup_ratio)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _not_finite(self, what: str, rows: list[str]) -> NotFiniteError:
        return not_finite(what, self.progress.step + 1, rows, str(self.job.output))

    def _save(self) -> None:
        checkpoint.save_checkpoint(
            self.checkpoints, self.progress, self.setup.weights, self.optimiser
        )
        self.tell({"event": "checkpoint", "step": self.progress.step})
