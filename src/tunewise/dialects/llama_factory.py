"""LLaMA-Factory's YAML or command line, with `dataset_info.json` beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    modules,
    need,
)
from tunewise.errors import StudyError

_STAGES = {"sft": "sft", "pt": "pretrain", "dpo": "dpo", "kto": "kto", "rm": "reward"}


def _llama_factory(reading: Reading) -> None:
    reading.put(
        "model_name_or_path", "model", data_place(reading, need(reading, "model_name_or_path"))
    )
    stage = str(reading.get("stage"))
    method = _STAGES.get(stage)
    if method is None:
        reading.notes.append(f"`stage: {stage}` has no counterpart here; grpo learns from rewards")
    if reading.get("pref_loss") == "orpo":
        method = "orpo"
        reading.drop("pref_loss", "fine_tune.method: orpo")
    elif reading.get("pref_loss") == "ipo":
        reading.put("pref_loss", "fine_tune.dpo.loss_type", "ipo")
    elif reading.get("pref_loss") not in (None, "sigmoid"):
        reading.notes.append(f"`pref_loss: {reading.get('pref_loss')}` has no counterpart here")
    reading.put("stage", "fine_tune.method", method or "sft")
    if reading.get("pref_beta") is not None and method in ("dpo", "orpo", "kto"):
        reading.put("pref_beta", f"fine_tune.{method}.beta", reading.get("pref_beta"))
    kind = str(reading.get("finetuning_type"))
    if kind not in ("lora", "full"):
        reading.notes.append(
            f"`finetuning_type: {kind}` has no counterpart here: all weights learn"
        )
    adapter(reading, "finetuning_type", on=kind == "lora", four_bits="quantization_bit")
    batch(reading, "per_device_train_batch_size")
    if "fine_tune.method" not in reading.keys or method == "sft":
        whole = reading.get("train_on_prompt")
        if whole is not None:
            reading.put(
                "train_on_prompt", "fine_tune.trained_rows", "all" if whole else "all_assistant"
            )
    names = reading.get("dataset")
    several = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names or ())
    if not several:
        raise missing(reading, "dataset", "`dataset: my_rows`, as dataset_info.json calls it")
    if len(several) > 1:
        reading.notes.append(
            f"{len(several)} data sets are named and a study reads one: put their files into one "
            "folder. The first is taken"
        )
    _described(reading, str(several[0]), "dataset", "data.train")
    if isinstance(reading.get("eval_dataset"), str):
        _described(reading, reading.get("eval_dataset"), "eval_dataset", "data.dev")


def _described(reading: Reading, name: str, key: str, ours: str) -> None:
    """A data set as ``dataset_info.json`` describes it."""
    folder = reading.get("dataset_dir")
    reading.drop("dataset_dir", "where dataset_info.json lies")
    places = [Path(data_place(reading, folder or "data")), reading.source.folder or Path.cwd()]
    info = next(
        (p / "dataset_info.json" for p in places if (p / "dataset_info.json").is_file()), None
    )
    if info is None:
        found = data_place(reading, name)
        if not Path(found).exists():
            reading.notes.append(f"`{name}` is described in dataset_info.json, which is not here")
        reading.put(key, ours, found)
        return
    try:
        entry: Any = json.loads(info.read_text("utf-8")).get(name)
    except (ValueError, AttributeError, RecursionError) as error:
        raise StudyError(f"not readable as JSON: {error}", where=str(info)) from None
    if not isinstance(entry, dict):
        raise StudyError(
            f"it describes no data set {name!r}", where=str(info), hint=f"`{key}` names it."
        )
    place = str(entry.get("file_name") or "")
    if place:
        place = str((info.parent / place).absolute())
    else:
        place = f"hf://{entry.get('hf_hub_url', name)}:{entry.get('split', 'train')}"
    reading.put(key, ours, place, f"as {info.name} says")
    columns = entry.get("columns")
    if isinstance(columns, dict) and ours == "data.train":
        _columns(reading, key, columns)


_THEIRS = {"messages": "messages", "system": "system", "rejected": "rejected"}
_USUAL = {
    "messages": ("conversations", "messages"),
    "system": ("system",),
    "rejected": ("rejected",),
}


def _columns(reading: Reading, key: str, columns: Mapping[str, Any]) -> None:
    for theirs, ours in _THEIRS.items():
        if isinstance(columns.get(theirs), str) and columns[theirs] not in _USUAL[theirs]:
            reading.keys[f"data.columns.{ours}"] = (key, columns[theirs])
    asked, answer = columns.get("prompt"), columns.get("chosen") or columns.get("response")
    if reading.keys["fine_tune.method"][1] == "pretrain" and isinstance(asked, str):
        reading.keys["data.columns.text"] = (key, asked)
    elif isinstance(asked, str) and (asked, columns.get("query")) != ("instruction", "input"):
        if columns.get("query"):
            reading.notes.append("prompt and query are two columns of other names: join them")
        reading.keys["data.columns.input"] = (key, asked)
        if isinstance(answer, str):
            reading.keys["data.columns.output"] = (key, answer)


LLAMA_FACTORY = Dialect(
    "llama-factory",
    "LLaMA-Factory",
    frozenset(
        [
            "stage",
            "finetuning_type",
            "cutoff_len",
            "template",
            "dataset_dir",
            "lora_target",
            "lora_rank",
            "pref_beta",
            "quantization_bit",
            "preprocessing_num_workers",
            "dataset",
        ]
    ),
    {
        **SHARED,
        "cutoff_len": Rule("fine_tune.max_length", "longer rows are left out and counted, not cut"),
        "lora_target": Rule("fine_tune.lora.target_modules", "", modules),
        "max_samples": Rule("data.max_rows"),
        "val_size": Rule("", "a study cuts dev and test itself (data.split)"),
        "mask_history": Rule(
            "fine_tune.trained_rows", "", lambda v: "answers" if v else "all_assistant"
        ),
        "quantization_method": Rule("", "4 bits are bitsandbytes' own"),
        "adapter_name_or_path": Rule("", "a study begins with the base model"),
    },
    {
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "finetuning_type": "lora",
        "stage": "sft",
        "lora_rank": 8,
        "lora_target": "all",
        "cutoff_len": 2048,
    },
    _llama_factory,
)
