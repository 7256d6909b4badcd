"""The plan of shared beginnings and batches: nothing lost, nothing shared that differs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.models.batching import (
    MIN_ROWS,
    MIN_SHARED,
    BatchLimits,
    SharedPrefix,
    common_length,
    cut_batches,
    share_prefixes,
)

tokens = st.lists(st.integers(0, 1), min_size=1, max_size=12)
heads = st.sampled_from([[], [5] * 40, [5] * 40 + [6] * 30, [5] * 40 + [7] * 20, [8] * 25])
prompts = st.lists(st.builds(lambda head, tail: head + tail, heads, tokens), max_size=30)


def check(node: SharedPrefix, all_prompts: list[list[int]], before: list[int]) -> list[int]:
    """Every row below the node begins with its stretch; returns the rows."""
    stretch = before + all_prompts[node.any_row][node.start : node.end]
    assert len(before) == node.start and len(stretch) == node.end
    rows = list(node.rows)
    for child in node.children:
        assert child.end >= node.end + MIN_SHARED and child.size >= MIN_ROWS
        rows += check(child, all_prompts, stretch)
    for row in rows:
        assert all_prompts[row][: node.end] == stretch
        assert len(all_prompts[row]) > node.end  # the last token is the row's own
    return rows


@settings(max_examples=200, deadline=None)
@given(prompts)
def test_each_prompt_hangs_once_on_what_it_begins_with(all_prompts: list[list[int]]) -> None:
    if all_prompts:
        root = share_prefixes(all_prompts)
        assert sorted(check(root, all_prompts, [])) == list(range(len(all_prompts)))
        assert root.size == len(all_prompts)


def test_two_levels_are_found() -> None:
    system = list(range(100, 150))
    groups = [system + [n] * 40 for n in (1, 2)]
    root = share_prefixes([groups[i % 2] + [50 + i] for i in range(20)])
    assert (root.start, root.end, root.rows) == (0, 50, ())
    assert [(c.start, c.end, c.size) for c in root.children] == [(50, 90, 10), (50, 90, 10)]


def test_equal_prompts_keep_their_last_token() -> None:
    root = share_prefixes([[1] * 60] * 5)
    assert (root.end, len(root.rows)) == (59, 5)


@given(tokens, tokens)
def test_common_length(one: list[int], other: list[int]) -> None:
    length = common_length(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 50)), max_size=60), st.booleans())
def test_batches_keep_their_limits(rows: list[tuple[int, int]], equal: bool) -> None:
    limits = BatchLimits(tokens=600, rows=8, waste=0.25, cache_tokens=900)
    lengths = {i: r[0] for i, r in enumerate(rows)}
    answers = {i: r[1] for i, r in enumerate(rows)}
    batches = list(cut_batches(list(lengths), lengths, answers, limits, equal_lengths=equal))
    assert sorted(i for batch in batches for i in batch) == list(lengths)
    for batch in batches:
        width = max(lengths[i] for i in batch)
        if len(batch) > 1:
            real = sum(lengths[i] for i in batch)
            assert len(batch) <= 8 and width * len(batch) <= 600
            assert width * len(batch) - real <= 0.25 * width * len(batch)
            assert (width + max(answers[i] for i in batch)) * len(batch) <= 900
            assert not equal or len({lengths[i] for i in batch}) == 1
