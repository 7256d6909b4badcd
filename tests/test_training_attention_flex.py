"""FlexAttention over a flat batch computes what the blocks compute, and is never relied upon.

On a CPU torch has its reference implementation, which it refuses gradients for; the fixture
``reference`` lifts that. The reference looks at single pairs of tokens, a GPU's kernel at tiles
first, so the tiles are held against torch's own.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as torch_flex

from training_support import (
    gradients,
    random_rows,
    save_small_model,
    setup_of,
    small_model,
    word_examples,
)
from tunewise.study.schema import FineTune
from tunewise.training import attention, attention_flex, kernels
from tunewise.training.batches import flatten, sort_rows
from tunewise.training.job import TrainingJob
from tunewise.training.loop import train

torch.set_num_threads(1)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**31)
WINDOWS = st.sampled_from([None, 1, 5, 23, 150, 1000])
CPU = torch.device("cpu")
LONG = kernels.WORTH_COMPILING

pytestmark = [  # the reference is slow, and looks at its inputs as torch.compile does
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)


@FEW
@given(
    seed=SEEDS,
    count=st.integers(1, 7),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 3), (4, 4)]),
    window=WINDOWS,
    softcap=st.sampled_from([None, 1.5]),
    sinks=st.booleans(),
    min_shared=st.sampled_from([1, 3, 16]),
    only_kept=st.booleans(),
)
def test_flex_equals_the_blocks_in_float64(
    reference, seed, count, heads, window, softcap, sinks, min_shared, only_kept
):
    batch = flatten(sort_rows(random_rows(seed, count)), min_shared=min_shared)
    tokens = len(batch.ids)
    kept = np.unique(batch.keep)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    q = normal(1, heads[0], len(kept) if only_kept else tokens, 8).requires_grad_()
    k, v = (normal(1, heads[1], tokens, 8).requires_grad_() for _ in range(2))
    sink = normal(heads[0]).requires_grad_() if sinks else None
    inputs = [t for t in (q, k, v, sink) if t is not None]
    direction = normal(1, q.shape[2], heads[0], 8)

    def found(flex):
        layout = batch.layout.keeping(kept, flex=flex)
        out, _ = attention.flat_attention(
            None, q, k, v, None, 0.3, 0.0, window, softcap, sink, layout, only_kept
        )
        assert bool(layout.masks) == flex
        return [out, *torch.autograd.grad((out * direction).sum(), inputs)]

    for mine, theirs in zip(found(flex=True), found(flex=False), strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max().item() < 1e-9


@FEW
@given(
    seed=SEEDS,
    count=st.integers(1, 12),
    longest=st.sampled_from([24, 150, 400]),
    window=WINDOWS,
    share=st.sampled_from([None, 0.1, 0.7]),
)
def test_tiles_hold_what_torch_finds_pair_by_pair(seed, count, longest, window, share):
    batch = flatten(sort_rows(random_rows(seed, count, longest=longest)))
    tokens = batch.layout.tokens
    draw = np.random.default_rng(seed).random(tokens)
    kept = np.flatnonzero(draw <= max(share or 1.0, draw.min()))
    mask = attention_flex.block_mask(
        batch.layout.keeping(kept), window, CPU, only_kept=share is not None
    )
    queries = tokens if share is None else len(kept)
    whole = torch_flex.create_block_mask(mask.mask_mod, None, None, queries, tokens, "cpu")
    assert mask.shape == whole.shape
    assert torch.equal(_dense(mask, "full_kv"), _dense(whole, "full_kv"))
    assert torch.equal(_dense(mask, "full_q"), _dense(whole, "full_q"))
    some, least = mask.to_dense().bool(), whole.to_dense().bool()
    assert bool((some | ~least).all())
    if share is None and window is None:
        assert torch.equal(some, least)


def _dense(mask, which):
    """(1, 1, rows, columns): which tiles are listed; keys by query, or queries by key."""
    counts, indices = (getattr(mask, f"{which}_{part}") for part in ("num_blocks", "indices"))
    listed = torch.arange(indices.shape[-1]) < counts[..., None]
    return torch.zeros(indices.shape, dtype=torch.bool).scatter(-1, indices.long(), listed)


@pytest.mark.parametrize("architecture", ["gemma2", "gpt_oss"])
def test_whole_models_give_equal_losses_and_gradients(reference, architecture):
    model = small_model(architecture)
    setup = setup_of(model, flat=True)
    batch = flatten(sort_rows(random_rows(5, 6)))

    def found():
        loss, *_ = setup.losses(batch)
        loss.backward()
        return loss.item(), gradients(model)

    loss, wanted = found()
    setup.flex = True
    got, grads = found()
    assert got == pytest.approx(loss, rel=1e-5)
    scale = max(float(g.abs().max()) for g in wanted.values())
    assert all((grads[n] - g).abs().max() <= 1e-5 * scale for n, g in wanted.items())


def test_the_choice_where_there_is_no_gpu():
    setup = setup_of(small_model("llama"), flat=True)
    assert "this is a cpu" in kernels.choose(setup, random_rows(1, 4), LONG)
    assert setup.kernel == "blocks"
    plain = setup_of(small_model("llama"))
    assert "the model's own" in kernels.choose(plain, random_rows(1, 4), LONG)
    assert plain.kernel == "eager"


def test_small_heads_are_refused_beforehand():
    cuda = torch.device("cuda")
    assert "16 numbers or more, not 8" in (kernels.why_not_flex(cuda, 8) or "")
    assert kernels.why_not_flex(cuda, 16) is None


def test_a_kernel_that_agrees_is_taken(reference, monkeypatch):
    monkeypatch.setattr(kernels, "why_not_flex", lambda *_: None)
    setup = setup_of(small_model("gpt_oss"), flat=True)
    assert kernels.choose(setup, random_rows(1, 4), LONG) == ""
    assert setup.kernel == "flex"


def test_a_short_run_does_not_wait_for_the_compiler(reference, monkeypatch):
    monkeypatch.setattr(kernels, "why_not_flex", lambda *_: None)
    setup = setup_of(small_model("llama"), flat=True)
    layers = len(setup.decoder.layers)
    short = kernels.choose(setup, random_rows(1, 4), LONG // layers - 1)
    assert "too short" in short and setup.kernel == "blocks"
    assert kernels.choose(setup, random_rows(1, 4), LONG // layers) == ""


def test_rounding_of_many_layers_is_no_disagreement(reference, monkeypatch):
    """Deep models in bfloat16 differ more between two right kernels than attention ever does."""
    monkeypatch.setattr(kernels, "why_not_flex", lambda *_: None)
    deep = small_model("llama", num_hidden_layers=24).to(torch.bfloat16)
    setup = setup_of(deep, flat=True)
    assert kernels.choose(setup, random_rows(1, 4), LONG) == ""


def test_a_kernel_that_fails_is_left_with_its_reason(monkeypatch):
    # Without ``reference``: torch itself refuses, as it does on a GPU where a kernel does not fit.
    monkeypatch.setattr(kernels, "why_not_flex", lambda *_: None)
    setup = setup_of(small_model("llama"), flat=True)
    reason = kernels.choose(setup, random_rows(1, 4), LONG)
    assert "failed on this machine: NotImplementedError" in reason
    assert setup.kernel == "blocks" and setup.outer.training
    assert not gradients(setup.causal)["lm_head.weight"].any()
    assert setup.losses(flatten(sort_rows(random_rows(1, 4))))[0].isfinite()


def test_a_run_goes_on_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "why_not_flex", lambda *_: None)
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    job = TrainingJob(
        model=str(save_small_model(tmp_path / "model")),
        examples=word_examples(8),
        dev=(),
        fine_tune=FineTune(lora={"rank": 2}, batch_size=4),
        learning_rate=1e-3,
        epochs=1,
        seed=0,
        output=tmp_path / "run",
        threads=1,
    )
    events = []
    result = train(job, events.append)
    (path,) = [e for e in events if e["event"] == "path"]
    assert (path["path"], path["kernel"]) == ("flat", "blocks")
    assert "NotImplementedError" in path["kernel_reason"]
    assert result.steps == 2 and result.config["kernel"] == "blocks"


def test_a_kernel_that_differs_is_left_with_its_reason(reference, monkeypatch):
    monkeypatch.setattr(kernels, "why_not_flex", lambda *_: None)
    setup = setup_of(small_model("mistral"), flat=True)
    tiles = attention_flex.block_mask
    monkeypatch.setattr(
        attention_flex, "block_mask", lambda layout, window, *a, **o: tiles(layout, None, *a, **o)
    )
    reason = kernels.choose(setup, random_rows(1, 4, longest=60), LONG)
    assert "differ by" in reason and setup.kernel == "blocks"
