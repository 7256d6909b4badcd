"""Which kernel computes flat attention: FlexAttention on a GPU where it proves itself, else blocks.

A fused kernel can fail in its compiler, its driver, or for want of shared memory, which differs by
machine, model and release of torch. So before step 0 it runs forward and backward on what the
model's layers hand to attention for some rows, and is compared with the blocks there; a run never
ends for want of it. The comparison is of attention alone: whole models in 16 bits differ by more
than a wrong kernel would, since each layer rounds what the one before has rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewise.training import attention
from tunewise.training.batches import flatten
from tunewise.training.fast_path import few_short
from tunewise.training.rows import EncodedRow
from tunewise.training.setup import Setup

WORTH_COMPILING = 25_000
"""Rows through a layer from which the kernel is worth its compilation.

On an H100 it took about 50 s to compile for a model, and the blocks 2 ms for a row and layer,
forward and backward, whatever the model's size (``benchmarks/gpu_check.py``).
"""
_SMALLEST_HEAD = 16
"""Numbers of a head, for the matrix units that the kernel uses."""


def why_not_flex(device: torch.device, head_dim: int) -> str | None:
    """Why FlexAttention cannot be used by what is known beforehand; None if it can."""
    if device.type != "cuda":
        return f"FlexAttention has gradients on a GPU only, and this is a {device.type}"
    if head_dim < _SMALLEST_HEAD:
        return f"FlexAttention needs heads of {_SMALLEST_HEAD} numbers or more, not {head_dim}"
    return None


def choose(setup: Setup, rows: Sequence[EncodedRow], passes: int) -> str:
    """Turn FlexAttention on (``setup.flex``) where it pays, runs, and agrees with the blocks.

    Args:
        setup: with the fast path on or off.
        rows: some of the training rows.
        passes: rows that the run learns from, each as often as it is learnt from.

    Returns:
        Why the run goes without it; "" where it does not.
    """
    if not setup.flat:
        return "on the plain path attention is the model's own"
    layers = setup.decoder.layers
    reason = why_not_flex(setup.causal.device, layers[0].self_attn.head_dim)
    if reason is None and passes * len(layers) < WORTH_COMPILING:
        reason = "the run is too short for what FlexAttention takes to compile"
    reason = reason or _disagreement(setup, rows)
    setup.flex = reason is None
    return reason or ""


def _disagreement(setup: Setup, rows: Sequence[EncodedRow]) -> str | None:
    """How FlexAttention fails or differs from the blocks on some rows; None if it does neither."""
    batch = flatten(few_short(rows), min_shared=1)
    # Not all places: the last layer's queries are then fewer than its keys, as in training.
    with setup.frozen(), attention.recorded() as calls:
        setup.hidden(batch, np.arange(1, batch.layout.tokens, 3))
    kinds = {_kind(call): call for call in reversed(calls)}
    for call in kinds.values():
        try:
            found = _values(call, flex=True)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            return f"FlexAttention failed on this machine: {type(error).__name__}: {first}"
        low = call.query.dtype in (torch.bfloat16, torch.float16)
        for what, one, other in zip(
            ("outputs", "gradients"), found, _values(call, flex=False), strict=True
        ):
            difference = float((one - other).norm() / other.norm().clamp_min(1e-12))
            # Rounding, or not a number: both must not be taken for agreement.
            if not difference <= (0.03 if low else 1e-3):
                return (
                    f"the {what} of FlexAttention differ by {difference:.2g} from those of blocks"
                )
    return None


def _kind(call: attention.Call) -> tuple[Any, ...]:
    """What tells layers apart for a kernel."""
    tensors = (call.query, call.key, call.value, call.sinks)
    shapes = tuple(None if t is None else (t.shape, t.dtype) for t in tensors)
    return (*shapes, call.window, call.softcap, call.only_kept)


def _values(call: attention.Call, *, flex: bool) -> tuple[Tensor, Tensor]:
    """The output, and all gradients along one direction, each as one vector."""
    query, key, value = (_copy(t) for t in (call.query, call.key, call.value))
    sinks = None if call.sinks is None else _copy(call.sinks)
    inputs = [query, key, value, *([] if sinks is None else [sinks])]
    with torch.enable_grad():
        out, _ = attention.flat_attention(
            None,
            query,
            key,
            value,
            None,
            scaling=call.scale,
            sliding_window=call.window,
            softcap=call.softcap,
            s_aux=sinks,
            flat_layout=call.layout.keeping(call.layout.kept, flex=flex),
            only_kept=call.only_kept,
        )
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(out.shape, generator=generator).to(out)
        grads = torch.autograd.grad(out, inputs, direction)
    return out.detach().float().flatten(), torch.cat([g.float().flatten() for g in grads])


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()
