"""Rows of a model with layers of any kind: each by itself, on transformers' own forward and cache.

Slower, and right for every architecture: state-space layers, attention sinks, soft caps.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence as Items
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tunewise.models.decoding import cache_keyword
from tunewise.models.loading import LoadedModel
from tunewise.server.inference.backend import Part, Stepped
from tunewise.server.inference.lora import AdapterTable
from tunewise.server.inference.sequence import Sequence


class PlainBackend:
    """Computes each row alone. Nothing is kept of earlier prompts."""

    # A recurrent layer takes a whole prompt or one token; what lies between, it gets wrong.
    cuts_prompts = False

    def __init__(self, loaded: LoadedModel, table: AdapterTable) -> None:
        self._model: Any = loaded.model
        self._table = table
        self._device = loaded.device
        self._rows: list[Sequence] = []
        known = inspect.signature(self._model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._cache_keyword = cache_keyword(self._model)

    def begin(self, row: Sequence, *, reuse: bool) -> None:
        """See ``Backend.begin``."""
        row.held, row.fed = DynamicCache(config=self._model.config), 0

    def keep(self, row: Sequence) -> None:
        """Nothing is kept: a state that is not keys and values cannot be cut."""

    def admit(self, row: Sequence) -> None:
        """See ``Backend.admit``."""
        self._rows.append(row)

    def make_room(self, row: Sequence) -> None:
        """A row's cache grows by itself."""

    def drop(self, row: Sequence) -> None:
        """See ``Backend.drop``."""
        if row in self._rows:
            self._rows.remove(row)
        row.held, row.fed = None, 0

    def shrink(self) -> bool:
        """See ``Backend.shrink``."""
        return False

    def forget(self) -> None:
        """See ``Backend.forget``."""

    @property
    def running(self) -> list[Sequence]:
        """See ``Backend.running``."""
        return list(self._rows)

    def step(self, parts: Items[Part]) -> Stepped:
        """See ``Backend.step``."""
        rows = list(self._rows)
        each = [self._forward(row, row.fed + 1, "last") for row in rows]
        size = int(self._model.get_output_embeddings().weight.shape[0])
        logits = torch.cat(each) if each else torch.empty(0, size)
        return Stepped(rows, logits, [self._forward(p.row, p.end, p.logits) for p in parts])

    def embed(self, inputs: Items[Items[int]], adapter: int) -> Tensor:
        """See ``Backend.embed``."""
        means = []
        for ids in inputs:
            self._table.select([], [(len(ids), adapter)], self._device)
            out = self._model.get_decoder()(
                input_ids=torch.tensor([list(ids)], device=self._device), use_cache=False
            )
            means.append(out.last_hidden_state[0].float().mean(0))
        return torch.stack(means)

    def _forward(self, row: Sequence, end: int, wanted: str) -> Tensor:
        ids = row.tokens[row.fed : end]
        self._table.select([], [(len(ids), row.request.adapter)], self._device)
        output = self._model(
            input_ids=torch.tensor([ids], device=self._device),
            attention_mask=torch.ones(1, end, dtype=torch.long, device=self._device),
            position_ids=torch.arange(row.fed, end, device=self._device)[None],
            use_cache=True,
            **{self._cache_keyword: row.held},
            **(self._last_only if wanted != "all" else {}),
        )
        row.fed = end
        logits: Tensor = output.logits[0].float()
        if wanted == "none":
            return logits[:0]
        return logits if wanted == "all" else logits[-1:]
