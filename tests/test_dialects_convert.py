"""Other tools' configurations become studies that load, with each key told."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cli_support import jsonl, tunewise
from training_support import WORDS, save_small_model
from tunewise.dialects.convert import convert
from tunewise.errors import TunewiseError
from tunewise.study.loading import load_study

AXOLOTL = """\
base_model: owner/base
load_in_4bit: true
strict: false
datasets:
  - path: rows.jsonl
    type: chat_template
    field_messages: talk
val_set_size: 0.05
output_dir: ./outputs/my-lora
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
train_on_inputs: false
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
warmup_steps: 10
weight_decay: 0.01
wandb_project: mine
special_tokens:
  pad_token: "<pad>"
"""
LLAMA_FACTORY = """\
model_name_or_path: owner/base
stage: dpo
do_train: true
finetuning_type: lora
lora_target: q_proj,v_proj
lora_rank: 8
pref_beta: 0.2
pref_loss: sigmoid
dataset: mine
template: llama3
cutoff_len: 1024
max_samples: 1000
output_dir: saves/mine
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 2.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""
UNSLOTH = """\
model: unsloth/base
data:
  local_dataset: [rows.jsonl]
  format_type: chatml
training:
  training_type: lora
  max_seq_length: 2048
  load_in_4bit: true
  num_epochs: 2
  learning_rate: 2e-4
  batch_size: 2
  gradient_accumulation_steps: 4
  packing: true
  random_seed: 7
lora:
  lora_r: 64
  lora_alpha: 16
  target_modules: [q_proj, k_proj]
  use_rslora: true
logging:
  enable_wandb: false
"""
NOTEBOOK = """\
model_name: unsloth/base
max_seq_length: 1024
load_in_4bit: true
r: 16
lora_alpha: 16
use_gradient_checkpointing: unsloth
random_state: 3407
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
dataset: rows.jsonl
learning_rate: 1e-4
num_train_epochs: 1
"""
TRL = """\
# as run on the cluster
trl dpo \\
  --model_name_or_path owner/base --dataset_name owner/rows \\
  --learning_rate 5.0e-6 --num_train_epochs=1 --per_device_train_batch_size 2 \\
  --gradient_accumulation_steps 8 --beta 0.3 --gradient_checkpointing \\
  --use_peft --lora_r 32 --lora_alpha 16 --lora_target_modules q_proj v_proj --report_to none
"""
OPENAI = json.dumps(
    {
        "model": "gpt-4.1-mini-2025-04-14",
        "training_file": "rows.jsonl",
        "validation_file": None,
        "method": {
            "type": "dpo",
            "dpo": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto", "beta": 0.4}},
        },
        "suffix": "mine",
        "seed": 5,
    },
    indent=1,
)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "axolotl": ("a.yml", AXOLOTL, {
        "adapter": "qlora", "batch_size": 8, "epochs": 4, "max_length": 4096,
        "lora": {"rank": 32, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"},
        "report_to": ["wandb"], "trained_rows": "all_assistant", "recompute": True}),
    "llama-factory": ("l.yaml", LLAMA_FACTORY, {
        "method": "dpo", "dpo": {"beta": 0.2}, "batch_size": 8, "precision": "bfloat16",
        "lora": {"rank": 8, "target_modules": ["q_proj", "v_proj"]}, "max_length": 1024}),
    "unsloth": ("u.yaml", UNSLOTH, {
        "adapter": "qlora", "batch_size": 8, "seeds": [7], "report_to": None,
        "lora": {"rank": 64, "alpha": 16, "target_modules": ["q_proj", "k_proj"], "rslora": True}}),
    "unsloth notebook": ("n.yaml", NOTEBOOK, {
        "adapter": "qlora", "seeds": [3407], "learning_rate": 1e-4, "epochs": 1}),
    "trl": ("train.sh", TRL, {
        "method": "dpo", "dpo": {"beta": 0.3}, "batch_size": 16, "adapter": "lora",
        "recompute": True, "report_to": [],
        "lora": {"rank": 32, "alpha": 16, "target_modules": ["q_proj", "v_proj"]}}),
    "openai": ("job.json", OPENAI, {
        "route": "openai", "method": "dpo", "dpo": {"beta": 0.4}, "epochs": 3, "seeds": [5],
        "hosted": {"suffix": "mine"}}),
}  # fmt: skip


def _rows(count: int = 40) -> list[dict[str, Any]]:
    draw = random.Random(0)
    words = [*WORDS]
    return [
        {
            "talk": [
                {"role": "user", "content": f"{draw.choice(words)} {draw.choice(words)} {n}"},
                {"role": "assistant", "content": words[n % 3]},
            ]
        }
        for n in range(count)
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    jsonl(tmp_path / "rows.jsonl", _rows())
    info = {
        "mine": {
            "file_name": "pairs.jsonl",
            "ranking": True,
            "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"},
        }
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info), "utf-8")
    pairs = [{"q": f"a {n}", "good": "b", "bad": f"c {n % 5}"} for n in range(40)]
    jsonl(tmp_path / "pairs.jsonl", pairs)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_each_is_recognised_and_becomes_a_study(name: str, place: Path) -> None:
    file, text, expected = CASES[name]
    (place / file).write_text(text, "utf-8")
    told = tunewise("convert", file, "--json", cwd=place).json
    assert told["dialect"] == name.split()[0]
    loaded = load_study(place / "study.yaml")
    raw = yaml.safe_load((place / "study.yaml").read_text("utf-8"))
    for key, value in expected.items():
        assert raw["fine_tune"].get(key) == value, key
    assert raw["metric"]
    assert loaded.study.model
    keys = [row["key"].rpartition(".")[2] for row in told["told"]]
    flags = _keys(yaml.safe_load(text)) if not file.endswith(".sh") else {"beta", "lora_r"}
    assert flags <= {*keys, *(row["key"].partition(".")[0] for row in told["told"])}
    assert all(row["why"] for row in told["told"] if row["state"] == "no meaning here")


def _keys(value: Any) -> set[str]:
    sections = {"data", "training", "lora", "logging", "method", "dpo", "hyperparameters"}
    found: set[str] = set()
    for key, inner in value.items():
        found |= _keys(inner) if key in sections and isinstance(inner, dict) else {key}
    return found


def test_data_sets_are_found_by_their_description(place: Path) -> None:
    (place / "l.yaml").write_text(LLAMA_FACTORY, "utf-8")
    tunewise("convert", "l.yaml", cwd=place)
    data = yaml.safe_load((place / "study.yaml").read_text("utf-8"))["data"]
    assert data["examples"] == "pairs.jsonl"
    assert data["columns"] == {"input": "q", "output": "good", "rejected": "bad"}
    assert data["max_rows"] == 1000


def test_what_is_wrong_is_told_with_their_key_and_line(place: Path) -> None:
    (place / "a.yml").write_text(AXOLOTL.replace("num_epochs: 4", "num_epochs: many"), "utf-8")
    run = tunewise("convert", "a.yml", cwd=place, code=2)
    assert "a.yml:20: num_epochs" in run.err
    assert "'many'" in run.err
    assert not (place / "study.yaml").exists()


def test_unknown_keys_are_told_and_near_ones_are_to_be_looked_at(place: Path) -> None:
    (place / "a.yml").write_text(AXOLOTL.replace("sequence_len:", "sequence_lenn:"), "utf-8")
    run = tunewise("convert", "a.yml", cwd=place)
    assert "`sequence_lenn` is not known; probably `sequence_len` is meant" in " ".join(
        run.out.split()
    )
    assert "sequence_lenn" in (place / "study.yaml").read_text("utf-8")


def test_what_cannot_be_told_apart_is_asked(place: Path) -> None:
    (place / "x.yml").write_text("learning_rate: 1\n", "utf-8")
    run = tunewise("convert", "x.yml", cwd=place, code=2)
    assert "--from" in run.err
    run = tunewise("convert", "x.yml", "--from", "axolotl", cwd=place, code=2)
    assert "`datasets`" in run.err or "base_model" in run.err
    (place / "study.yaml").write_text("x", "utf-8")
    assert "--force" in tunewise("convert", "x.yml", cwd=place, code=2).err


def test_there_and_back(place: Path) -> None:
    """From AutoTrain to a study to AutoTrain: the same parameters."""
    (place / "rows").mkdir()
    jsonl(place / "rows" / "train.jsonl", [{"messages": r["talk"]} for r in _rows()])
    text = (
        "task: llm-sft\nbase_model: tunewise/tiny\nproject_name: mine\nlog: none\nbackend: local\n"
        "data:\n  path: rows\n  train_split: train\n  valid_split: null\n"
        "  chat_template: tokenizer\n  column_mapping: {text_column: messages}\n"
        "params: {lr: 0.001, epochs: 2, batch_size: 4, gradient_accumulation: 2, peft: true, "
        "quantization: null, lora_r: 4, seed: 7}\n"
    )
    (place / "c.yml").write_text(text, "utf-8")
    tunewise("convert", "c.yml", cwd=place)
    tunewise("convert", "study.yaml", "--back", "autotrain", cwd=place)
    back = yaml.safe_load((place / "autotrain.yml").read_text("utf-8"))
    assert back["task"] == "llm-sft"
    assert back["params"]["lr"] == 0.001
    assert back["params"]["batch_size"] * back["params"]["gradient_accumulation"] == 8
    assert back["params"]["lora_r"] == 4
    assert back["data"]["column_mapping"] == {"text_column": "messages"}
    told = tunewise("autotrain", "--config", "autotrain.yml", "--dry-run", "--json", cwd=place).json
    study = yaml.safe_load((place / "study.yaml").read_text("utf-8"))
    for key in ("learning_rate", "epochs", "batch_size", "adapter", "lora", "seeds", "method"):
        assert told["study"]["fine_tune"][key] == study["fine_tune"][key], key


def test_a_converted_study_trains(place: Path) -> None:
    save_small_model(place / "owner" / "base")
    text = AXOLOTL.replace("qlora", "lora").replace("load_in_4bit: true", "load_in_4bit: false")
    text = text.replace("wandb_project: mine\n", "").replace("num_epochs: 4", "num_epochs: 1")
    (place / "a.yml").write_text(text, "utf-8")
    tunewise("convert", "a.yml", cwd=place)
    study = load_study(place / "study.yaml").study
    assert study.metric.name != "exact_match"  # the rows' answers are labels
    run = tunewise("train", "study.yaml", "--json", cwd=place).json
    assert run["method"] == "sft"
    assert run["rows"]["test"] > 0
    assert run["steps"] >= 1


def test_methods_that_autotrain_lacks_are_told(place: Path) -> None:
    text = "name: x\nmodel: tunewise/tiny\nmetric: accuracy\ndata: {examples: rows.jsonl}\n"
    (place / "s.yaml").write_text(text + "fine_tune: {method: kto}\n", "utf-8")
    run = tunewise("convert", "s.yaml", "--back", "autotrain", cwd=place, code=2)
    assert "AutoTrain has no kto" in run.err


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["path", "type", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([n for n in CASES if n != "trl"]), st.data())
def test_any_values_are_understood_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    raw = yaml.safe_load(CASES[name][1])
    key = data.draw(st.sampled_from(sorted(raw)))
    raw[key] = data.draw(values)
    folder = tmp_path_factory.mktemp("any")
    (folder / "c.json").write_text(json.dumps(raw), "utf-8")
    try:
        made = convert(str(folder / "c.json"), name.split()[0], folder / "study.yaml")
    except TunewiseError as error:
        assert str(error)
    else:
        (folder / "study.yaml").write_text(made.text, "utf-8")
        load_study(folder / "study.yaml")
