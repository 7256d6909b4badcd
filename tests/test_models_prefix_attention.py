"""Attention over a shared prefix is the attention over the same keys copied for each row."""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from tunewise.models import prefix_attention
from tunewise.models.decoding import _closed_up
from tunewise.models.prefix_attention import (
    FlatPass,
    OwnTokens,
    PrefixCache,
    shared_prefix_attention,
)

KV_HEADS, SIZE = 2, 8


class Batch:
    """Rows in flat passes, and beside them each row's keys and values as one plain list."""

    def __init__(self, group: int, prefix: int) -> None:
        self.heads = KV_HEADS * group
        key, value = torch.randn(2, KV_HEADS, prefix, SIZE)
        self.prefix = PrefixCache((key,), (value,)) if prefix else None
        self.before = torch.stack([key, value])
        self.own = OwnTokens()
        self.seen: list[torch.Tensor] = []

    def run(self, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A pass of new tokens, all of a prompt or one a row: what comes out, what should."""
        first = not self.seen
        if first:
            self.seen = [self.before] * len(lengths)
        starts = [rows.shape[2] - self.before.shape[2] for rows in self.seen]
        query = 3 * torch.randn(1, self.heads, sum(lengths), SIZE)
        new = torch.randn(2, KV_HEADS, sum(lengths), SIZE)
        wanted = []
        ends = [0, *accumulate(lengths)]
        for row, length in enumerate(lengths):
            part = slice(ends[row], ends[row] + length)
            self.seen[row] = torch.cat([self.seen[row], new[:, :, part]], dim=2)
            keys, values = self.seen[row].repeat_interleave(self.heads // KV_HEADS, dim=1)
            hidden = torch.ones(length, keys.shape[1], dtype=torch.bool).triu(
                keys.shape[1] - length + 1
            )
            wanted.append(
                scaled_dot_product_attention(query[0, :, part], keys, values, attn_mask=~hidden)
            )
        width = max(start + length for start, length in zip(starts, lengths, strict=True))
        places = torch.tensor(
            [start + i for start, n in zip(starts, lengths, strict=True) for i in range(n)]
        )
        mask = torch.zeros(len(places), 1, 1, width)
        mask.masked_fill_((torch.arange(width) > places[:, None])[:, None, None], -torch.inf)
        flat = FlatPass(
            self.prefix,
            self.own,
            len(lengths),
            torch.repeat_interleave(torch.tensor(lengths)),
            places,
            width,
            None if first else mask,
        )
        module: Any = SimpleNamespace(layer_idx=0)
        found, _ = shared_prefix_attention(module, query, new[:1], new[1:], None, flat=flat)
        return found, torch.cat(wanted, dim=1).transpose(0, 1)[None]

    def select(self, order: list[int]) -> None:
        self.own.select(order)
        self.seen = [self.seen[i] for i in order]


@pytest.mark.parametrize("pieces", [None, 1, 1 << 20])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("prefix", [0, 7])
def test_it_is_plain_attention(
    pieces: int | None, group: int, prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pieces:  # as on other devices than a processor
        monkeypatch.setattr(prefix_attention, "_attend_and_sum", prefix_attention._by_definition)
        monkeypatch.setattr(prefix_attention, "_SCORES", pieces)
    torch.manual_seed(0)
    batch = Batch(group, prefix)
    passes = [batch.run([5, 2, 9, 1])]
    passes += [batch.run([1] * 4) for _ in range(2)]
    batch.select([0, 3, 2])  # the second row ended, the last one takes its place
    passes += [batch.run([1] * 3) for _ in range(2)]
    batch.select([2])
    passes += [batch.run([1]) for _ in range(70)]  # longer than the room at the start
    for found, wanted in passes:
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=2e-6)


def test_prefixes_add_up() -> None:
    torch.manual_seed(0)
    batch = Batch(group=1, prefix=3)
    batch.run([4, 2])
    prefix = batch.own.after(batch.prefix, 4)
    assert prefix.length == 7
    assert torch.equal(prefix.keys[0], batch.seen[0][0])
    assert torch.equal(prefix.values[0], batch.seen[0][1])


def test_what_it_cannot_compute_it_refuses() -> None:
    parts = torch.randn(3, 1, 2, 1, SIZE)
    one = torch.zeros(1, dtype=torch.long)
    flat = FlatPass(None, OwnTokens(), 1, one, one, 1)
    module: Any = SimpleNamespace(layer_idx=0)
    for odd in ({"softcap": 50.0}, {"s_aux": torch.zeros(2)}, {"flat": None}):
        with pytest.raises(ValueError, match="soft caps or sinks"):
            shared_prefix_attention(module, *parts, None, **{"flat": flat, **odd})


@given(st.lists(st.booleans(), max_size=20))
def test_rows_close_up_with_few_moves(stays: list[bool]) -> None:
    kept = [i for i, stay in enumerate(stays) if stay]
    order = _closed_up(kept)
    assert sorted(order) == kept
    assert all(order[row] == row for row in kept if row < len(kept))
