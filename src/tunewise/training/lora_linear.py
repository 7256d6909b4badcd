"""Frozen linear layers with their low-rank updates, several of one input as one operation.

peft computes ``base(x) + B(A(x)) * scaling`` with an output-sized product and sum of their own, and
autograd adds the gradients by ``x`` in passes of their own. Here both sums go into the matrix
products, and layers that read the same input (queries, keys, values; gate and up) share the
product with their ``A``. The result is the same up to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Lora(NamedTuple):
    """A frozen layer and its update: ``x @ weight.T + bias + scaling * x @ a.T @ b.T``.

    weight: (out, in); bias: (out,) or None; a: (rank, in); b: (out, rank).
    """

    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scaling: float


def narrow(x: Tensor, layers: Sequence[Lora]) -> Tensor:
    """``x @ a.T`` of all layers beside each other: (tokens, in) -> (tokens, sum of ranks)."""
    a = _all_a(layers)
    return x.to(a.dtype) @ a.T


def _all_a(layers: Sequence[Lora]) -> Tensor:
    return layers[0].a if len(layers) == 1 else torch.cat([layer.a for layer in layers])


def ranks(layers: Sequence[Lora]) -> Iterator[tuple[Lora, slice]]:
    """Each layer with its columns in what ``narrow`` gives."""
    end = 0
    for layer in layers:
        yield layer, slice(end, end + len(layer.a))
        end += len(layer.a)


def forward(x: Tensor, layer: Lora, middle: Tensor) -> Tensor:
    """(tokens, in) -> (tokens, out), given the layer's columns of ``narrow``."""
    out = nn.functional.linear(x, layer.weight, layer.bias)
    return _add_product(out, middle, layer.b.T, layer.scaling)


def grad_narrow(grads: Sequence[Tensor], layers: Sequence[Lora]) -> Tensor:
    """By what ``narrow`` gives, scaled: (tokens, sum of ranks)."""
    parts = [
        (grad.to(layer.b.dtype) @ layer.b).mul_(layer.scaling)
        for grad, layer in zip(grads, layers, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def grad_input(grads: Sequence[Tensor], layers: Sequence[Lora], grad_middle: Tensor) -> Tensor:
    """By the layers' common input: (tokens, in)."""
    out: Tensor | None = None
    for grad, layer in zip(grads, layers, strict=True):
        inner = grad.to(layer.weight.dtype)
        out = inner @ layer.weight if out is None else out.addmm_(inner, layer.weight)
    assert out is not None
    return _add_product(out, grad_middle, _all_a(layers), 1.0)


def grad_updates(
    x: Tensor, middle: Tensor, grads: Sequence[Tensor], layers: Sequence[Lora], grad_middle: Tensor
) -> list[Tensor]:
    """By each layer's ``a`` and ``b``, in turns."""
    by_a = grad_middle.T @ x.to(grad_middle.dtype)
    out = []
    for grad, (layer, at) in zip(grads, ranks(layers), strict=True):
        # The long side of the product lies in rows, as matrix libraries like it.
        by_b = (middle[:, at].T @ grad.to(layer.b.dtype)).T.mul(layer.scaling)
        out += [by_a[at], by_b]
    return out


def _add_product(out: Tensor, one: Tensor, other: Tensor, scaling: float) -> Tensor:
    """``out += scaling * one @ other``, where ``out`` may be of a narrower type."""
    if out.dtype == other.dtype:
        return out.addmm_(one, other, alpha=scaling)
    return out.add_((one @ other).to(out.dtype), alpha=scaling)


def flattened(layers: Sequence[Lora]) -> list[Any]:
    """The tensors of all layers, as arguments of an autograd function."""
    return [tensor for layer in layers for tensor in layer[:4]]


def gathered(tensors: Sequence[Any], scalings: Sequence[float]) -> list[Lora]:
    """The layers again, from ``flattened``."""
    parts = (tensors[number::4] for number in range(4))
    return list(itertools.starmap(Lora, zip(*parts, scalings, strict=True)))


def aligned(updates: Sequence[Tensor]) -> list[Tensor | None]:
    """``grad_updates`` as gradients of ``flattened``: none for the frozen tensors."""
    out: list[Tensor | None] = []
    for by_a, by_b in zip(updates[::2], updates[1::2], strict=True):
        out += [None, None, by_a, by_b]
    return out


class LoraLinears(torch.autograd.Function):
    """Several layers of one input. Frozen weights and biases get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scalings: tuple[float, ...], *tensors: Any) -> Any:
        """x: (..., in) -> for each layer (..., out)."""
        layers = gathered(tensors, scalings)
        # The frozen product runs in the base's type, the update in the adapter's: explicitly,
        # since the backward pass runs outside any autocast.
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(layers[0].weight.dtype)
            middle = narrow(flat, layers)
            outs = [forward(flat, layer, middle[:, at]) for layer, at in ranks(layers)]
        ctx.save_for_backward(flat, middle, *tensors)
        ctx.scalings, ctx.dtype = scalings, x.dtype
        return tuple(out.view(*x.shape[:-1], -1) for out in outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, middle, *tensors = ctx.saved_tensors
        layers = gathered(tensors, ctx.scalings)
        rows = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        grad_middle = grad_narrow(rows, layers)
        updates = grad_updates(flat, middle, rows, layers, grad_middle)
        grad_x = None
        if ctx.needs_input_grad[0]:
            by_x = grad_input(rows, layers, grad_middle)
            grad_x = by_x.to(ctx.dtype).view(*grads[0].shape[:-1], -1)
        return (grad_x, None, *aligned(updates))


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


def fused(layers: Sequence[Any]) -> list[Lora] | None:
    """What to compute layers with as one operation; None where one of them must go by itself."""
    found = []
    for layer in layers:
        forward_ = layer.__dict__.get("forward")
        if not isinstance(forward_, _Forward) or layer.disable_adapters:
            return None
        found.append(forward_.lora)
    return found


def together(x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
    """The results of several layers that read the same input, as one operation if possible."""
    lora = fused(layers)
    if lora is None:
        return tuple(layer(x) for layer in layers)
    scalings = tuple(layer.scaling for layer in lora)
    outs: tuple[Tensor, ...] = LoraLinears.apply(  # type: ignore[no-untyped-call]
        x, scalings, *flattened(lora)
    )
    return outs


class _Forward:
    """Replaces one layer's ``forward``."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    @property
    def lora(self) -> Lora:
        # Read anew each time: loading a checkpoint or moving the model may replace the tensors.
        layer = self._layer
        base = layer.base_layer
        return Lora(
            base.weight,
            base.bias,
            layer.lora_A["default"].weight,
            layer.lora_B["default"].weight,
            float(layer.scaling["default"]),
        )

    def __call__(self, x: Tensor) -> Tensor:
        if self._layer.disable_adapters:
            plain: Tensor = self._layer.base_layer(x)
            return plain
        (out,) = together(x, [self._layer])
        return out
