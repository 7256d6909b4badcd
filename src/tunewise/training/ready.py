"""A job made ready up to its first step: model, rows, path, memory, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from tunewise.data.findings import Finding
from tunewise.training import fast_path, kernels
from tunewise.training.batches import BatchPlan
from tunewise.training.checkpoint import Progress
from tunewise.training.encode import Encoder
from tunewise.training.job import OnEvent, TrainingJob
from tunewise.training.label_audit import gate
from tunewise.training.left_out import LEFT_OUT
from tunewise.training.memory import (
    MOST_TOKENS,
    MemoryPlan,
    plan_memory,
    recompute_activations,
)
from tunewise.training.methods import make_method
from tunewise.training.methods.base import Context
from tunewise.training.schedule import default_batch_size
from tunewise.training.setup import Setup, load_base, prepare


class Ready:
    """What a run starts from. Nothing is there before ``prepare``, and nothing is written by it.

    Attributes:
        method, setup, optimiser: see their types.
        items, dev: rows as the method learns from them; ``left_out`` counts others by reason.
        path: ``flat`` or ``plain``, with ``path_reason`` for the latter.
        kernel_reason: why attention goes without FlexAttention; "" where it does not.
        plan: which items make which step.
        context: what the method may use.
        chosen, progress: see ``Progress``, which stands at step 0.
    """

    def __init__(self, job: TrainingJob, tell: OnEvent, stop: Callable[[], bool]) -> None:
        self.job = job
        self.tell = tell
        self.stop = stop
        self.checkpoints = job.output / "checkpoints"

    def prepare(self, before: Progress | None = None) -> None:
        """Load the model, encode and audit the rows, choose the path, make the optimiser.

        Args:
            before: of an earlier run; what it took from the machine is taken again.
        """
        fine_tune = self.job.fine_tune
        loaded, precision = load_base(self.job.model, fine_tune, self.job.form)
        self.method = make_method(fine_tune)
        encoder = encoder_of(self.job, loaded)
        if self.job.form == "raw":
            self.tell({"event": "form", "form": self.job.form})
        if loaded.asks_for_date and self.job.date is not None:
            self.tell({"event": "date", "date": self.job.date})
        limit = min(fine_tune.max_length or loaded.context_length, loaded.context_length)
        self.items, findings = self.method.encode(encoder, self.job.examples, limit)
        self._report(findings, "train")
        gate(findings, self.items)
        self.dev, dev_findings = self.method.encode(encoder, self.job.dev, limit)
        self._report(dev_findings, "dev")
        # What cannot be written for the model is a fault wherever it stands; another row less on
        # dev would choose by other rows than the study's.
        gate([f for f in dev_findings if f.code == "not_rendered"], self.items)
        self.left_out = {f.code: f.count for f in findings if f.code in LEFT_OUT}
        self.method.open(loaded, self.job.seed)
        self.setup: Setup = prepare(loaded, fine_tune, self.job.seed, self.job.start)
        rows = self.items.rows
        probed = [rows[i] for i in range(min(64, len(rows)))]
        self.path_reason = fast_path.enable(self.setup, probed) or ""
        self.path = "flat" if self.setup.flat else "plain"
        self.plan = self._plan()
        passes = self.plan.total_steps * self.plan.batch_size
        self.kernel_reason = kernels.choose(self.setup, probed, passes)
        self.tell(
            {
                "event": "path",
                "path": self.path,
                "reason": self.path_reason,
                "fused": self.setup.fused,
                "kernel": self.setup.kernel,
                "kernel_reason": self.kernel_reason,
            }
        )
        memory = self._memory(before)
        self.context = Context(self.job, self.setup, memory.tokens, self.tell, self.stop)
        self.optimiser = torch.optim.AdamW(
            list(self.setup.weights.values()),
            lr=self.job.learning_rate,
            weight_decay=fine_tune.weight_decay,
            fused=True,
        )
        self.chosen = {
            "threads": torch.get_num_threads(),
            "tokens_per_batch": memory.tokens,
            "recompute": memory.recompute,
            "path": self.path,
            "kernel": self.setup.kernel,
            "precision": precision,
            "batch_size": self.plan.batch_size,
            "max_length": limit,
        }
        self.progress = Progress(self.job.key, self.plan.digest(self.items), self.chosen)

    def _report(self, findings: Sequence[Finding], split: str) -> None:
        for finding in findings:
            self.tell({"event": "finding", "split": split, **finding.as_dict()})

    def _plan(self) -> BatchPlan:
        job = self.job
        size = job.fine_tune.batch_size or default_batch_size(len(self.items))
        return BatchPlan(len(self.items), size, job.epochs, job.seed, job.max_steps)

    def _memory(self, before: Progress | None) -> MemoryPlan:
        """Tokens of a pass, and whether activations are computed again; said where it is tight."""
        trainable = sum(p.numel() for p in self.setup.weights.values())
        wish, longest = self.job.fine_tune.recompute, self.method.longest(self.items)
        memory = plan_memory(self.setup.causal, trainable, longest, wish)
        if before is not None:
            tokens, recompute = (before.chosen[k] for k in ("tokens_per_batch", "recompute"))
            memory = replace(memory, tokens=tokens, recompute=recompute)
        if memory.recompute:
            recompute_activations(self.setup.causal)
        step = self.plan.batch_size * float(self.items.lengths.mean())
        if memory.recompute != bool(wish) or memory.tokens < min(MOST_TOKENS, step):
            self.tell({**memory.event(step, longest), "batch_size": self.plan.batch_size})
        return memory


def encoder_of(job: TrainingJob, loaded: Any) -> Encoder:
    """What turns the job's rows into tokens, for its model's tokenizer and its method."""
    return Encoder(
        loaded.tokenizer,
        loaded.end_ids,
        trained=make_method(job.fine_tune).trained,
        prompt=job.prompt,
        embedded=loaded.embedded,
        date=job.date,
        thoughts=job.fine_tune.thoughts,
    )
