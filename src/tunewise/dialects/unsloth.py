"""Unsloth's YAML: the sections of its command, or a notebook's arguments."""

from __future__ import annotations

from tunewise.dialects.rules import (
    LEFT_OUT,
    SHARED,
    Dialect,
    Reading,
    Rule,
    adapter,
    batch,
    data_place,
    modules,
    need,
)


def _unsloth(reading: Reading) -> None:
    model = need(reading, "model_name", "model")
    name = "model_name" if reading.get("model_name") is not None else "model"
    reading.put(name, "model", data_place(reading, model))
    kind = reading.get("training_type")
    full = kind == "full" or reading.get("full_finetuning") is True
    adapter(reading, "training_type", on=not full, four_bits="load_in_4bit")
    reading.drop("full_finetuning", "see fine_tune.adapter")
    rows = "batch_size" if reading.get("batch_size") is not None else "per_device_train_batch_size"
    batch(reading, rows)
    name = "local_dataset" if reading.get("local_dataset") else "dataset"
    rows_at = reading.get("local_dataset") or reading.get("dataset", "dataset_name")
    if isinstance(rows_at, list):
        if len(rows_at) > 1:
            reading.notes.append("a study reads one data set: the first is taken")
        rows_at = rows_at[0] if rows_at else None
    if rows_at is None:
        reading.notes.append("no rows are named: set `data.train`")
        reading.keys["data.train"] = ("dataset", "rows.jsonl")
    else:
        reading.put(name, "data.train", data_place(reading, rows_at))
    if reading.get("format_type") == "raw":
        reading.put("format_type", "fine_tune.method", "pretrain")
    reading.drop("format_type", "the rows' format is seen by their columns")
    if reading.get("train_on_completions") is False:
        reading.put("train_on_completions", "fine_tune.trained_rows", "all")
    reading.drop("train_on_completions", "answers alone are learnt in any case")


UNSLOTH = Dialect(
    "unsloth",
    "Unsloth",
    frozenset(
        [
            "training_type",
            "load_in_4bit",
            "local_dataset",
            "format_type",
            "train_on_completions",
            "random_state",
            "use_gradient_checkpointing",
            "vision_all_linear",
            "use_loftq",
            "loftq_config",
            "random_seed",
            "full_finetuning",
        ]
    ),
    {
        **SHARED,
        "r": Rule("fine_tune.lora.rank"),
        "dropout": Rule("fine_tune.lora.dropout"),
        "target_modules": Rule("fine_tune.lora.target_modules", "", modules),
        "max_seq_length": Rule("fine_tune.max_length", "longer rows are left out and counted"),
        "random_seed": Rule("fine_tune.seeds", "", lambda v: [int(v)]),
        "random_state": Rule("fine_tune.seeds", "", lambda v: [int(v)]),
        "dataset_text_field": Rule("", "the rows' format is seen by their columns"),
        "bias": Rule("", "biases are not trained"),
        "load_in_8bit": Rule("", "the base is held in 16 bits, or in 4"),
        "token": Rule("", "the hub's own environment variable is read, HF_TOKEN"),
        "vision_all_linear": Rule("", "texts alone are trained"),
        **dict.fromkeys(("use_loftq", "loftq_config"), Rule("", "LoftQ has no counterpart")),
        "use_gradient_checkpointing": Rule("", "activations are computed again where needed"),
        "enable_wandb": Rule(
            "fine_tune.report_to", "", lambda v: ["wandb"] if v is True else LEFT_OUT
        ),
        "enable_tensorboard": Rule(
            "fine_tune.report_to", "", lambda v: ["tensorboard"] if v is True else LEFT_OUT
        ),
    },
    {
        "training_type": "lora",
        "learning_rate": 2e-4,
        "num_epochs": 3,
        "batch_size": 2,
        "gradient_accumulation_steps": 4,
        "weight_decay": 0.01,
        "random_seed": 3407,
        "output_dir": "outputs",
    },
    _unsloth,
)
