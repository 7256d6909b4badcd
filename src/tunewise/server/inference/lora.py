"""Linear layers that apply each token's own adapter: LoRA, rsLoRA and DoRA, mixed in one batch.

The adapters in use lie side by side: one product gives every token's low-rank middle for all of
them, those of other adapters are set to zero, and one more product adds the updates. That is two
products a layer however many adapters there are (compare S-LoRA, 2311.03285, and Punica,
2310.18547, which gather by kernels of their own). Long stretches of one adapter, as in reading a
prompt, take only their own part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One adapter's part in one layer.

    Attributes:
        a: ``[in, rank]``.
        b: ``[rank, out]``, scaling included.
        magnitude: DoRA's factor of each output, ``[out]``; None for LoRA.
    """

    a: Tensor
    b: Tensor
    magnitude: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """Several adapters' updates of one layer, side by side in the order of their slots.

    Attributes:
        a: ``[in, ranks]``; b: ``[ranks, out]``.
        edges: slot ``i`` has the columns ``edges[i] : edges[i + 1]`` of the ranks.
        magnitudes: ``[slots + 1, out]``, the last row ones; None without DoRA.
    """

    a: Tensor
    b: Tensor
    edges: tuple[int, ...]
    magnitudes: Tensor | None


@dataclass(slots=True, eq=False)
class Plan:
    """Which adapter each token of one forward pass has.

    Attributes:
        slots: of each token, ``[tokens]``; the number of slots for a token without an adapter.
        mixed: tokens ``0 : mixed`` each have an adapter of their own.
        runs: ``(start, end, slot)``, stretches of one adapter after those; none for the base.
    """

    stacks: dict[str, _Stack]
    slots: Tensor
    mixed: int
    runs: list[tuple[int, int, int]]
    _hidden: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def hidden(self, edges: tuple[int, ...]) -> Tensor:
        """True where a mixed token's middle belongs to another adapter, ``[mixed, ranks]``."""
        found = self._hidden.get(edges)
        if found is None:
            widths = [high - low for low, high in pairwise(edges)]
            owner = torch.repeat_interleave(
                torch.arange(len(widths), device=self.slots.device),
                torch.tensor(widths, device=self.slots.device),
            )
            found = self._hidden[edges] = self.slots[: self.mixed, None] != owner
        return found


class AdapterTable:
    """The adapters of one model, and which of them the next forward pass uses."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self._updates: dict[int, dict[str, Update]] = {}
        self._order: tuple[int, ...] = ()
        self._stacks: dict[str, _Stack] = {}

    def add(self, number: int, updates: dict[str, Update]) -> None:
        """Know an adapter by a number above 0."""
        self._updates[number] = updates

    def remove(self, number: int) -> None:
        del self._updates[number]
        self._order, self._stacks, self.plan = (), {}, None

    def select(self, mixed: Sequence[int], runs: Sequence[tuple[int, int]], device: object) -> None:
        """Say what the next pass's tokens are.

        Args:
            mixed: the adapter's number of each of the first tokens, 0 for none.
            runs: ``(tokens, number)`` of each stretch that follows.
        """
        used = {*mixed, *(number for _, number in runs)} - {0}
        if not used:
            self.plan = None
            return
        # Stacking again costs a copy; a few adapters too many in the stack cost less.
        if not used <= set(self._order) or len(self._order) > 2 * len(used) + 2:
            self._stack(tuple(sorted(used)))
        slot = {number: i for i, number in enumerate(self._order)}
        none = len(self._order)
        slots = [slot.get(number, none) for number in mixed]
        stretches, at = [], len(mixed)
        for length, number in runs:
            slots.extend([slot.get(number, none)] * length)
            if number:
                stretches.append((at, at + length, slot[number]))
            at += length
        tensor = torch.tensor(slots, device=device)  # type: ignore[arg-type]
        self.plan = Plan(self._stacks, tensor, len(mixed) if any(mixed) else 0, stretches)

    def _stack(self, order: tuple[int, ...]) -> None:
        self._order, self._stacks = order, {}
        chosen = [self._updates[number] for number in order]
        for layer in sorted({name for updates in chosen for name in updates}):
            parts = [updates.get(layer) for updates in chosen]
            some = next(p for p in parts if p is not None)
            edges = [0]
            for part in parts:
                edges.append(edges[-1] + (part.a.shape[1] if part is not None else 0))
            ones = some.b.new_ones(some.b.shape[1])
            scales = [p.magnitude if p is not None else None for p in parts]
            self._stacks[layer] = _Stack(
                torch.cat([p.a for p in parts if p is not None], dim=1),
                torch.cat([p.b for p in parts if p is not None], dim=0),
                tuple(edges),
                torch.stack([*(ones if s is None else s for s in scales), ones])
                if any(s is not None for s in scales)
                else None,
            )


class AdapterLinear(nn.Module):
    """A frozen linear layer with the updates of ``table.plan``.

    Args:
        base: the layer as it was loaded.
        name: under which the table knows it.
        table: shared by all layers of the model.
    """

    def __init__(self, base: nn.Linear, name: str, table: AdapterTable) -> None:
        super().__init__()
        self.weight = base.weight
        self.bias: Tensor | None = base.bias
        self.in_features, self.out_features = base.in_features, base.out_features
        self._name, self._table = name, table

    def forward(self, x: Tensor) -> Tensor:
        """``[…, in] -> […, out]``; all leading dimensions together are the plan's tokens."""
        plan = self._table.plan
        stack = plan.stacks.get(self._name) if plan is not None else None
        if plan is None or stack is None:
            return nn.functional.linear(x, self.weight, self.bias)
        flat = x.reshape(-1, x.shape[-1])
        if flat.shape[0] != len(plan.slots):
            raise RuntimeError(f"{self._name} sees {flat.shape[0]} of {len(plan.slots)} tokens")
        scaled = stack.magnitudes is not None
        out = nn.functional.linear(flat, self.weight, None if scaled else self.bias)
        # The update in its own type, as peft does: a 16-bit base keeps a 32-bit adapter.
        wide = flat.to(stack.a.dtype)
        if plan.mixed:
            middle = wide[: plan.mixed] @ stack.a
            middle.masked_fill_(plan.hidden(stack.edges), 0)
            _add(out[: plan.mixed], middle, stack.b)
        for start, end, slot in plan.runs:
            low, high = stack.edges[slot], stack.edges[slot + 1]
            if high > low:
                _add(out[start:end], wide[start:end] @ stack.a[:, low:high], stack.b[low:high])
        if stack.magnitudes is not None:
            out = (out * stack.magnitudes[plan.slots]).to(out.dtype)
            if self.bias is not None:
                out += self.bias
        return out.view(*x.shape[:-1], -1)


def _add(out: Tensor, middle: Tensor, b: Tensor) -> None:
    if out.dtype == b.dtype:
        out.addmm_(middle, b)
    else:
        out += (middle @ b).to(out.dtype)
