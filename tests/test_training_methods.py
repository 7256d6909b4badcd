"""Preference methods, distillation, pretraining and reward models against plain references."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from training_support import (
    gradients,
    save_small_model,
    setup_of,
    small_model,
    word_examples,
)
from tunewise.data.chat import Example
from tunewise.data.documents import Document
from tunewise.errors import DataError, TrainingError
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.study.schema import FineTune
from tunewise.training.items import Items
from tunewise.training.job import TrainingJob, TrainingStopped
from tunewise.training.loop import train
from tunewise.training.methods import make_method
from tunewise.training.methods.base import Context
from tunewise.training.methods.pretrain import as_examples
from tunewise.training.ready import encoder_of
from tunewise.training.rows import EncodedRow

torch.set_num_threads(1)
PAIRS = [
    replace(e, rejected={"role": "assistant", "content": e.user_text})
    for e in word_examples(60)
    if e.answer != e.user_text
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(model, tmp_path):
    return TrainingJob(
        model=str(model),
        examples=PAIRS[:24],
        dev=PAIRS[24:32],
        fine_tune=FineTune(method="dpo", batch_size=8, lora={"rank": 8}, precision="float32"),
        learning_rate=1e-2,
        epochs=3,
        seed=1,
        output=tmp_path / "run",
        threads=1,
    )


def tuned(job, method, **options):
    return replace(
        job,
        fine_tune=FineTune(
            method=method, batch_size=8, lora={"rank": 8}, precision="float32", **options
        ),
    )


def answers(prompt: list[int], *tails: list[int]) -> list[EncodedRow]:
    rows = []
    for tail in tails:
        weights = np.zeros(len(prompt) + len(tail), np.float32)
        weights[len(prompt) :] = 1.0
        rows.append(EncodedRow("x", np.asarray([*prompt, *tail], np.int32), weights))
    return rows


def random_items(seed: int, count: int, width: int = 2) -> Items:
    """Prompts that share a beginning; answers of one prompt that do so too, in part."""
    r = np.random.default_rng(seed)
    items = Items(width=width)
    shared = r.integers(3, 97, 18).tolist()
    for number in range(count):
        prompt = [1, *shared, *r.integers(3, 97, int(r.integers(1, 20))).tolist()]
        same = r.integers(3, 97, 17 if number % 2 else 0).tolist()
        tails = [[*same, *r.integers(3, 97, int(r.integers(1, 9))).tolist()] for _ in range(width)]
        items.append(answers(prompt, *tails), number)
    items.values["reference"] = r.normal(-30, 3, (count, width)).astype(np.float32)
    items.values["desirable"] = (r.random(count) < 0.5).astype(np.float32)
    return items


def plain_log_probs(network, row: EncodedRow, temperature: float = 1.0) -> torch.Tensor:
    """Of the answer's tokens, by the stock model on this row alone."""
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    logits = network(input_ids=ids, use_cache=False).logits[0].float()
    logps = (logits / temperature).log_softmax(-1)
    at = torch.from_numpy(np.flatnonzero(row.weights > 0))
    return logps[at - 1, ids[0, at]]


def plain_loss(method: str, options: dict, network, items: Items) -> torch.Tensor:
    """The formulas of the papers, one row at a time; the mean over items."""
    total = torch.zeros(())
    for item in items:
        found = [plain_log_probs(network, row) for row in item.rows]
        ref = item.values["reference"]
        if method == "dpo":
            ratio = [logp.sum() - float(r) for logp, r in zip(found, ref, strict=True)]
            if options.get("length_normalised"):
                ratio = [r / len(logp) for r, logp in zip(ratio, found, strict=True)]
            beta, margin = options.get("beta", 0.1), ratio[0] - ratio[1]
            wrong = options.get("label_smoothing", 0.0)
            if options.get("loss_type") == "ipo":
                total = total + (margin - 0.5 / beta) ** 2
            else:
                total = total - (1 - wrong) * torch.log(1 / (1 + torch.exp(-beta * margin)))
                total = total - wrong * torch.log(1 / (1 + torch.exp(beta * margin)))
        elif method == "orpo":
            chance = [logp.mean().exp() for logp in found]
            odds = [p / (1 - p) for p in chance]
            term = torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
            total = total - found[0].mean() - options.get("beta", 0.1) * term
    return total / len(items)


def context_of(network, budget: int, fine_tune: FineTune, *, flat: bool) -> Context:
    stub = SimpleNamespace(fine_tune=fine_tune)
    return Context(stub, setup_of(network, flat=flat), budget, lambda _: None, lambda: False)


def run_method(method, context: Context, items: Items) -> float:
    """The step's loss over all its parts; leaves the gradients."""
    learnt = method.gather(context, items[:], 0)
    weight, total = method.weigh(learnt), 0.0
    for part in context.parts(learnt):
        summed = method.loss(context, part).summed / weight
        summed.backward()
        total += float(summed.detach())
    return total


CASES = [
    ("dpo", {}),
    ("dpo", {"beta": 0.4, "label_smoothing": 0.2}),
    ("dpo", {"loss_type": "ipo", "length_normalised": True}),
    ("orpo", {"beta": 0.7}),
]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("method,options", CASES)
def test_losses_and_gradients_are_those_of_one_row_at_a_time(method, options, flat):
    fine_tune = FineTune(method=method, **{method: options})
    network = small_model("qwen3")
    network.set_attn_implementation("eager")
    items = random_items(3, 5)
    expected = plain_loss(method, options, network, items)
    expected.backward()
    wanted = gradients(network)
    context = context_of(network, 80, fine_tune, flat=flat)
    parts = context.parts(items)
    assert len(parts) > 1 if flat else len(parts) == 5
    got = run_method(make_method(fine_tune), context, items)
    found = gradients(network)
    assert got == pytest.approx(expected.item(), rel=2e-5)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max().item() <= 2e-5 * scale, name


def test_kto_is_its_paper_s_formula():
    options = {"beta": 0.3, "desirable_weight": 2.0}
    fine_tune = FineTune(method="kto", kto=options)
    network = small_model("llama")
    network.set_attn_implementation("eager")
    items = random_items(5, 6)
    found = [[plain_log_probs(network, row).sum() for row in item.rows] for item in items]
    ref = items.values["reference"]
    moved = sum(float(f[1].detach()) - float(r[1]) for f, r in zip(found, ref, strict=True)) / 6
    z = max(0.0, moved)
    total = torch.zeros(())
    for (own, _), r, good in zip(found, ref, items.values["desirable"], strict=True):
        ratio = own - float(r[0])
        value = torch.sigmoid(0.3 * (ratio - z if good else z - ratio))
        total = total + (2.0 if good else 1.0) * (1 - value)
    expected = total / 6
    expected.backward()
    wanted = gradients(network)
    method = make_method(fine_tune)
    got = run_method(method, context_of(network, 150, fine_tune, flat=True), items)
    mine = gradients(network)
    assert method.gathered()["kl"][0] == pytest.approx(z, rel=1e-4)
    assert got == pytest.approx(expected.item(), rel=2e-5)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert (mine[name] - gradient).abs().max().item() <= 5e-5 * scale, name


def test_the_odds_ratio_term_is_trl_s():
    trl = pytest.importorskip("trl.experimental.orpo.orpo_trainer")
    from tunewise.training.methods.orpo import odds_ratio_term

    means = -torch.rand(7, 2, generator=torch.Generator().manual_seed(1)) * 3 - 0.01
    stub = SimpleNamespace(beta=1.0, accelerator=SimpleNamespace(device="cpu"))
    losses = trl.ORPOTrainer.odds_ratio_loss(stub, means[:, 0], means[:, 1])[0]
    assert (odds_ratio_term(means) + losses).abs().max().item() < 1e-6


def test_dpo_learns_from_the_base_and_widens_the_margin(job):
    events = []
    result = train(job, events.append)
    steps = [e for e in events if e["event"] == "step"]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # nothing has moved yet
    assert steps[0]["train_reward_margin"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["train_reward_margin"] > 0.3
    assert result.metrics["valid_reward_accuracy"] > 0.5
    assert [e["split"] for e in events if e["event"] == "reference"] == ["train", "dev"]
    tuned_model = load_local(parse_model(job.model), adapter=result.adapter)
    assert _margin(tuned_model, job.dev) > _margin(load_local(parse_model(job.model)), job.dev)


def _margin(loaded, examples) -> float:
    """How much likelier the wanted answer is than the other, as scoring sees it."""
    from tunewise.training.methods.answers import encode_pairs

    encoder = encoder_of(SimpleNamespace(fine_tune=FineTune(), prompt=None, date=None), loaded)
    items, _ = encode_pairs(encoder, examples, None)
    adapter = next(iter(loaded.adapters), None)
    with loaded.using(adapter), torch.no_grad():
        pairs = [[plain_log_probs(loaded.model, row).sum() for row in i.rows] for i in items]
    return float(np.mean([float(good - bad) for good, bad in pairs]))


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_dpo_goes_on_bit_by_bit(job, tmp_path, adapter):
    fine_tune = FineTune(method="dpo", batch_size=8, adapter=adapter, lora={"dropout": 0.1})
    job = replace(job, fine_tune=fine_tune, epochs=2, learning_rate=1e-3)
    whole = train(job)
    events: list = []
    parts = replace(job, output=tmp_path / "parts")

    def after(step):
        return lambda: any(e.get("step") == step for e in events)

    with pytest.raises(TrainingStopped):
        train(parts, events.append, stop=after(4))
    result = train(parts, events.append)
    assert [e["event"] for e in events].count("reference") == 2, "computed once"
    assert result.train_loss == whole.train_loss and result.dev_loss == whole.dev_loss
    name = "adapter/adapter_model.safetensors" if adapter == "lora" else "model/model.safetensors"
    assert (job.output / name).read_bytes() == (parts.output / name).read_bytes()


@pytest.mark.parametrize("method", ["orpo", "kto", "reward"])
def test_the_other_preference_methods_learn(job, method):
    events = []
    result = train(tuned(job, method), events.append)
    steps = [e for e in events if e["event"] == "step"]
    assert np.mean(result.train_loss[-3:]) < np.mean(result.train_loss[:3])
    apart = [e["train_reward_chosen"] - e["train_reward_rejected"] for e in steps]
    assert np.mean(apart[-3:]) > np.mean(apart[:3])


def test_kto_takes_single_labels(job):
    rows = [replace(e, rejected=None, metadata={"label": i % 2 == 0}) for i, e in enumerate(PAIRS)]
    rows[1] = replace(rows[1], metadata={}, desirable=False)
    method = make_method(FineTune(method="kto"))
    encoder = encoder_of(tuned(job, "kto"), load_local(parse_model(job.model)))
    items, findings = method.encode(encoder, rows[:8], 256)
    assert findings == [] and items.values["desirable"].tolist() == [1, 0] * 4
    bare = [replace(rows[2], metadata={})]
    _, findings = method.encode(encoder, bare, 256)
    assert [(f.code, f.rows) for f in findings] == [("no_label", (bare[0].id,))]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_reward_model_is_a_sequence_classifier(job):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    result = train(tuned(job, "reward"))
    base = AutoModelForSequenceClassification.from_pretrained(
        job.model, num_labels=1, pad_token_id=0
    )
    scoring = PeftModel.from_pretrained(base, result.adapter).eval()
    right = 0
    encoder = encoder_of(job, load_local(parse_model(job.model)))
    items, _ = make_method(job.fine_tune).encode(encoder, job.dev, None)
    scores = []
    with torch.no_grad():
        for item in items:
            pair = [
                float(scoring(torch.from_numpy(r.ids.astype(np.int64))[None]).logits)
                for r in item.rows
            ]
            right += pair[0] > pair[1]
            scores.append(pair)
    best = dict(result.dev_loss)[result.best_step]
    apart = torch.tensor([good - bad for good, bad in scores])
    assert -float(logsigmoid(apart).mean()) == pytest.approx(best, rel=1e-3)
    assert right / len(items) > 0.5


def test_preference_rows_that_cannot_be_learnt_from(job):
    same = replace(PAIRS[0], id="same", rejected=PAIRS[0].target)
    result = train(replace(job, examples=[*job.examples, same], epochs=1))
    assert result.rows_left_out == {"equal_answers": 1}
    bare = replace(PAIRS[0], id="bare", rejected=None)
    with pytest.raises(TrainingError, match=r"no answer that is not wanted.*'bare'"):
        train(replace(job, examples=[*job.examples, bare]))


def test_distillation_learns_the_teacher_s_answers(job, tmp_path):
    lines = [{"id": e.id, "answer": e.user_text} for e in job.examples[:-1]]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    by_file = tuned(job, "distill", distill={"answers": str(file)})
    rows = [replace(e, metadata={"teacher": e.user_text}) for e in job.examples[:-1]]
    by_column = replace(tuned(job, "distill"), examples=rows, dev=[], output=tmp_path / "b")
    one = train(replace(by_file, dev=[]))
    other = train(by_column)
    assert one.rows_left_out == {"no_teacher_answer": 1}
    wanted = [
        replace(e, messages=(*e.prompt, {"role": "assistant", "content": e.user_text}))
        for e in job.examples[:-1]
    ]
    plain = train(replace(tuned(job, "sft"), examples=wanted, dev=[], output=tmp_path / "c"))
    assert one.train_loss == other.train_loss == plain.train_loss
    key = by_file.key
    file.write_text(json.dumps({"id": "row-0", "answer": "x"}) + "\n")
    assert replace(by_file).key != key
    file.write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"answers.jsonl:1: the line has no `id` or no `answer`"):
        train(replace(by_file))


def test_pretraining_packs_documents_to_the_limit(job):
    texts = ["red green blue " * 30, "cat dog", "", "sun moon tree " * 40]
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    rows = as_examples(documents)
    loaded = load_local(parse_model(job.model))
    method = make_method(FineTune(method="pretrain"))
    encoder = encoder_of(tuned(job, "pretrain"), loaded)
    items, findings = method.encode(encoder, rows, 40)
    assert [(f.code, f.rows) for f in findings] == [("no_trained_token", ("d2",))]
    flat = [int(i) for row in items.rows for i in row.ids]
    end = loaded.tokenizer.eos_token_id
    expected = [i for t in texts if t for i in [*loaded.tokenizer(t)["input_ids"], end]]
    assert flat == expected[: len(flat)] and len(expected) - len(flat) <= 1
    assert all(len(row.ids) == 40 for row in items.rows[:-1])
    assert all((row.weights[1:] == 1).all() for row in items.rows)
    result = train(
        replace(tuned(job, "pretrain", max_length=40), examples=[rows[0], rows[1], rows[3]], dev=[])
    )
    assert result.train_loss[-1] < result.train_loss[0]


def test_options_of_other_methods_do_not_change_a_job_s_key(job):
    assert replace(job, fine_tune=job.fine_tune).key == job.key
    other = job.fine_tune.model_copy(update={"kto": FineTune(kto={"beta": 3}).kto})
    assert replace(job, fine_tune=other).key == job.key
    other = job.fine_tune.model_copy(update={"dpo": FineTune(dpo={"beta": 3}).dpo})
    assert replace(job, fine_tune=other).key != job.key


def test_a_forecast_covers_the_reference(job):
    from tunewise.training.forecast import calibrate

    found = calibrate(job)
    assert found.steps == 9 and found.seconds > 0 and found.peak_memory_bytes > 0
    assert found.computed_tokens < found.tokens


def test_examples_of_openai_s_preference_form_are_read():
    from tunewise.data.formats import detect, to_example

    row = {
        "input": {"messages": [{"role": "user", "content": "Hi"}], "tools": []},
        "preferred_output": [{"role": "assistant", "content": "Hello!"}],
        "non_preferred_output": [{"role": "assistant", "content": "What?"}],
    }
    example, _ = to_example(row, detect([row]))
    assert isinstance(example, Example)
    assert (example.answer, example.rejected["content"]) == ("Hello!", "What?")
