"""Processes that share the rows of every step, one thread each.

On a busy machine two threads of one process wait for each other after every operation; two
processes wait only once a step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


@dataclass(frozen=True)
class Team:
    """This process among ``size`` ones that work on the same run."""

    rank: int
    size: int

    def agree(self, progress: float, stage: float) -> tuple[float, float]:
        """The first member's progress and stage: clocks differ, decisions must not."""
        if self.size == 1:
            return progress, stage
        said = torch.tensor([progress, stage], dtype=torch.float64)
        dist.broadcast(said, 0)
        return float(said[0]), float(said[1])

    def add_up(self, model: torch.nn.Module, loss: float) -> float:
        """Sum all members' gradients into each member's, and return the sum of their losses."""
        if self.size == 1:
            return loss
        held = [p for p in model.parameters() if p.requires_grad]
        for p in held:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat(
            [*(p.grad.reshape(-1) for p in held if p.grad is not None), torch.tensor([loss])]
        )
        dist.all_reduce(flat)
        begin = 0
        for p in held:
            assert p.grad is not None
            p.grad.copy_(flat[begin : begin + p.numel()].view_as(p))
            begin += p.numel()
        return float(flat[-1])


ALONE = Team(0, 1)


def _member(rank: int, size: int, meeting: str, work: Callable[[Team], None]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    work(Team(rank, size))
    dist.barrier()
    dist.destroy_process_group()


def run(size: int, work: Callable[[Team], None]) -> None:
    """Call ``work`` in ``size`` processes (in this one if it is 1); ``work`` must be picklable."""
    if size == 1:
        work(ALONE)
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _member,
            args=(size, str(Path(folder) / "meeting"), work),
            nprocs=size,
            start_method="spawn",
        )
