"""Cross-entropy of the trained predictions, in chunks, without keeping their logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits of one chunk hold at most this many numbers (64 MB in float32).
CHUNK_LOGITS = 16 * 1024 * 1024


class LinearCrossEntropy(torch.autograd.Function):
    """Weighted cross-entropy of ``hidden @ weight.T``, chunk by chunk.

    The gradient is computed while a chunk's logits are at hand, as Liger's fused linear
    cross-entropy does (Hsu et al., 2410.10989), so memory does not grow with
    predictions × vocabulary.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            hidden: (predictions, dim); weight: (vocabulary, dim); bias: (vocabulary,) or None.
            targets: (predictions,) wanted tokens; weights: (predictions,) their weights.
            softcap: logits are ``softcap * tanh(logits / softcap)``, as in Gemma 2.

        Returns:
            The weighted sum of losses, and the plain loss of each prediction (no gradient).
        """
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        rows = max(1, CHUNK_LOGITS // weight.shape[0])
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if need_bias and bias is not None else None
        losses = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            h, wanted, share = hidden[part], targets[part], weights[part].to(wide)
            logits = torch.nn.functional.linear(h, weight, bias).to(wide)
            if softcap is not None:
                tanh = torch.tanh(logits / softcap)
                logits = tanh * softcap
            # In place throughout: the logits are the largest tensor there is. They turn into
            # probabilities, and then into the gradient of the loss by the logits.
            logits.sub_(logits.amax(-1, keepdim=True))
            at_target = logits.gather(1, wanted[:, None])[:, 0]
            total = logits.exp_().sum(-1)
            losses[part] = total.log() - at_target
            if not (need_hidden or need_weight or need_bias):
                continue
            logits.mul_((share / total)[:, None])
            logits.scatter_add_(1, wanted[:, None], -share[:, None])
            if softcap is not None:
                logits.mul_(1 - tanh * tanh)
            inner = logits.to(h.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = inner @ weight.to(h.dtype)
            if grad_weight is not None:
                grad_weight += (inner.T @ h).to(wide)
            if grad_bias is not None:
                grad_bias += logits.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(losses)
        return (losses * weights.to(wide)).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad).to(weight_dtype),
            None if grad_bias is None else (grad_bias * grad).to(bias_dtype),
            None,
            None,
            None,
        )


def linear_cross_entropy(
    hidden: Tensor, head: Any, targets: Tensor, weights: Tensor, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """``LinearCrossEntropy`` for an output layer, which may also be wrapped by an adapter.

    Returns:
        The weighted sum of losses, and each prediction's plain loss.
    """
    if type(head) is torch.nn.Linear:
        if hidden.dtype != head.weight.dtype:
            hidden = hidden.to(head.weight.dtype)
        summed, each = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, head.bias, targets, weights, softcap
        )
        return summed, each
    logits = head(hidden).float() if hidden.dtype != torch.float64 else head(hidden)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return (each * weights.to(each.dtype)).sum(), each.detach()
