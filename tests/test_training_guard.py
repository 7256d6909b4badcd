"""What stops a run, and what keeps it within memory: spikes, recomputing, smaller passes, QLoRA."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch

from training_support import (
    ARCHITECTURES,
    gradients,
    random_rows,
    save_small_model,
    setup_of,
    small_model,
    word_examples,
)
from tunewise.errors import TrainingError
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.study.schema import FineTune
from tunewise.training import memory
from tunewise.training.batches import flatten, sort_rows
from tunewise.training.guard import FEWEST, rise
from tunewise.training.job import LossSpikeError, TrainingJob, TrainingStopped
from tunewise.training.loop import train
from tunewise.training.setup import load_base
from tunewise.training.sweep import default_learning_rates

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(model, tmp_path):
    return TrainingJob(
        model=str(model),
        examples=word_examples(24),
        dev=[],
        fine_tune=FineTune(batch_size=8, precision="float32", lora={"rank": 4}),
        learning_rate=1e-2,
        epochs=1,
        seed=1,
        output=tmp_path / "run",
        threads=1,
    )


def test_a_rise_is_measured_against_the_recent_past():
    falling = [4 - 0.1 * i for i in range(30)]
    assert rise(falling, falling[-1]) < 1
    assert rise(falling, 12.0) > 5
    assert rise([1.0] * FEWEST, 1.5) == pytest.approx(10)  # the floor: 5 % of the median
    assert rise([1e-4] * FEWEST, 0.5) == pytest.approx(10, rel=0.01)  # and 0.05 nats
    assert rise([1.0] * (FEWEST - 1), 100.0) == 0, "too few steps to tell"
    assert rise([9.0] * 100 + [1.0] * 50, 9.0) > 20, "what lies further back does not count"


def test_a_spike_stops_with_its_rows_and_can_be_let_through(job):
    # The model learns one answer by heart; then, in its last step, a row says something else.
    same = [replace(e, messages=word_examples(1)[0].messages) for e in word_examples(30)]
    odd = {"role": "assistant", "content": "zzz ~~~ 9817 %%% ###"}
    rows = [*same[:-1], replace(same[-1], id="odd", messages=(*same[-1].prompt, odd))]
    last = _order_with_last(len(rows), seed=job.seed)
    rows[last], rows[-1] = rows[-1], rows[last]
    options = {"batch_size": 1, "lora": {"rank": 4}, "warmup_ratio": 0.0}
    job = replace(job, examples=rows, fine_tune=FineTune(**options, loss_spike=10.0))
    with pytest.raises(LossSpikeError, match=r"jumped to .* at step 30.*'odd' \(") as caught:
        train(job)
    assert "loss_spike: null" in str(caught.value)
    calm = replace(job, fine_tune=FineTune(**options, loss_spike=None))
    assert calm.key == job.key and train(calm).steps == 30


def _order_with_last(rows: int, seed: int) -> int:
    """The row that the plan draws last in its first epoch."""
    from tunewise.training.batches import BatchPlan

    return int(BatchPlan(rows, 1, 1.0, seed).order(0)[-1])


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_recomputed_activations_give_the_same_gradients(architecture):
    network = small_model(architecture)
    setup = setup_of(network, flat=True)
    batch = flatten(sort_rows(random_rows(11, 5)))

    def found():
        summed, *_ = setup.losses(batch)
        summed.backward()
        return float(summed.detach()), gradients(network)

    plain = found()
    memory.recompute_activations(network)
    again = found()
    assert again[0] == plain[0]
    assert all(torch.equal(again[1][n], g) for n, g in plain[1].items())


def test_recomputing_keeps_fewer_activations():
    network = small_model("llama", num_hidden_layers=6)
    setup = setup_of(network, flat=True)
    batch = flatten(sort_rows(random_rows(11, 12, longest=60)))

    def kept() -> int:
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            setup.losses(batch)
        return total

    plain = kept()
    memory.recompute_activations(network)
    assert kept() < plain / 3


def test_a_run_that_would_not_fit_recomputes_and_cuts_its_steps(job, tmp_path, monkeypatch):
    whole = train(job)
    network = small_model("llama")
    # Room for 30 tokens, less than any row; with recomputing, for more than twice as many.
    per_token = memory.bytes_per_token(network, recompute=False)
    trainable = 4 * 928  # more than enough for the adapter
    monkeypatch.setattr(
        memory, "_free_memory", lambda _: int((30 * per_token + 12 * trainable) / 0.4)
    )
    monkeypatch.setattr(memory, "FEWEST_TOKENS", 16)
    events = []
    tight = train(replace(job, output=tmp_path / "tight"), events.append)
    (said,) = [e for e in events if e["event"] == "memory"]
    assert said["recompute"] and said["passes_per_step"] > 1 and said["batch_size"] == 8
    assert tight.config["recompute"] and tight.steps == whole.steps
    assert tight.train_loss == pytest.approx(whole.train_loss, rel=1e-4)
    never = job.fine_tune.model_copy(update={"recompute": False})
    refused = train(replace(job, fine_tune=never, output=tmp_path / "never"))
    assert not refused.config["recompute"]


def test_qlora_without_its_package_says_what_is_missing(job, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    with pytest.raises(TrainingError, match="bitsandbytes, which is not installed") as caught:
        train(replace(job, fine_tune=FineTune(adapter="qlora")))
    assert "pip install bitsandbytes" in str(caught.value) and "adapter: lora" in str(caught.value)


def test_qlora_learns_over_a_base_in_four_bits(job, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="4 bits need bitsandbytes")
    fine_tune = FineTune(adapter="qlora", batch_size=8, lora={"rank": 8})
    loaded, _ = load_base(job.model, fine_tune)
    held = [m for m in loaded.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(held) == 14 and {m.weight.dtype for m in held} == {torch.uint8}
    tuned = replace(job, fine_tune=fine_tune, epochs=2, output=tmp_path / "whole")
    whole = train(tuned)
    assert whole.path == "flat" and whole.train_loss[-1] < 0.8 * whole.train_loss[0]
    # Killed or stopped, it goes on to the same bits, and the adapter fits the base as it was.
    parts, events = replace(tuned, output=tmp_path / "parts"), []
    with pytest.raises(TrainingStopped):
        train(parts, events.append, stop=lambda: any(e.get("step") == 2 for e in events))
    assert train(parts).train_loss == whole.train_loss
    file = "adapter_model.safetensors"
    assert (parts.output / "adapter" / file).read_bytes() == (whole.adapter / file).read_bytes()
    assert load_local(parse_model(job.model), adapter=whole.adapter).adapters


def test_preferences_are_learnt_more_slowly():
    plain = default_learning_rates(7_000_000_000, "qlora")
    assert default_learning_rates(7_000_000_000, "lora", "dpo") == pytest.approx(
        tuple(v / 10 for v in plain)
    )
