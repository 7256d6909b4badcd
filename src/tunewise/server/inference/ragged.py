"""All running rows and parts of prompts of a model in one flat forward pass, without padding."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as Items
from itertools import pairwise

import torch
from torch import Tensor

from tunewise.models.loading import LoadedModel
from tunewise.server.inference.attention import Decoding, Ragged, Stretch
from tunewise.server.inference.backend import Part, Stepped
from tunewise.server.inference.forward import Forward
from tunewise.server.inference.lora import AdapterTable
from tunewise.server.inference.memory import Arenas, Budget, Reading, Shape
from tunewise.server.inference.prefixes import BLOCK, PrefixCache
from tunewise.server.inference.sequence import Sequence


class RaggedBackend:
    """Computes the rows of a model whose layers are on the fast path's list.

    Args:
        loaded: the model.
        forward: computes its passes.
        table: of its adapters.
        budget: for keys and values.
    """

    cuts_prompts = True

    def __init__(
        self, loaded: LoadedModel, forward: Forward, table: AdapterTable, budget: Budget
    ) -> None:
        self._forward = forward
        self._table = table
        self._device = loaded.device
        config = loaded.model.config.get_text_config(decoder=True)
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        layers = int(config.num_hidden_layers)
        shape = Shape(layers, heads, int(size), loaded.dtype, self._device)
        self._shape, self._budget = shape, budget
        self._arenas = Arenas(shape, budget, loaded.context_length)
        self._prefixes = PrefixCache(shape, budget)

    def begin(self, row: Sequence, *, reuse: bool) -> None:
        """See ``Backend.begin``."""
        row.held = Reading(self._shape, row.end, self._budget)
        row.fed = 0
        if reuse:
            blocks = self._prefixes.find(self._root(row), row.tokens[: row.end - 1])
            if blocks:
                row.fed = len(blocks) * BLOCK
                torch.cat(blocks, dim=3, out=row.held.data[:, :, :, : row.fed])

    def keep(self, row: Sequence) -> None:
        """See ``Backend.keep``."""
        self._prefixes.keep(self._root(row), row.tokens[: row.fed], row.held.data)

    def admit(self, row: Sequence) -> None:
        """See ``Backend.admit``."""
        reading: Reading = row.held
        self._arenas.admit(row, reading.data)
        reading.free()

    def make_room(self, row: Sequence) -> None:
        """See ``Backend.make_room``."""
        self._arenas.make_room(row)

    def drop(self, row: Sequence) -> None:
        """See ``Backend.drop``."""
        if isinstance(row.held, Reading):
            row.held.free()
        elif row.held is not None:
            row.held.remove(row)
        row.held, row.fed = None, 0

    def shrink(self) -> bool:
        """See ``Backend.shrink``."""
        return self._prefixes.shrink()

    def forget(self) -> None:
        """See ``Backend.forget``."""
        self._prefixes.clear()

    @property
    def running(self) -> list[Sequence]:
        """See ``Backend.running``."""
        return [row for arena in self._arenas.used for row in arena.rows]

    def step(self, parts: Items[Part]) -> Stepped:
        """See ``Backend.step``."""
        arenas = self._arenas.used
        rows = [row for arena in arenas for row in arena.rows]
        tokens = [row.tokens[row.fed] for row in rows]
        places = [row.fed for row in rows]
        wanted = list(range(len(rows)))
        stretches, ends = [], [len(rows)]
        for part in parts:
            row, start = part.row, len(tokens)
            tokens += row.tokens[row.fed : part.end]
            places += range(row.fed, part.end)
            stretches.append(Stretch(start, len(tokens), row.held.data, row.fed))
            if part.logits == "all":
                wanted += range(start, len(tokens))
            elif part.logits == "last":
                wanted.append(len(tokens) - 1)
            ends.append(len(wanted))
        positions = torch.tensor(places, device=self._device)
        decoding, at = [], 0
        for arena in arenas:
            end = at + len(arena.rows)
            slots = torch.arange(len(arena.rows), device=self._device)
            width = max(places[at:end]) + 1
            decoding.append(Decoding(at, end, arena.data, slots, positions[at:end], width))
            at = end
        self._table.select(
            [row.request.adapter for row in rows],
            [
                (s.end - s.start, p.row.request.adapter)
                for s, p in zip(stretches, parts, strict=True)
            ],
            self._device,
        )
        logits = self._forward.logits(
            torch.tensor(tokens, device=self._device),
            positions,
            Ragged(decoding, stretches),
            torch.tensor(wanted, dtype=torch.long, device=self._device),
        ).float()
        for row in rows:
            row.fed += 1
        for part in parts:
            part.row.fed = part.end
        return Stepped(
            rows,
            logits[: ends[0]],
            [logits[low:high] for low, high in pairwise(ends)],
        )

    def embed(self, inputs: Items[Items[int]], adapter: int) -> Tensor:
        """See ``Backend.embed``."""
        stretches, at = [], 0
        for ids in inputs:
            stretches.append(Stretch(at, at + len(ids), None, 0))
            at += len(ids)
        self._table.select([], [(at, adapter)], self._device)
        hidden = self._forward.hidden(
            torch.tensor([t for ids in inputs for t in ids], device=self._device),
            torch.tensor([p for ids in inputs for p in range(len(ids))], device=self._device),
            Ragged([], stretches),
        ).float()
        return torch.stack([hidden[s.start : s.end].mean(0) for s in stretches])

    def _root(self, row: Sequence) -> Hashable:
        return (row.request.scope, row.request.adapter)
