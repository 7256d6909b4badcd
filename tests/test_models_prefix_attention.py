"""Attention over a shared prefix is the attention over the same keys copied for each row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunewise.models import prefix_attention
from tunewise.models.prefix_attention import (
    OwnTokens,
    PrefixCache,
    additive_mask,
    shared_prefix_attention,
)


@pytest.mark.parametrize("scores", [1, 200, 1 << 20])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("padded", [0, 2])
def test_it_is_plain_attention(
    scores: int, group: int, padded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_attention, "_SCORES", scores)  # few or many pieces
    torch.manual_seed(0)
    rows, kv_heads, queries, shared, size = 3, 2, 5, 7, 8
    heads = kv_heads * group
    query = 4 * torch.randn(rows, heads, queries, size)
    key, value = torch.randn(2, rows, kv_heads, queries, size)
    prefix_key, prefix_value = torch.randn(2, 1, kv_heads, shared, size)
    allowed = torch.ones(rows, queries, queries, dtype=torch.bool).tril()
    allowed[0, :, :padded] = False
    mask = additive_mask(allowed, torch.float32)
    module: Any = SimpleNamespace(layer_idx=1)
    prefix = PrefixCache((torch.empty(0), prefix_key), (torch.empty(0), prefix_value))
    found, _ = shared_prefix_attention(module, query, key, value, mask, shared_prefix=prefix)

    def whole(own: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([before.expand(rows, -1, -1, -1), own], dim=2)
        return joined.repeat_interleave(group, dim=1)

    wanted = torch.nn.functional.scaled_dot_product_attention(
        query,
        whole(key, prefix_key),
        whole(value, prefix_value),
        attn_mask=torch.cat([torch.zeros(rows, 1, queries, shared), mask], dim=3),
    ).transpose(1, 2)
    # Padding queries may see the prefix too; nobody reads what they give.
    torch.testing.assert_close(found[:, padded:], wanted[:, padded:], atol=2e-6, rtol=2e-6)
    assert found.isfinite().all()


def test_own_tokens_grow_and_leave() -> None:
    torch.manual_seed(0)
    cache = OwnTokens(1)
    steps = [torch.randn(4, 2, width, 3) for width in (5, 1, 70, 1)]
    for step in steps:
        keys, values = cache.update(step, -step, 0)
    assert torch.equal(keys, torch.cat(steps, dim=2)) and torch.equal(values, -keys)
    cache.select(torch.tensor([2]))
    keys, _ = cache.update(steps[1][2:3], steps[1][2:3], 0)
    assert torch.equal(keys[:, :, :-1], torch.cat(steps, dim=2)[2:3])
    prefix = cache.after(PrefixCache((steps[1][:1],), (steps[1][:1],)))
    assert prefix.length == 1 + keys.shape[2]
    assert torch.equal(prefix.keys[0][:, :, 1:], keys)
