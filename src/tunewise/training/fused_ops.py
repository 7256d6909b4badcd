"""What lies between a decoder layer's matrix products, with backward passes written by hand.

Each is the usual computation with fewer passes over memory and fewer tensors kept: autograd would
keep every intermediate result. The same is done for GPUs by Liger (Hsu et al., 2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunewise.training import lora_linear


class RmsNorm(torch.autograd.Function):
    """``x / sqrt(mean(x²) + eps) * scale`` over the last dimension (Zhang and Sennrich, 2019)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """x: (..., dim); scale: (dim,)."""
        wide = _wide(x)
        inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, inverse)
        return (wide * inverse).mul_(scale.to(wide.dtype)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, inverse = ctx.saved_tensors
        wide, wide_grad = _wide(x), _wide(grad)
        grad_scale = None
        if ctx.needs_input_grad[1]:
            by_token = (wide_grad * wide).mul_(inverse)
            grad_scale = by_token.reshape(-1, x.shape[-1]).sum(0).to(scale.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            inner = wide_grad * scale.to(wide.dtype)
            along = torch.linalg.vecdot(inner, wide).unsqueeze(-1)
            along.mul_(inverse.square()).div_(x.shape[-1])
            grad_x = inner.addcmul_(wide, along, value=-1).mul_(inverse).to(x.dtype)
        return grad_x, grad_scale, None


class Rotary(torch.autograd.Function):
    """Rotary positions in halves (Su et al., 2104.09864), as transformers applies them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (1, tokens, heads, dim); cos, sin: (1, tokens, dim)."""
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, sin, -1), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    half = x.shape[-1] // 2
    cos, sin = cos.unsqueeze(2).to(x.dtype), sin.unsqueeze(2).to(x.dtype)
    out = x * cos
    # Backward is the transposed rotation: the halves of ``sin`` change places with their sign.
    first, second = (sin[..., :half], sin[..., half:])[::direction]
    out[..., :half].addcmul_(x[..., half:], first, value=-direction)
    out[..., half:].addcmul_(x[..., :half], second, value=direction)
    return out


class GatedMlp(torch.autograd.Function):
    """``down(act(gate(x)) * up(x))`` of three frozen layers with low-rank updates.

    Keeps the results of gate and up only; what follows from them is computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, activation: str, scalings: tuple[float, ...], *tensors: Any
    ) -> Tensor:
        """
        Args:
            x: (..., dim).
            activation: ``silu`` or ``gelu_tanh``.
            scalings, tensors: of gate, up and down, from ``lora_linear.flattened``.
        """
        *two, down = lora_linear.gathered(tensors, scalings)
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(down.weight.dtype)
            middle = lora_linear.narrow(flat, two)
            gate, up = (
                lora_linear.forward(flat, layer, middle[:, at])
                for layer, at in lora_linear.ranks(two)
            )
            product = _activate(activation, gate).mul_(up)
            inner = lora_linear.narrow(product, [down])
            out = lora_linear.forward(product, down, inner)
        ctx.save_for_backward(flat, middle, gate, up, inner, *tensors)
        ctx.activation, ctx.scalings, ctx.dtype = activation, scalings, x.dtype
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, middle, gate, up, inner, *tensors = ctx.saved_tensors
        *two, down = lora_linear.gathered(tensors, ctx.scalings)
        rows = [grad.reshape(-1, grad.shape[-1])]
        grad_inner = lora_linear.grad_narrow(rows, [down])
        by_product = lora_linear.grad_input(rows, [down], grad_inner)
        active = _activate(ctx.activation, gate)
        by_up = active * by_product
        product = active.mul_(up)
        updates = lora_linear.grad_updates(product, inner, rows, [down], grad_inner)
        by_two = [_slope(ctx.activation, by_product.mul_(up), gate), by_up]
        grad_middle = lora_linear.grad_narrow(by_two, two)
        updates = lora_linear.grad_updates(flat, middle, by_two, two, grad_middle) + updates
        grad_x = None
        if ctx.needs_input_grad[0]:
            by_x = lora_linear.grad_input(by_two, two, grad_middle)
            grad_x = by_x.to(ctx.dtype).view(grad.shape)
        return (grad_x, None, None, *lora_linear.aligned(updates))


def _activate(name: str, x: Tensor) -> Tensor:
    if name == "silu":
        return torch.nn.functional.silu(x)
    return torch.nn.functional.gelu(x, approximate="tanh")


def _slope(name: str, grad: Tensor, x: Tensor) -> Tensor:
    """The gradient by the activation's input."""
    if name == "silu":
        found: Tensor = torch.ops.aten.silu_backward(grad, x)
    else:
        found = torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
    return found


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
