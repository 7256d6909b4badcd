"""Axolotl's YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewise.dialects.rules import (
    SHARED,
    Dialect,
    Reading,
    Rule,
    adapter,
    batch,
    data_place,
    missing,
)


def _axolotl(reading: Reading) -> None:
    reading.put("base_model", "model", data_place(reading, reading.get("base_model")))
    named = reading.get("adapter")
    adapter(reading, "adapter", on=named not in (None, ""), four_bits="load_in_4bit")
    if named == "qlora":
        reading.keys["fine_tune.adapter"] = ("adapter", "qlora")
    batch(reading, "micro_batch_size")
    if reading.get("lora_target_linear"):
        reading.put("lora_target_linear", "fine_tune.lora.target_modules", "all-linear")
    method = {"ipo": "dpo", None: "sft"}.get(reading.get("rl"), reading.get("rl"))
    if reading.get("rl"):
        reading.put("rl", "fine_tune.method", method)
    if reading.get("rl") == "ipo":
        reading.keys["fine_tune.dpo.loss_type"] = ("rl", "ipo")
    for name in ("rl_beta", "dpo_beta"):
        if reading.get(name) is not None and method in ("dpo", "orpo", "kto"):
            reading.put(name, f"fine_tune.{method}.beta", reading.get(name))
    sets = reading.get("datasets", "pretraining_dataset")
    sets = sets if isinstance(sets, list) else [sets]
    first: Any = sets[0] if sets else None
    if isinstance(first, str):
        first = {"path": first}
    if not isinstance(first, dict) or not isinstance(first.get("path"), str):
        raise missing(reading, "datasets", "`datasets: [{path: rows.jsonl, type: …}]`")
    name = "datasets" if reading.get("datasets") is not None else "pretraining_dataset"
    place = data_place(reading, first.get("data_files") or first["path"])
    if not Path(place).exists() and first.get("split"):
        place = f"hf://{place.removeprefix('hf://')}:{first['split']}"
    reading.put(name, "data.train", place)
    if len(sets) > 1:
        reading.notes.append(
            f"{len(sets)} data sets are named and a study reads one: put their files into one "
            "folder. The first is taken"
        )
    kind = str(first.get("type") or "")
    if name == "pretraining_dataset" or kind.startswith("completion"):
        reading.keys["fine_tune.method"] = (name, "pretrain")
        reading.keys["data.columns.text"] = (name, str(first.get("field") or "text"))
    elif isinstance(first.get("field_messages"), str):
        reading.keys["data.columns.messages"] = (name, first["field_messages"])
    tests = reading.get("test_datasets")
    if isinstance(tests, list) and tests and isinstance(tests[0], dict) and "path" in tests[0]:
        reading.put("test_datasets", "data.dev", data_place(reading, tests[0]["path"]))
    if reading.get("wandb_project"):
        reading.put("wandb_project", "fine_tune.report_to", ["wandb"], "set WANDB_PROJECT for it")


AXOLOTL = Dialect(
    "axolotl",
    "Axolotl",
    frozenset(
        [
            "datasets",
            "micro_batch_size",
            "sequence_len",
            "sample_packing",
            "val_set_size",
            "lora_target_linear",
            "pad_to_sequence_len",
            "evals_per_epoch",
            "rl",
            "lora_model_dir",
        ]
    ),
    {
        **SHARED,
        "sequence_len": Rule("fine_tune.max_length", "longer rows are left out and counted"),
        "load_in_8bit": Rule("", "the base is held in 16 bits, or in 4 (`load_in_4bit`)"),
        "peft_use_rslora": Rule("fine_tune.lora.rslora"),
        "peft_use_dora": Rule("fine_tune.lora.dora"),
        "orpo_alpha": Rule("fine_tune.orpo.beta"),
        "train_on_inputs": Rule(
            "fine_tune.trained_rows", "", lambda v: "all" if v else "all_assistant"
        ),
        "val_set_size": Rule("", "a study cuts dev and test itself (data.split)"),
        "strict": Rule("", "every key is told here"),
        "wandb_entity": Rule("", "set WANDB_ENTITY in the environment"),
        "wandb_watch": Rule("", "gradients are not sent"),
        "wandb_name": Rule("", "a run is called as its study"),
        "wandb_log_model": Rule("", "models are not sent"),
        "lora_model_dir": Rule("", "a study begins with the base model"),
        "lora_modules_to_save": Rule("", "the adapter alone is trained"),
        "lora_fan_in_fan_out": Rule("", "the layers' own order is known"),
        "local_rank": Rule("", "training runs on one device"),
        "early_stopping_patience": Rule("", "the weights of the best look at dev are kept"),
    },
    {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 1},
    _axolotl,
)
