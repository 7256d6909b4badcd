"""How fast it learns: the learning rate of each step, and how many rows make one."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup_ratio: float) -> float:
    """Linear warm-up, then half a cosine down to a tenth of the peak; ``step`` from 0."""
    warm = math.ceil(total * warmup_ratio)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def default_batch_size(rows: int) -> int:
    """Rows per optimiser step: 16, fewer for small sets so that an epoch has about 20 steps.

    LoRA loses more than full fine-tuning when batches grow (Schulman et al., "LoRA Without
    Regret", 2025), and a set of 60 rows needs more than four steps an epoch.
    """
    return max(4, min(16, rows // 20))
