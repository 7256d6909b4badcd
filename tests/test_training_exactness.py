"""The fast path computes what one row at a time computes: losses and every gradient."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training_support import (
    ARCHITECTURES,
    batch_loss,
    gradients,
    plain_loss,
    qwen3_next,
    random_rows,
    setup_of,
    small_model,
)
from tunewise.models.quiet import quiet
from tunewise.training import attention, fast_path, fused_layers, fused_ops, lora_linear, loss
from tunewise.training.batches import flatten, sort_rows, split_by_budget

torch.set_num_threads(1)
EXPERTS = {"gpt_oss", "mixtral", "qwen3_moe"}
FEW = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@FEW
@given(
    seed=SEEDS,
    count=st.integers(1, 6),
    min_shared=st.sampled_from([1, 4, 16]),
    fused=st.booleans(),
)
def test_stock_models_give_equal_losses_and_gradients(architecture, seed, count, min_shared, fused):
    model = small_model(architecture, seed % 7)
    rows = random_rows(seed, count)
    compare_with_one_row_at_a_time(model, rows, min_shared, fused)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@FEW
@given(seed=SEEDS, count=st.integers(1, 6), fused=st.booleans(), dora=st.booleans())
def test_adapters_of_stock_models_get_equal_gradients(architecture, seed, count, fused, dora):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules="all-linear",
        use_dora=dora and architecture not in EXPERTS,  # peft has no DoRA for experts
        init_lora_weights=False,
    )
    with quiet():
        model = peft.get_peft_model(small_model(architecture, seed % 7), config)
    fuse = functools.partial(lora_linear.fuse, model)
    compare_with_one_row_at_a_time(model, random_rows(seed, count), 4, fused, fuse)


def compare_with_one_row_at_a_time(model, rows, min_shared, fused, change=lambda: None):
    """Losses and gradients of one flat batch, after ``change``, and of each row alone before."""
    (model.get_base_model() if hasattr(model, "peft_config") else model).set_attn_implementation(
        "eager"
    )
    expected = sum(plain_loss(model, row) for row in rows)
    expected.backward()
    wanted = gradients(model)

    change()
    setup = setup_of(model, flat=True, fused=fused)
    got, *_ = setup.losses(flatten(sort_rows(rows), min_shared=min_shared))
    got.backward()
    found = gradients(model)

    assert abs(got.item() - expected.item()) <= 1e-5 * abs(expected.item())
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        size = max(float(gradient.abs().max()), 1e-2 * scale)
        assert (found[name] - gradient).abs().max().item() <= 1e-5 * size, name


@FEW
@given(seed=SEEDS, count=st.integers(2, 9), budget=st.integers(10, 120))
def test_accumulation_over_batches_weighs_by_trained_tokens(seed, count, budget):
    model = small_model("llama")
    rows = random_rows(seed, count)
    whole = setup_of(model, flat=True)
    expected, *_ = whole.losses(flatten(sort_rows(rows)))
    expected.backward()
    wanted = gradients(model)
    batches = [flatten(part) for part in split_by_budget(rows, budget)]
    got = batch_loss(whole, batches)
    got.backward()
    found = gradients(model)
    assert sum(b.weight for b in batches) == pytest.approx(
        sum(float(r.weights.sum()) for r in rows)
    )
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max().item() <= 1e-5 * scale, name


@MANY
@given(
    seed=SEEDS,
    count=st.integers(1, 7),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 3), (4, 4)]),
    window=st.sampled_from([None, None, 1, 5, 23, 1000]),
    softcap=st.sampled_from([None, None, 1.5]),
    sinks=st.booleans(),
    min_shared=st.sampled_from([1, 3, 16]),
    share_kept=st.sampled_from([None, 0.02, 0.3, 1.0]),
)
def test_attention_in_float64(seed, count, heads, window, softcap, sinks, min_shared, share_kept):
    query_heads, kv_heads = heads
    batch = flatten(sort_rows(random_rows(seed, count)), min_shared=min_shared)
    tokens = len(batch.ids)
    generator = torch.Generator().manual_seed(seed % 2**31)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    q = normal(1, query_heads, tokens, 8).requires_grad_()
    k = normal(1, kv_heads, tokens, 8).requires_grad_()
    v = normal(1, kv_heads, tokens, 8).requires_grad_()
    sink = normal(query_heads).requires_grad_() if sinks else None
    inputs = [t for t in (q, k, v, sink) if t is not None]

    kept = np.arange(tokens)
    if share_kept is not None:
        kept = np.flatnonzero(np.random.default_rng(seed).random(tokens) < share_kept)
    given = q if share_kept is None else q[:, :, kept]
    mixed, _ = attention.flat_attention(
        None,
        given,
        k,
        v,
        None,
        0.3,
        sliding_window=window,
        softcap=softcap,
        s_aux=sink,
        flat_layout=batch.layout.keeping(kept),
        only_kept=share_kept is not None,
    )
    assert mixed.shape == (1, len(kept), query_heads, 8)
    out = torch.zeros(1, tokens, query_heads, 8, dtype=torch.float64)
    out[:, kept] = mixed
    is_kept = torch.from_numpy(np.isin(np.arange(tokens), kept))[:, None, None]
    value = torch.zeros((), dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(len(batch.rows)):
        at = torch.from_numpy(batch.place_of(row))
        direction = normal(len(at), query_heads, 8)
        alone = _dense(q[0][:, at], k[0][:, at], v[0][:, at], 0.3, window, softcap, sink)
        alone = alone * is_kept[at]
        assert (out[0][at] - alone).abs().max().item() < 1e-9
        value = value + (out[0][at] * direction).sum()
        expected = expected + (alone * direction).sum()
    got = torch.autograd.grad(value, inputs)
    wanted = torch.autograd.grad(expected, inputs)
    for mine, theirs in zip(got, wanted, strict=True):
        assert (mine - theirs).abs().max().item() < 1e-9


@FEW
@given(seed=SEEDS, rank=st.integers(1, 5), bias=st.booleans(), rslora=st.booleans())
def test_a_fused_adapter_equals_peft_s_in_float64(seed, rank, bias, rslora):
    peft = pytest.importorskip("peft")
    torch.manual_seed(seed % 2**31)
    base = torch.nn.Sequential(torch.nn.Linear(7, 9, bias=bias), torch.nn.Linear(9, 3, bias=bias))
    config = peft.LoraConfig(
        r=rank, lora_alpha=3, target_modules=["0", "1"], use_rslora=rslora, init_lora_weights=False
    )
    model = peft.get_peft_model(base.double(), config).double()
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, *(p for p in model.parameters() if p.requires_grad)]
    direction = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = model(x)
    assert lora_linear.fuse(model) == 2
    same_with_gradients(model(x), expected, inputs, direction)


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}]
)
def test_other_adapters_are_left_to_peft(options):
    peft = pytest.importorskip("peft")
    base = torch.nn.Sequential(torch.nn.Linear(7, 9))
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], **options))
    assert lora_linear.fuse(model) == 0


@MANY
@given(seed=SEEDS, offset=st.sampled_from([0.0, 1.0]), learnt=st.booleans())
def test_rms_norm_in_float64(seed, offset, learnt):
    x, direction = normal(seed, (2, 3, 5, 7), (2, 3, 5, 7))
    (weight,) = normal(seed + 1, (7,))
    inputs = [x.requires_grad_(), *([weight.requires_grad_()] if learnt else [])]
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * (weight + offset)
    got = fused_ops.RmsNorm.apply(x, weight + offset, 1e-3)
    same_with_gradients(got, expected, inputs, direction)


@MANY
@given(seed=SEEDS)
def test_rotary_positions_in_float64(seed):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x, direction = normal(seed, (1, 5, 3, 8), (1, 5, 3, 8))
    cos, sin = normal(seed + 1, (1, 5, 8), (1, 5, 8))
    x.requires_grad_()
    turned, _ = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cos, sin)
    got = fused_ops.Rotary.apply(x, cos, sin)
    same_with_gradients(got, turned.transpose(1, 2), [x], direction)


@MANY
@given(
    seed=SEEDS,
    activation=st.sampled_from(["silu", "gelu_tanh"]),
    bias=st.booleans(),
    by_x=st.booleans(),
)
def test_a_gated_mlp_in_float64(seed, activation, bias, by_x):
    act = {
        "silu": torch.nn.functional.silu,
        "gelu_tanh": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    }[activation]
    layers = []
    for number, (wide, narrow, rank) in enumerate([(6, 9, 2), (6, 9, 3), (9, 6, 1)]):
        weight, b0, a, b = normal(
            seed + number, (narrow, wide), (narrow,), (rank, wide), (narrow, rank)
        )
        a.requires_grad_(), b.requires_grad_()
        layers.append(lora_linear.Lora(weight, b0 if bias else None, a, b, 0.5 + number))
    x, direction = normal(seed + 9, (1, 5, 6), (1, 5, 6))
    inputs = [*([x.requires_grad_()] if by_x else []), *(t for v in layers for t in (v.a, v.b))]

    def apply(layer, value):
        low = value @ layer.a.T @ layer.b.T * layer.scaling
        return torch.nn.functional.linear(value, layer.weight, layer.bias) + low

    gate, up, down = layers
    expected = apply(down, act(apply(gate, x)) * apply(up, x))
    scalings = tuple(layer.scaling for layer in layers)
    got = fused_ops.GatedMlp.apply(x, activation, scalings, *lora_linear.flattened(layers))
    same_with_gradients(got, expected, inputs, direction)


def normal(seed, *shapes):
    """Random float64 tensors."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]


def same_with_gradients(got, expected, inputs, direction):
    """Equal to 1e-9, and so are their gradients along a direction."""
    assert (got - expected).abs().max().item() < 1e-9
    found = torch.autograd.grad((got * direction).sum(), inputs)
    wanted = torch.autograd.grad((expected * direction).sum(), inputs)
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine - theirs).abs().max().item() < 1e-9


def _dense(q, k, v, scale, window, softcap, sink):
    """Textbook attention of one row: (heads, n, d) -> (n, heads, d)."""
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    logits = q @ k.mT * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    n = q.shape[1]
    distance = torch.arange(n)[:, None] - torch.arange(n)[None]
    seen = (distance >= 0) & (distance < (n + 1 if window is None else window))
    logits = logits.masked_fill(~seen, float("-inf"))
    if sink is not None:
        logits = torch.cat([logits, sink[:, None, None].expand(-1, n, 1)], -1)
    weights = logits.softmax(-1)[..., :n]
    return (weights @ v).transpose(0, 1)


@MANY
@given(
    seed=SEEDS,
    predictions=st.integers(1, 40),
    vocabulary=st.integers(2, 60),
    softcap=st.sampled_from([None, 2.0]),
    bias=st.booleans(),
    chunk=st.sampled_from([1, 100, 10**9]),
)
def test_loss_in_float64(seed, predictions, vocabulary, softcap, bias, chunk):
    generator = torch.Generator().manual_seed(seed % 2**31)

    def normal(*shape):
        value = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return value.requires_grad_()

    hidden = normal(predictions, 6)
    head = torch.nn.Linear(6, vocabulary, bias=bias, dtype=torch.float64)
    targets = torch.randint(0, vocabulary, (predictions,), generator=generator)
    weights = torch.rand(predictions, generator=generator)
    before = loss.CHUNK_LOGITS
    loss.CHUNK_LOGITS = chunk
    try:
        got, each, right = loss.linear_cross_entropy(hidden, head, targets, weights, softcap)
    finally:
        loss.CHUNK_LOGITS = before
    logits = head(hidden)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = (losses * weights.double()).sum()
    assert (each - losses).abs().max().item() < 1e-9
    assert right.tolist() == (logits.argmax(-1) == targets).tolist()
    inputs = [hidden, *head.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(3 * got, inputs), torch.autograd.grad(3 * expected, inputs), strict=True
    ):
        assert (mine - theirs).abs().max().item() < 1e-9


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_listed_architecture_is_taken(architecture):
    setup = setup_of(small_model(architecture))
    assert fast_path.enable(setup, random_rows(3, 8)) is None
    assert setup.flat and setup.fused
    assert setup.causal.config._attn_implementation == attention.NAME


def wrong(patch):
    patch.setitem(fused_layers._NORMS, "LlamaRMSNorm", 0.5)


def broken(patch):
    patch.setattr(fused_layers, "_window", lambda module: module.renamed)


@pytest.mark.parametrize("spoil", [wrong, broken])
def test_layers_whose_fused_form_fails_compute_by_themselves(spoil, monkeypatch):
    spoil(monkeypatch)
    model, rows = small_model("llama"), random_rows(3, 8)
    setup = setup_of(model)
    assert fast_path.enable(setup, rows) is None
    assert setup.flat and not setup.fused
    expected = sum(plain_loss(small_model("llama"), row).item() for row in rows)
    got, *_ = setup.losses(flatten(sort_rows(rows)))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_linear_attention_is_refused_by_name_and_would_be_by_the_probe():
    setup = setup_of(qwen3_next())
    reason = fast_path.enable(setup, random_rows(3, 8))
    assert reason is not None and "Qwen3NextDecoderLayer" in reason
    assert not setup.flat
    fast_path.turn_on(setup, fused=False)
    difference, scale = fast_path.probe(setup, random_rows(3, 8))
    assert difference > 0.02 * scale


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_dropout": 0.1}, "dropout"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rotary"),
    ],
)
def test_options_that_mix_rows_are_refused(changes, words):
    reason = fast_path.why_not(small_model("llama", **changes))
    assert reason is not None and words in reason


def test_attention_without_a_layout_says_so():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="flat_layout"):
        attention.flat_attention(None, q, q, q, None)
