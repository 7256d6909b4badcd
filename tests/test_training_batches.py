"""Flat batches hold every row whole; plans use every row once an epoch."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from training_support import random_rows
from tunewise.training.batches import (
    MIN_SHARED,
    BatchPlan,
    flatten,
    shared_length,
    sort_rows,
    split_by_budget,
)
from tunewise.training.rows import EncodedRow, EncodedRows

SEEDS = st.integers(0, 2**31)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 20), min_shared=st.sampled_from([1, 2, 16]))
def test_every_row_is_whole_and_at_its_positions(seed, count, min_shared):
    rows = sort_rows(random_rows(seed, count))
    batch = flatten(rows, min_shared=min_shared)
    for number, row in enumerate(rows):
        at = batch.place_of(number)
        assert batch.ids[at].tolist() == row.ids.tolist()
        assert batch.positions[at].tolist() == list(range(len(row.ids)))
    assert batch.row_tokens == sum(len(r.ids) for r in rows)
    assert batch.weight == pytest.approx(sum(float(r.weights.sum()) for r in rows))
    assert len(batch.ids) <= batch.row_tokens
    # What two rows share beyond the least worth sharing is there once.
    for a, b in zip(range(count), range(1, count), strict=False):
        common = shared_length(rows[a].ids, rows[b].ids)
        same = int((batch.place_of(a)[:common] == batch.place_of(b)[:common]).sum())
        assert same > common - min_shared


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 20))
def test_descendants_of_a_segment_follow_it(seed, count):
    batch = flatten(sort_rows(random_rows(seed, count)), min_shared=1)
    segments = batch.layout.segments
    assert segments[0].start == 0 and segments[-1].end == batch.layout.tokens == len(batch.ids)
    for index, segment in enumerate(segments):
        below = [i for i, s in enumerate(segments) if _descends(segments, i, index)]
        inside = [
            i
            for i, s in enumerate(segments)
            if i > index and segment.end <= s.start < s.end <= segment.subtree_end
        ]
        assert set(inside) <= set(below)
        assert all(segment.end <= segments[i].start for i in below)


def _descends(segments, child, ancestor):
    parent = segments[child].parent
    while parent >= 0:
        if parent == ancestor:
            return True
        parent = segments[parent].parent
    return False


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 30), budget=st.integers(1, 300))
def test_a_budget_cuts_between_rows(seed, count, budget):
    rows = random_rows(seed, count)
    parts = split_by_budget(rows, budget)
    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in rows)
    for part in parts:
        # Pieces shorter than MIN_SHARED beyond a longer common one are not shared after all.
        assert len(part) == 1 or len(flatten(part).ids) <= budget + MIN_SHARED * len(part)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    size=st.integers(1, 40),
    epochs=st.floats(0.1, 4),
    seed=st.integers(0, 100),
)
def test_a_plan_uses_every_row_once_an_epoch(rows, size, epochs, seed):
    plan = BatchPlan(rows, size, epochs, seed)
    order = plan.order(1)
    used = [i for s in range(plan.steps_per_epoch) for i in plan.step_rows(s, order)]
    assert sorted(used) == list(range(rows))
    assert plan.order(1).tolist() == order.tolist()
    assert abs(plan.total_steps - epochs * plan.steps_per_epoch) <= 1
    if rows > 20:
        assert plan.order(2).tolist() != order.tolist()
        assert BatchPlan(rows, size, epochs, seed + 1).order(1).tolist() != order.tolist()


def test_the_plan_s_digest_sees_tokens_weights_and_borders():
    def rows(ids, weights=(0.0, 1.0), cut=1):
        row = EncodedRow("a", np.asarray(ids, np.int32), np.asarray(weights, np.float32))
        parts = [EncodedRow("a", row.ids[:cut], row.weights[:cut])]
        return EncodedRows([*parts, EncodedRow("b", row.ids[cut:], row.weights[cut:])])

    plan = BatchPlan(2, 1, 1.0, 0)
    digests = {
        plan.digest(rows([1, 2])),
        plan.digest(rows([1, 3])),
        plan.digest(rows([1, 2], (0.0, 0.5))),
        plan.digest(rows([1, 2], cut=2)),
        BatchPlan(2, 1, 1.0, 1).digest(rows([1, 2])),
    }
    assert len(digests) == 5


def test_encoded_rows_are_a_sequence():
    rows = random_rows(1, 5)
    packed = EncodedRows(rows)
    assert len(packed) == 5 and packed.tokens == sum(len(r.ids) for r in rows)
    assert [r.id for r in packed] == [r.id for r in rows]
    assert packed[-1].ids.tolist() == rows[-1].ids.tolist()
    assert [r.id for r in packed[1:3]] == ["row 1", "row 2"]
    with pytest.raises(IndexError):
        packed[5]


def test_many_rows_move_to_the_disk():
    rows = EncodedRows()
    ids = np.arange(100_000, dtype=np.int32)
    weights = np.linspace(0, 1, 100_000, dtype=np.float32)
    for number in range(120):  # 48 MB of ids: more than is kept in memory
        rows.append(EncodedRow(f"row {number}", ids + number, weights))
    assert rows._ids._file._rolled
    assert (rows[77].ids == ids + 77).all() and (rows[77].weights == weights).all()
    assert rows[-1].id == "row 119" and rows.tokens == 12_000_000
    rows.append(EncodedRow("last", ids, weights))  # still open after reading
    assert (rows[120].ids == ids).all() and (rows[3].ids == ids + 3).all()
