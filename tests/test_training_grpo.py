"""Rollouts, rewards and the clipped loss: grpo learns a simple rule, and can be repeated."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import numpy as np
import torch

from test_training_methods import context_of, gradients, plain_log_probs, random_items
from training_support import save_small_model, small_model, word_examples
from tunewise.errors import StudyError, TrainingError, TunewiseError
from tunewise.study.fine_tune import FineTune, Grpo
from tunewise.study.trusted_code import find_code
from tunewise.training.items import Item
from tunewise.training.job import TrainingJob, TrainingStopped
from tunewise.training.loop import train
from tunewise.training.methods.grpo import GroupRelativePolicy, advantages, token_losses

torch.set_num_threads(1)
LETTER = {
    "type": "string_check",
    "name": "letter",
    "operation": "like",
    "input": "{{sample.output_text}}",
    "reference": "e",
}
EXAMPLES = word_examples(12)


def share_of_e(example, completion, times: float = 1.0) -> float:
    """A reward of a user's own: found by its module's name, so it stands in a module."""
    assert example.messages
    return times * completion.text.count("e") / max(1, len(completion.text))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(model, tmp_path):
    return TrainingJob(
        model=str(model),
        examples=EXAMPLES[:8],
        dev=[],
        fine_tune=fine_tune(),
        learning_rate=1e-2,
        epochs=4,
        seed=1,
        output=tmp_path / "run",
        threads=1,
    )


def fine_tune(**changes) -> FineTune:
    options = {
        "method": "grpo",
        "batch_size": 4,
        "lora": {"rank": 8},
        "grader": LETTER,
        "grpo": {"max_tokens": 5, "samples": 8},
    }
    return FineTune(**{**options, **changes})


def test_it_raises_the_reward_of_a_simple_rule(job):
    events = []
    quick = fine_tune(grpo={"max_tokens": 4, "samples": 12})
    job = replace(job, dev=EXAMPLES[8:], fine_tune=quick, learning_rate=3e-2, epochs=8)
    result = train(replace(job, keep="last"), events.append)
    steps = [e for e in events if e["event"] == "step"]
    rewards = [e["train_reward_mean"] for e in steps]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.2
    names = ("reward_std", "clip_fraction", "completion_length", "groups_skipped")
    assert {f"train_{n}" for n in names} <= set(steps[0])
    assert result.metrics["groups"] == 64
    assert 0 <= result.metrics["groups_skipped"] < 64
    looks = [e for e in events if e["event"] == "eval"]
    assert all(e["dev_loss"] == pytest.approx(1 - e["valid_reward_mean"]) for e in looks)


def test_a_seed_gives_one_run_and_an_interrupted_run_goes_on(job, tmp_path):
    job = replace(job, epochs=2, fine_tune=fine_tune(lora={"rank": 4, "dropout": 0.1}))
    whole = train(job)
    events: list = []
    parts = replace(job, output=tmp_path / "parts")
    with pytest.raises(TrainingStopped):
        train(parts, events.append, stop=lambda: any(e.get("step") == 2 for e in events))
    result = train(parts)
    name = "adapter/adapter_model.safetensors"
    assert (job.output / name).read_bytes() == (parts.output / name).read_bytes()
    assert result.train_loss == whole.train_loss and result.metrics == whole.metrics
    other = train(replace(job, seed=2, output=tmp_path / "other"))
    assert other.train_loss != whole.train_loss


def test_groups_that_agree_are_skipped_and_counted(job):
    never = {**LETTER, "operation": "eq", "reference": "no answer is like this"}
    result = train(replace(job, fine_tune=fine_tune(grader=never), epochs=1))
    assert result.metrics["groups_skipped"] == result.metrics["groups"] == 8
    assert set(result.train_loss) == {0.0} and result.trained_tokens == 0


def test_a_python_function_and_a_metric_can_reward(job):
    assert __name__ in sys.modules
    find_code(f"{__name__}:share_of_e").trust()
    reward = {"name": f"{__name__}:share_of_e", "options": {"times": 2.0}}
    grpo = {"max_tokens": 4, "samples": 4, "updates": 2, "beta": 0.05}
    options = {"grader": None, "reward": reward, "grpo": grpo}
    result = train(replace(job, fine_tune=fine_tune(**options), epochs=1))
    assert {"train_kl", "train_clip_fraction"} <= set(result.metrics)
    assert result.metrics["train_kl"] >= 0
    metric = fine_tune(grader=None, reward="token_f1", grpo=grpo)
    assert train(replace(job, fine_tune=metric, epochs=1, output=job.output / "m")).steps == 2


def test_what_cannot_reward_is_said_before_anything_is_trained(job):
    cases = [
        ({"grader": None}, TrainingError, "needs to know what to reward"),
        ({"grader": None, "reward": "nothing:here"}, StudyError, "cannot be found"),
        ({"grader": None, "reward": "exact_matc"}, StudyError, "no metric called"),
        ({"grader": {"type": "magic"}}, TunewiseError, "fine_tune.grader"),
    ]
    for options, kind, text in cases:
        with pytest.raises(kind, match=text):
            train(replace(job, fine_tune=fine_tune(**options)))
    find_code("operator:add").trust()
    failing = fine_tune(grader=None, reward={"name": "operator:add"})
    with pytest.raises(TrainingError, match=r"'operator:add' failed on row 'row-\d'"):
        train(replace(job, fine_tune=failing))
    whole = fine_tune(adapter="full", grpo={"beta": 0.1})
    with pytest.raises(TrainingError, match="base model beside"):
        train(replace(job, fine_tune=whole))
    with pytest.raises(ValueError, match="not both"):
        fine_tune(reward="exact_match")


def test_advantages():
    rewards = np.asarray([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    scaled = advantages(rewards, Grpo())
    assert scaled[1].tolist() == [0, 0, 0, 0]
    assert scaled[0] == pytest.approx(
        0.5 / (np.std(rewards[0], ddof=1) + 1e-4) * np.array([1, -1, -1, 1])
    )
    assert advantages(rewards, Grpo(scale_rewards=False))[0].tolist() == [0.5, -0.5, -0.5, 0.5]


def test_the_clip_holds_what_has_moved_far_enough():
    old = torch.zeros(4)
    logps = torch.tensor([1.0, 1.0, -1.0, -1.0])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses, held = token_losses(logps, old, sign, Grpo(epsilon=0.2, epsilon_high=0.5))
    assert held.tolist() == [True, False, False, True]
    assert losses.tolist() == pytest.approx([-1.5, np.e, -1 / np.e, 0.8])


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_losses_and_gradients_are_those_of_one_answer_at_a_time(loss_type):
    options = {"loss_type": loss_type, "beta": 0.2, "updates": 2, "max_tokens": 30}
    whole = FineTune(method="grpo", reward="exact_match", grpo={**options, "temperature": 0.7})
    network = small_model("llama")
    network.set_attn_implementation("eager")
    items, r = [], np.random.default_rng(4)
    for item in random_items(7, 3):
        for row in item.rows:
            old, ref = r.normal(-4, 0.3, (2, row.trained)).astype(np.float32)
            advantage = np.float32(r.normal())
            values = {"advantage": np.asarray(advantage), "old": old, "reference": ref}
            items.append(Item(len(items), (row,), values))
    terms, lengths = [], []
    for item in items:
        row = item.rows[0]
        logp = plain_log_probs(network, row, 0.7)
        ratio = torch.exp(logp - torch.from_numpy(item.values["old"]))
        a = float(item.values["advantage"])
        gain = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
        apart = torch.from_numpy(item.values["reference"]) - logp
        terms.append((-gain + 0.2 * (apart.exp() - apart - 1)).sum())
        lengths.append(row.trained)
    if loss_type == "grpo":
        expected = sum(t / n for t, n in zip(terms, lengths, strict=True)) / len(items)
    else:
        expected = sum(terms) / (sum(lengths) if loss_type == "dapo" else 30 * len(items))
    expected.backward()
    wanted = gradients(network)
    method = GroupRelativePolicy(whole.model_copy(update={"adapter": "lora"}))
    context = context_of(network, 90, whole, flat=True)
    weight, got = method.weigh(items), 0.0
    for part in context.parts(items):
        summed = method.loss(context, part).summed / weight
        summed.backward()
        got += float(summed.detach())
    mine = gradients(network)
    assert got == pytest.approx(expected.item(), rel=2e-5)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert (mine[name] - gradient).abs().max().item() <= 5e-5 * scale, name


def test_a_forecast_includes_the_sampling(job):
    from tunewise.training.forecast import calibrate

    found = calibrate(job)
    assert found.steps == 8 and found.seconds > 0 and found.path == "flat"
