"""The arithmetic of flat attention: blocks forward, joined, and backward. Needs torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunewise.training.attention import Block

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FlatAttention(torch.autograd.Function):
    """Softmax attention of every query over the blocks that hold it."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        plan: list[Block],
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Shapes as in ``flat_attention``; returns (1, queries, heads, value dim)."""
        _, heads, queries, _ = query.shape
        width = torch.float64 if query.dtype == torch.float64 else torch.float32
        out = query.new_empty(1, queries, heads, value.shape[-1], dtype=width).transpose(1, 2)
        lse = query.new_empty(1, queries, heads, dtype=width).transpose(1, 2)
        kernel = _forward_kernel(query, softcap)
        for block in plan:
            at = slice(block.q0, block.q1)
            keys = slice(block.k0, block.k1)
            part, part_lse = kernel(
                query[:, :, at], key[:, :, keys], value[:, :, keys], block, scale, softcap
            )
            if block.first:
                out[:, :, at] = part
                lse[:, :, at] = part_lse
            else:
                _join(out[:, :, at], lse[:, :, at], part, part_lse)
        if sinks is not None:
            total = torch.logaddexp(lse, sinks.to(width)[None, :, None])
            out.mul_((lse - total).exp_().unsqueeze(-1))
            lse = total
        result = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, result, lse, sinks)
        ctx.plan, ctx.scale, ctx.softcap = plan, scale, softcap
        return result.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse, sinks = ctx.saved_tensors
        grad = grad.transpose(1, 2)
        width = torch.float64 if query.dtype == torch.float64 else torch.float32
        grads = [torch.zeros_like(t, dtype=width) for t in (query, key, value)]
        kernel = _backward_kernel(query, ctx.softcap)
        for block in ctx.plan:
            at = slice(block.q0, block.q1)
            keys = slice(block.k0, block.k1)
            part = kernel(
                grad[:, :, at],
                query[:, :, at],
                key[:, :, keys],
                value[:, :, keys],
                out[:, :, at],
                lse[:, :, at],
                block,
                ctx.scale,
                ctx.softcap,
            )
            grads[0][:, :, at] += part[0]
            grads[1][:, :, keys] += part[1]
            grads[2][:, :, keys] += part[2]
        grad_sinks = None
        if sinks is not None and ctx.needs_input_grad[3]:
            share = (sinks.to(width)[None, :, None] - lse).exp()
            grad_sinks = -(share * (grad.to(width) * out.to(width)).sum(-1)).sum((0, 2))
            grad_sinks = grad_sinks.to(sinks.dtype)
        q, k, v = (g.to(t.dtype) for g, t in zip(grads, (query, key, value), strict=True))
        return q, k, v, grad_sinks, None, None, None


def _join(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Fold a block's output into the running one, in place."""
    total = torch.logaddexp(lse, part_lse)
    out.mul_((lse - total).exp_().unsqueeze(-1))
    out.add_(part * (part_lse - total).exp_().unsqueeze(-1))
    lse.copy_(total)


def _forward_kernel(query: Tensor, softcap: float | None) -> Any:
    return _flash_forward if query.device.type == "cpu" and softcap is None else _plain_forward


def _backward_kernel(query: Tensor, softcap: float | None) -> Any:
    return (
        _flash_block_backward if query.device.type == "cpu" and softcap is None else _plain_backward
    )


def _flash_forward(
    q: Tensor, k: Tensor, v: Tensor, block: Block, scale: float, _: float | None
) -> tuple[Tensor, Tensor]:
    out, lse = _flash(q, k, v, 0.0, block.causal, attn_mask=_additive(block, q), scale=scale)
    return out, lse


def _flash_block_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    block: Block,
    scale: float,
    _: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    mask = _additive(block, q)
    q_grad, k_grad, v_grad = _flash_backward(
        grad, q, k, v, out, lse, 0.0, block.causal, attn_mask=mask, scale=scale
    )
    return q_grad, k_grad, v_grad


def _additive(block: Block, like: Tensor) -> Tensor | None:
    if block.mask is None:
        return None
    zero = torch.zeros(block.mask.shape, dtype=like.dtype, device=like.device)
    return zero.masked_fill_(~block.mask, float("-inf"))[None, None]


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """(1, heads, n, d) -> (1, kv heads, heads per kv head, n, d)."""
    _, heads, n, d = q.shape
    return q.reshape(1, kv_heads, heads // kv_heads, n, d)


def _plain_logits(
    q: Tensor, k: Tensor, block: Block, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Logits (1, kv heads, group, queries, keys), and tanh of the capped ones."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    logits = torch.matmul(_grouped(q, k.shape[1]).to(wide), k.to(wide).mT.unsqueeze(2)) * scale
    tanh = None
    if softcap is not None:
        tanh = torch.tanh(logits / softcap)
        logits = tanh * softcap
    hidden = None
    if block.mask is not None:
        hidden = ~block.mask
    elif block.causal:
        n = q.shape[2]
        hidden = torch.ones(n, n, dtype=torch.bool, device=q.device).triu_(1)
    if hidden is not None:
        logits = logits.masked_fill(hidden, float("-inf"))
    return logits, tanh


def _plain_forward(
    q: Tensor, k: Tensor, v: Tensor, block: Block, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    logits, _ = _plain_logits(q, k, block, scale, softcap)
    lse = logits.logsumexp(-1)
    out = torch.matmul((logits - lse.unsqueeze(-1)).exp_(), v.to(logits.dtype).unsqueeze(2))
    return out.flatten(1, 2), lse.flatten(1, 2)


def _plain_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    block: Block,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    kv = k.shape[1]
    logits, tanh = _plain_logits(q, k, block, scale, softcap)
    wide = logits.dtype
    weights = (logits - _grouped(lse.unsqueeze(-1), kv)).exp_()
    g, o = _grouped(grad, kv).to(wide), _grouped(out, kv).to(wide)
    grad_v = torch.matmul(weights.mT, g).sum(2)
    delta = (g * o).sum(-1, keepdim=True)
    inner = weights * (torch.matmul(g, v.to(wide).mT.unsqueeze(2)) - delta)
    if tanh is not None:
        inner = inner * (1 - tanh * tanh)
    grad_q = torch.matmul(inner, k.to(wide).unsqueeze(2)) * scale
    grad_k = torch.matmul(inner.mT, _grouped(q, kv).to(wide)).sum(2) * scale
    return grad_q.flatten(1, 2), grad_k, grad_v
