"""A whole run in this process: it learns, keeps the best weights, stops when it must."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch
from safetensors.torch import load_file, save_file

from training_support import save_small_model, word_examples
from tunewise.data.chat import Example
from tunewise.errors import ModelError, TrainingError, WorkspaceError
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.study.schema import FineTune
from tunewise.training.job import (
    NotFiniteError,
    TrainingJob,
    TrainingStopped,
)
from tunewise.training.job_files import read_job, write_job
from tunewise.training.loop import train
from tunewise.training.sweep import (
    choose_learning_rate,
    count_parameters,
    default_learning_rates,
)

EXAMPLES = word_examples(40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(model, tmp_path):
    return TrainingJob(
        model=str(model),
        examples=EXAMPLES[:32],
        dev=EXAMPLES[32:],
        fine_tune=FineTune(batch_size=8, precision="float32", lora={"rank": 8}),
        learning_rate=1e-2,
        epochs=4,
        seed=1,
        output=tmp_path / "run",
        threads=1,
    )


def test_a_run_learns_and_leaves_its_files(job):
    events = []
    result = train(job, events.append)
    assert result.path == "flat" and result.path_reason == ""
    assert result.steps == 16 and len(result.train_loss) == 16
    assert result.train_loss[-1] < 0.7 * result.train_loss[0]
    assert [s for s, _ in result.dev_loss] == [4, 8, 12, 16]
    assert result.best_dev_loss == min(loss for _, loss in result.dev_loss)
    assert sorted(p.name for p in job.output.iterdir() if p.name[0] != ".") == [
        "adapter",
        "events.jsonl",
        "training.json",
    ]
    kinds = [e["event"] for e in events]
    assert kinds[:2] == ["path", "start"] and kinds[-1] == "end"
    steps = [e for e in events if e["event"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, 17))
    assert {"total_steps", "loss", "lr", "tokens_per_second", "seconds_left"} <= set(steps[0])
    right = [e["train_mean_token_accuracy"] for e in steps]
    assert 0 <= right[0] < right[-1] <= 1
    assert 0 < result.metrics["valid_mean_token_accuracy"] <= 1
    assert [json.loads(x) for x in (job.output / "events.jsonl").read_text().splitlines()] == events
    assert result.config["threads"] == 1 and result.config["batch_size"] == 8

    events.clear()
    again = train(job, events.append)
    assert events == [] and again.as_dict() == result.as_dict()

    # The adapter goes onto the base model as scoring loads it, and gives the dev loss of the run.
    loaded = load_local(parse_model(job.model), adapter=job.output / "adapter")
    config = json.loads((job.output / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == job.model
    assert _mean_loss(loaded, job.dev, next(iter(loaded.adapters))) == pytest.approx(
        result.best_dev_loss, rel=1e-4
    )
    assert _mean_loss(loaded, job.dev, None) > 1.3 * result.best_dev_loss


def test_the_weights_of_the_last_epochs_can_stay(job):
    job = replace(
        job, keep_epochs=2, fine_tune=FineTune(batch_size=16, lora={"rank": 8}, precision="float32")
    )
    events = []
    result = train(job, events.append)
    saved = [e for e in events if e["event"] == "epoch_saved"]
    assert [e["step"] for e in saved] == [2, 4, 6, 8]
    kept = sorted(p.name for p in (job.output / "epochs").iterdir())
    assert kept == ["6", "8"] and saved[-1]["folder"] == str(job.output / "epochs" / "8")
    last = load_file(job.output / "epochs" / "8" / "adapter_model.safetensors")
    best = load_file(result.adapter / "adapter_model.safetensors")
    same = all(torch.equal(last[n], best[n]) for n in best)
    assert same == (result.best_step == 8)
    loaded = load_local(parse_model(job.model), adapter=job.output / "epochs" / "6")
    losses = dict(result.dev_loss)
    found = _mean_loss(loaded, job.dev, next(iter(loaded.adapters)))
    assert found == pytest.approx(losses[6], rel=1e-4)


def _mean_loss(loaded, examples, adapter) -> float:
    from tunewise.training.encode import Encoder

    encoder = Encoder(loaded.tokenizer, loaded.end_ids)
    total = weight = 0.0
    with loaded.using(adapter), torch.no_grad():
        for row in map(encoder.encode, examples):
            ids = torch.tensor(row.ids.tolist())[None]
            logits = loaded.model(ids).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            total += float((losses * torch.tensor(row.weights[1:])).sum())
            weight += float(row.weights.sum())
    return total / weight


def test_a_full_fine_tune_gives_a_whole_model(job):
    job = replace(job, fine_tune=FineTune(adapter="full", batch_size=8), epochs=1)
    result = train(job)
    assert result.adapter is None and result.model == job.output / "model"
    tuned = load_local(parse_model(str(result.model)))
    assert _mean_loss(tuned, job.dev, None) == pytest.approx(result.best_dev_loss, rel=1e-4)


@pytest.mark.parametrize("lora", [{"rslora": True}, {"dora": True}, {"target_modules": ["q_proj"]}])
def test_kinds_of_adapters(job, lora):
    result = train(replace(job, fine_tune=FineTune(batch_size=8, lora=lora), epochs=2))
    assert result.train_loss[-1] < result.train_loss[0]


def test_bfloat16_runs_where_it_is_asked_for(job):
    fine_tune = FineTune(batch_size=8, lora={"rank": 8}, precision="bfloat16")
    result = train(replace(job, fine_tune=fine_tune, epochs=2))
    assert result.path == "flat" and result.config["precision"] == "bfloat16"
    assert result.train_loss[-1] < result.train_loss[0]
    adapter = load_file(result.adapter / "adapter_model.safetensors")
    assert {t.dtype for t in adapter.values()} == {torch.float32}


def test_values_that_cannot_be_meant(job):
    for bad in ({"learning_rate": 0.0}, {"epochs": float("nan")}):
        with pytest.raises(TrainingError, match="cannot be meant"):
            replace(job, **bad)
    with pytest.raises(TrainingError, match="no such method: 'magic'"):
        replace(job, fine_tune=FineTune(method="magic"))


def test_a_wrong_target_names_the_layers(job):
    job = replace(job, fine_tune=FineTune(lora={"target_modules": ["nothing"]}))
    with pytest.raises(TrainingError, match="down_proj, gate_proj, k_proj, lm_head, o_proj"):
        train(job)


def test_one_mistyped_target_among_others_is_refused(job):
    targets = ["q_proj", "v_prj", "layers.0.mlp.up_proj", "layers.9.mlp.up_proj"]
    job = replace(job, fine_tune=FineTune(lora={"target_modules": targets}))
    with pytest.raises(TrainingError) as refused:
        train(job)
    assert "no layer named v_prj or layers.9.mlp.up_proj" in refused.value.message
    assert "gate_proj" in refused.value.hint and "Did you mean v_proj" in refused.value.hint


def test_stop_and_go_on_equals_an_undisturbed_run(job, tmp_path):
    whole = train(job)
    torch.manual_seed(999)  # whatever state the caller is in
    parts = replace(job, output=tmp_path / "parts")
    asked = iter([False] * 6 + [True])
    with pytest.raises(TrainingStopped, match="stopped at step 6 of 16"):
        train(parts, stop=lambda: next(asked))
    assert not (parts.output / "training.json").exists()
    events = []
    result = train(parts, events.append)
    assert next(e for e in events if e["event"] == "resume")["step"] == 6
    assert result.train_loss == whole.train_loss and result.dev_loss == whole.dev_loss
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        one, other = (j.output / "adapter" / name for j in (job, parts))
        assert one.read_bytes() == other.read_bytes()


def test_another_seed_is_another_run(job, tmp_path):
    one = train(replace(job, epochs=1))
    other = train(replace(job, epochs=1, seed=2, output=tmp_path / "other"))
    assert one.train_loss != other.train_loss


def test_it_stops_early_and_keeps_the_best(job):
    # With a huge rate and few rows the dev loss soon rises.
    result = train(replace(job, examples=EXAMPLES[:8], learning_rate=0.05, epochs=40))
    assert result.steps < 80
    assert result.best_step < result.steps
    tuned = load_local(parse_model(job.model), adapter=result.adapter)
    assert _mean_loss(tuned, job.dev, next(iter(tuned.adapters))) == pytest.approx(
        result.best_dev_loss, rel=1e-4
    )


def test_a_loss_that_is_no_number_names_its_rows(job, tmp_path):
    # A model whose embedding of one token is infinite: only the row with that token is hit.
    broken = save_small_model(tmp_path / "broken")
    loaded = load_local(parse_model(str(broken)))
    odd = Example("odd", ({"role": "user", "content": "~"}, {"role": "assistant", "content": "x"}))
    token = loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    tensors = load_file(broken / "model.safetensors")
    tensors["model.embed_tokens.weight"][token] = math.inf
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    rows = [*EXAMPLES[:7], odd]
    with pytest.raises(NotFiniteError, match=r"not a number at step 1; rows 'odd'") as caught:
        # The probe sees this row too and takes the plain path: there the loss names it.
        train(replace(job, model=str(broken), examples=rows))
    assert "learning rate" in str(caught.value)


def test_a_model_off_the_list_takes_the_plain_path(job, tmp_path):
    folder = save_small_model(tmp_path / "model", attention_dropout=0.1)
    events = []
    result = train(replace(job, model=str(folder), epochs=1), events.append)
    assert result.path == "plain" and "dropout" in result.path_reason
    assert next(e for e in events if e["event"] == "path")["reason"] == result.path_reason


def test_the_plain_path_gives_the_same_run(job, tmp_path, monkeypatch):
    from tunewise.training import fast_path

    flat = train(replace(job, epochs=1))
    monkeypatch.setattr(fast_path, "ALLOWED", set())
    plain = train(replace(job, epochs=1, output=tmp_path / "plain"))
    assert (flat.path, plain.path) == ("flat", "plain")
    assert plain.train_loss == pytest.approx(flat.train_loss, rel=1e-4)
    assert plain.best_dev_loss == pytest.approx(flat.best_dev_loss, rel=1e-4)


@pytest.mark.parametrize("small_disk", ["4m"], indirect=True)
def test_a_full_disk_keeps_the_last_checkpoint(job, small_disk):
    undisturbed = train(job)
    job = replace(job, output=small_disk / "run")
    filler = small_disk / "filler"

    def fill(event):
        if event["event"] == "checkpoint" and event["step"] == 8:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))

    with pytest.raises(WorkspaceError, match="the disk is full"):
        train(job, fill)
    filler.unlink()
    events = []
    result = train(job, events.append)
    assert next(e for e in events if e["event"] == "resume")["step"] == 8
    lines = (job.output / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["event"] for line in lines} >= {"step", "resume", "end"}
    one, other = (r.adapter / "adapter_model.safetensors" for r in (result, undisturbed))
    assert one.read_bytes() == other.read_bytes()


def test_two_runs_in_one_folder_are_refused(job):
    from tunewise.training.surroundings import locked

    with locked(job.output), pytest.raises(TrainingError, match="another process trains here"):
        train(job)


def test_the_key_sees_what_determines_the_weights(job, tmp_path):
    same = replace(job, output=tmp_path / "elsewhere", threads=2, checkpoint_seconds=1.0)
    assert same.key == job.key
    options = {"learning_rate": 0.1, "epochs": 1.0, "seed": 9, "prompt": "x", "max_steps": 3}
    others = [replace(job, **{name: value}) for name, value in options.items()]
    others += [
        replace(job, examples=EXAMPLES[:31]),
        replace(job, dev=EXAMPLES[31:]),
        replace(job, fine_tune=FineTune(batch_size=8, lora={"rank": 4})),
        replace(job, model=str(save_small_model(tmp_path / "m", seed=5))),
    ]
    assert len({job.key, *(o.key for o in others)}) == len(others) + 1


def test_a_job_survives_the_disk(job, tmp_path):
    write_job(job, tmp_path / "job")
    back = read_job(tmp_path / "job")
    assert back.key == job.key and list(back.examples) == list(job.examples)
    assert (tmp_path / "job").stat().st_mode & 0o077 == 0
    with pytest.raises(TrainingError, match="no training job"):
        read_job(tmp_path)


def test_a_model_on_a_server_cannot_be_trained_here(job):
    with pytest.raises(ModelError, match="runs on a server"):
        train(replace(job, model="openai:gpt-4"))


def test_a_dev_row_that_the_template_cannot_keep_stops_the_run_too(job):
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    broken = replace(
        EXAMPLES[39],
        messages=({"role": "user", "content": [picture]}, *EXAMPLES[39].messages[1:]),
        source="dev.jsonl:9",
    )
    with pytest.raises(TrainingError, match=r"part 1 is of the type 'image_url'.*dev\.jsonl:9"):
        train(replace(job, dev=[*EXAMPLES[32:39], broken]))


def test_the_sweep_takes_the_lowest_dev_loss(job):
    value, trials = choose_learning_rate(job, [1e-5, 1e-2], fraction=0.5)
    assert value == 1e-2
    assert [t.learning_rate for t in trials] == [1e-5, 1e-2]
    assert trials[1].dev_loss < trials[0].dev_loss and trials[0].steps == 8
    assert not (job.output / "sweep").exists()
    assert choose_learning_rate(job, [3.0]) == (3.0, [])
    with pytest.raises(TrainingError, match="without dev rows"):
        choose_learning_rate(replace(job, dev=[]), [1.0, 2.0])


def test_default_learning_rates_grow_for_small_models(job):
    small = default_learning_rates(count_parameters(job.model), "lora")
    large = default_learning_rates(7_000_000_000, "lora")
    assert min(small) > max(large)
    assert default_learning_rates(7_000_000_000, "full")[0] == pytest.approx(large[0] / 10)
