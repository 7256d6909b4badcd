"""A frozen linear layer with its low-rank update as one operation.

peft computes ``base(x) + B(A(x)) * scaling`` with an output-sized product and sum of their own, and
autograd adds the two gradients by ``x`` in one more pass. Here the scaling goes onto the narrow
middle, and both sums into the matrix products: a tenth less memory, and no slower. The result is
the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class LoraLinearFunction(torch.autograd.Function):
    """``x @ weight.T + bias + scaling * x @ a.T @ b.T`` with frozen ``weight`` and ``bias``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        """x: (..., in); weight: (out, in); a: (rank, in); b: (out, rank) -> (..., out)."""
        # The frozen product runs in the base's type, the update in the adapter's: explicitly,
        # since the backward pass runs outside any autocast.
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
            out = nn.functional.linear(flat, weight, bias)
            middle = (flat.to(a.dtype) @ a.T).mul_(scaling)
            if out.dtype == b.dtype:
                out.addmm_(middle, b.T)
            else:
                out += (middle @ b.T).to(out.dtype)
        ctx.save_for_backward(flat, weight, a, b, middle)
        ctx.scaling, ctx.dtype = scaling, x.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, middle = ctx.saved_tensors
        shape = grad.shape
        grad = grad.reshape(-1, shape[-1])
        wide = grad.to(b.dtype)
        grad_b = wide.T @ middle
        grad_middle = (wide @ b).mul_(ctx.scaling)
        grad_a = grad_middle.T @ x.to(a.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad.to(weight.dtype) @ weight
            if grad_x.dtype == a.dtype:
                grad_x.addmm_(grad_middle, a)
            else:
                grad_x += (grad_middle @ a).to(grad_x.dtype)
            grad_x = grad_x.to(ctx.dtype).view(*shape[:-1], -1)
        return grad_x, None, None, grad_a, grad_b, None


def fuse(model: nn.Module) -> int:
    """Let the plain LoRA layers of a peft model compute in one operation, while it trains.

    Layers with dropout, DoRA, a bias of their own, a quantised or a trained base stay as they are.

    Returns:
        How many layers were changed.
    """
    from peft.tuners.lora.layer import Linear

    count = 0
    for module in model.modules():
        if type(module) is Linear and _is_plain(module):
            module.forward = _Forward(module)  # type: ignore[method-assign]
            count += 1
    return count


def _is_plain(layer: Any) -> bool:
    if list(layer.lora_A) != ["default"] or layer.lora_variant or layer.fan_in_fan_out:
        return False
    base: Any = layer.base_layer
    a: Any = layer.lora_A["default"]
    b: Any = layer.lora_B["default"]
    linear = all(type(part) is nn.Linear for part in (base, a, b))
    frozen = linear and not any(p.requires_grad for p in base.parameters())
    return frozen and b.bias is None and isinstance(layer.lora_dropout["default"], nn.Identity)


class _Forward:
    """Replaces one layer's ``forward``."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._base = layer, layer.base_layer
        self._a, self._b = layer.lora_A["default"], layer.lora_B["default"]
        self._scaling = float(layer.scaling["default"])

    def __call__(self, x: Tensor) -> Tensor:
        if self._layer.disable_adapters:
            plain: Tensor = self._base(x)
            return plain
        out: Tensor = LoraLinearFunction.apply(  # type: ignore[no-untyped-call]
            x, self._base.weight, self._base.bias, self._a.weight, self._b.weight, self._scaling
        )
        return out
