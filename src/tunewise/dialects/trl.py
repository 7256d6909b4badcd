"""The arguments of TRL's scripts: YAML, or a command line."""

from __future__ import annotations

from pathlib import Path

from tunewise.dialects.rules import (
    LEFT_OUT,
    SHARED,
    Dialect,
    Reading,
    Rule,
    adapter,
    batch,
    data_place,
    need,
)

_TRL_BETAS = ("dpo", "orpo", "kto")


def _trl(reading: Reading) -> None:
    reading.put(
        "model_name_or_path", "model", data_place(reading, need(reading, "model_name_or_path"))
    )
    method = str(reading.get("trainer"))
    reading.put("trainer", "fine_tune.method", method, "of `trl METHOD`, or --from trl:METHOD")
    on = reading.get("use_peft") is True
    adapter(reading, "use_peft", on=on, four_bits="load_in_4bit")
    batch(reading, "per_device_train_batch_size")
    place = data_place(reading, need(reading, "dataset_name"))
    split = reading.get("dataset_train_split")
    if not Path(place).exists():
        config = reading.get("dataset_config")
        place = f"hf://{place}{'/' + str(config) if config else ''}:{split}"
    reading.put("dataset_name", "data.train", place)
    for name in ("dataset_train_split", "dataset_config"):
        reading.drop(name, "within data.train")
    if reading.get("beta") is not None and method in _TRL_BETAS:
        reading.put("beta", f"fine_tune.{method}.beta", reading.get("beta"))
    if reading.get("loss_type") in ("ipo", "sigmoid") and method == "dpo":
        reading.put("loss_type", "fine_tune.dpo.loss_type", reading.get("loss_type"))
    if reading.get("assistant_only_loss") is True:
        reading.put("assistant_only_loss", "fine_tune.trained_rows", "all_assistant")
    elif reading.get("completion_only_loss") is False:
        reading.put("completion_only_loss", "fine_tune.trained_rows", "all")


TRL = Dialect(
    "trl",
    "TRL",
    frozenset(
        [
            "dataset_name",
            "dataset_train_split",
            "dataset_test_split",
            "dataset_config",
            "use_peft",
            "assistant_only_loss",
            "completion_only_loss",
            "lora_target_modules",
            "lora_task_type",
            "trainer",
        ]
    ),
    {
        **SHARED,
        "max_length": Rule("fine_tune.max_length", "longer rows are left out and counted, not cut"),
        "max_seq_length": Rule("fine_tune.max_length", "longer rows are left out, not cut"),
        "max_prompt_length": Rule("", "prompts are never cut"),
        "max_completion_length": Rule("fine_tune.grpo.max_tokens"),
        "num_generations": Rule("fine_tune.grpo.samples"),
        "desirable_weight": Rule("fine_tune.kto.desirable_weight"),
        "undesirable_weight": Rule("fine_tune.kto.undesirable_weight"),
        "label_smoothing": Rule("fine_tune.dpo.label_smoothing"),
        "dataset_text_field": Rule(
            "data.columns.text", "", lambda v: LEFT_OUT if v == "text" else v
        ),
        "dataset_test_split": Rule("", "a study cuts dev and test itself (data.split)"),
        "model_revision": Rule("", "write it behind the model: owner/name@revision"),
        "load_in_8bit": Rule("", "the base is held in 16 bits, or in 4 (`load_in_4bit`)"),
        "lora_task_type": Rule("", "the method says it"),
        "lora_modules_to_save": Rule("", "the adapter alone is trained"),
        "completion_only_loss": Rule("", "answers alone are learnt in any case"),
        "assistant_only_loss": Rule("", "answers alone are learnt in any case"),
    },
    {
        "trainer": "sft",
        "learning_rate": 2e-5,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "dataset_train_split": "train",
        "use_peft": False,
        "output_dir": "trl-output",
    },
    _trl,
)
