"""A study as AutoTrain's YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewise.dialects.told import Told, Translation
from tunewise.errors import StudyError
from tunewise.study.schema import Study

_TASKS = {
    "sft": "llm-sft",
    "pretrain": "llm-generic",
    "dpo": "llm-dpo",
    "orpo": "llm-orpo",
    "reward": "llm-reward",
}


def autotrain_of(study: Study) -> tuple[dict[str, Any], Translation]:
    """AutoTrain's form of a study, and what of it has none there.

    Raises:
        StudyError: AutoTrain has no such method, or the study names no model or rows.
    """
    tuned, data = study.fine_tune, study.data
    task = _TASKS.get(tuned.method)
    if task is None:
        raise StudyError(
            f"AutoTrain has no {tuned.method}",
            where="fine_tune.method",
            hint=f"It has {', '.join(_TASKS)}.",
        )
    rows = data.examples or data.train or data.documents
    if study.model is None or rows is None:
        raise StudyError("it names no model or no rows", where=study.name)
    path, split = _split(rows)
    columns = _columns(study)
    params: dict[str, Any] = {
        "peft": tuned.adapter != "full",
        "quantization": "int4" if tuned.adapter == "qlora" else None,
        "mixed_precision": "bf16" if tuned.precision == "bfloat16" else None,
        "batch_size": tuned.batch_size or 8,
        "gradient_accumulation": 1,
        "epochs": max(1, round(tuned.epochs or 3)),
        "weight_decay": tuned.weight_decay,
        "warmup_ratio": tuned.warmup_ratio,
        "seed": (tuned.seeds or [0])[0],
    }
    rates = tuned.learning_rate
    rate = rates[len(rates) // 2] if isinstance(rates, list) else rates
    if rate is not None:
        params["lr"] = rate
    if tuned.max_length is not None:
        params |= {"model_max_length": tuned.max_length, "block_size": tuned.max_length}
    if tuned.adapter != "full":
        modules = tuned.lora.target_modules
        params |= {
            "lora_r": tuned.lora.rank,
            "lora_alpha": round(tuned.lora.alpha or 2 * tuned.lora.rank),
            "lora_dropout": tuned.lora.dropout,
            "target_modules": modules if isinstance(modules, str) else ",".join(modules),
        }
    if tuned.method in ("dpo", "orpo"):
        params["dpo_beta"] = getattr(tuned, tuned.method).beta
    config = {
        "task": task,
        "base_model": study.model,
        "project_name": study.name,
        "log": (tuned.report_to or ["none"])[0],
        "backend": "local",
        "data": {
            "path": path,
            "train_split": split,
            "valid_split": Path(data.dev).stem if data.dev else None,
            "chat_template": "tokenizer" if tuned.method != "pretrain" else None,
            "column_mapping": columns,
        },
        "params": params,
    }
    told = [
        Told(key, value, "no meaning here", "", "AutoTrain measures no baselines and no test")
        for key, value in (
            ("metric", study.metric.name),
            ("candidates", ", ".join(c.name for c in study.candidates or [])),
            ("prompt", study.prompt),
            ("data.test", data.test),
        )
        if value
    ]
    if rate is None:
        why = "left out: AutoTrain takes its default, 3e-5; here several are tried"
        told.append(Told("fine_tune.learning_rate", None, "defaulted", "params.lr", why))
    if isinstance(rates, list) and len(rates) > 1:
        why = "AutoTrain takes one"
        told.append(Told("fine_tune.learning_rate", rates, "mapped", f"params.lr: {rate:g}", why))
    return config, Translation("study", f"{study.name} as {task}", told)


def _split(rows: str) -> tuple[str, str]:
    if rows.startswith("hf://"):
        name, _, split = rows.removeprefix("hf://").rpartition(":")
        return (name, split) if name else (split, "train")
    path = Path(rows)
    return (str(path), "train") if path.is_dir() else (str(path.parent), path.stem)


def _columns(study: Study) -> dict[str, str]:
    columns = study.data.columns
    if study.fine_tune.method == "pretrain":
        return {"text_column": columns.text or "text"}
    if study.fine_tune.method == "sft":
        return {"text_column": columns.messages or "messages"}
    return {
        "prompt_text_column": columns.input or "prompt",
        "text_column": columns.output or "chosen",
        "rejected_text_column": columns.rejected or "rejected",
    }
