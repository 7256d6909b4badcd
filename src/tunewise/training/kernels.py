"""Which kernel computes flat attention: FlexAttention on a GPU where it proves itself, else blocks.

A fused kernel can fail in its compiler, its driver, or for want of shared memory, which differs by
machine, model and release of torch. So it is run forward and backward on some rows before step 0
and compared with the blocks; a run never ends for want of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tunewise.training.batches import FlatBatch, flatten
from tunewise.training.fast_path import few_short
from tunewise.training.rows import EncodedRow
from tunewise.training.setup import Setup

_SMALLEST_HEAD = 16
"""Numbers of a head, for the matrix units that the kernel uses."""


def why_not_flex(device: torch.device, head_dim: int) -> str | None:
    """Why FlexAttention cannot be used by what is known beforehand; None if it can."""
    if device.type != "cuda":
        return f"FlexAttention has gradients on a GPU only, and this is a {device.type}"
    if head_dim < _SMALLEST_HEAD:
        return f"FlexAttention needs heads of {_SMALLEST_HEAD} numbers or more, not {head_dim}"
    return None


def choose(setup: Setup, rows: Sequence[EncodedRow]) -> str:
    """Turn FlexAttention on (``setup.flex``) where it runs and agrees with the blocks.

    Args:
        setup: with the fast path on or off.
        rows: some of the training rows.

    Returns:
        Why the run goes without it; "" where it does not.
    """
    if not setup.flat:
        return "on the plain path attention is the model's own"
    head_dim = setup.decoder.layers[0].self_attn.head_dim
    reason = why_not_flex(setup.causal.device, head_dim) or _disagreement(setup, rows)
    setup.flex = reason is None
    return reason or ""


def _disagreement(setup: Setup, rows: Sequence[EncodedRow]) -> str | None:
    """How FlexAttention fails or differs from the blocks on some rows; None if it does neither."""
    batch = flatten(few_short(rows), min_shared=1)
    was_training = setup.outer.training
    setup.outer.eval()
    try:
        expected = _pass(setup, batch)
        setup.flex = True
        found = _pass(setup, batch)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        return f"FlexAttention failed on this machine: {type(error).__name__}: {first}"
    finally:
        setup.flex = False
        setup.outer.train(was_training)
    low = setup.causal.dtype in (torch.bfloat16, torch.float16)
    for what, one, other in zip(("hidden states", "gradients"), found, expected, strict=True):
        difference = float((one - other).norm() / other.norm().clamp_min(1e-12))
        # Rounding, or not a number: both must not be taken for agreement.
        if not difference <= (0.1 if low else 1e-3):
            return f"the {what} of FlexAttention differ by {difference:.2g} from those of blocks"
    return None


def _pass(setup: Setup, batch: FlatBatch) -> tuple[Tensor, Tensor]:
    """Some last hidden states, and the gradient of a sum of theirs by all weights, as vectors."""
    # Not all places: the last layer's queries are then fewer than its keys, as in training.
    hidden = setup.hidden(batch, np.arange(1, batch.layout.tokens, 3)).float()
    # A norm stands last, so that squares or all channels together would have no gradient.
    value = hidden[:, ::2].sum()
    grads = torch.autograd.grad(value, list(setup.weights.values()), allow_unused=True)
    flat = [g.float().flatten() for g in grads if g is not None]
    return hidden.detach().flatten(), torch.cat(flat)
