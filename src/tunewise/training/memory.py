"""How many tokens a pass may hold in this machine's free memory, and what is done where few fit.

An estimate before the start: what does not fit is cut into more passes with the same optimiser
step, and where a single item is too long, activations are computed again in the backward pass
(Chen et al., 1604.06174).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MOST_TOKENS = 8192
"""From a few thousand tokens on, larger passes are not faster."""
FEWEST_TOKENS = 512
_SHARE = 0.4
"""Of the free memory: others use the machine too, and the estimate is one."""
_BYTES_PER_WEIGHT = 12
"""Of a learning weight, beside itself: its gradient and AdamW's two moments, in float32."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a run spends memory.

    Attributes:
        tokens: most tokens of one pass.
        recompute: activations within layers are computed again in the backward pass.
        capacity: tokens that are estimated to fit, which may be fewer than the longest item.
    """

    tokens: int
    recompute: bool
    capacity: int

    def event(self, step_tokens: float, longest: int) -> dict[str, Any]:
        """What the run says of it, given the tokens of a usual step and of the longest item."""
        return {
            "event": "memory",
            "tokens_per_pass": self.tokens,
            "passes_per_step": math.ceil(step_tokens / self.tokens),
            "recompute": self.recompute,
            "longest": longest,
            "fits": longest <= self.capacity,
        }


def plan_memory(causal: Any, trainable: int, longest: int, recompute: bool | None) -> MemoryPlan:
    """Choose before the start.

    Args:
        trainable: numbers that learn.
        longest: tokens of the longest item, which cannot be cut.
        recompute: the user's wish; None switches it on only where ``longest`` does not fit.
    """
    free = _SHARE * _free_memory(causal.device) - _BYTES_PER_WEIGHT * trainable
    chosen = bool(recompute)
    capacity = int(max(0.0, free) / bytes_per_token(causal, recompute=chosen))
    if recompute is None and longest > capacity:
        chosen = True
        capacity = int(max(0.0, free) / bytes_per_token(causal, recompute=True))
    return MemoryPlan(min(MOST_TOKENS, max(FEWEST_TOKENS, capacity)), chosen, capacity)


def bytes_per_token(causal: Any, *, recompute: bool) -> int:
    """What a pass keeps for the backward pass, a token.

    At most 14 numbers of the hidden size and 5 of the inner size in each layer (half of that where
    an adapter learns in fused layers); with recomputing, the input of each layer, and that much
    for one layer at a time.
    """
    config = causal.config.get_text_config(decoder=True)
    width = 14 * config.hidden_size + 5 * (getattr(config, "intermediate_size", 0) or 0)
    width *= getattr(config, "num_experts_per_tok", None) or 1
    layers = int(config.num_hidden_layers)
    numbers = width + layers * config.hidden_size if recompute else width * layers
    return int(numbers * torch.finfo(causal.dtype).bits // 8)


def recompute_activations(causal: Any) -> None:
    """Let each layer compute its activations again in the backward pass; the result is the same."""
    # Newer releases of transformers call it otherwise; the options are torch.utils.checkpoint's.
    enable = getattr(causal, "activation_checkpointing_enable", None)
    (enable or causal.gradient_checkpointing_enable)({"use_reentrant": False})


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux
        return 4 * 2**30
    free = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(free.split()[1]) * 1024
