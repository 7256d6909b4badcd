"""Configurations of AutoTrain's, written for these tests: every task by every name it has."""

from __future__ import annotations

import itertools

from tunewise.dialects.autotrain.tasks import TASK_NAMES, Task

# What the second configuration of a task says beside the common part: (columns, params).
_MORE: dict[str, tuple[str, str]] = {
    "llm": (
        "text_column: chosen; rejected_text_column: rejected; prompt_text_column: prompt",
        "block_size: 1024; model_max_length: 2048; max_prompt_length: 512; padding: right; "
        "peft: true; quantization: int4; target_modules: all-linear; merge_adapter: true; "
        "lora_dropout: 0.1; unsloth: false",
    ),
    "text-classification": (
        "text_column: review; target_column: label",
        "max_seq_length: 256; early_stopping_patience: 3; early_stopping_threshold: 0.005",
    ),
    "text-regression": ("text_column: text; target_column: stars", "max_seq_length: 64"),
    "token-classification": ("tokens_column: words; tags_column: ner", "max_seq_length: 128"),
    "seq2seq": (
        "text_column: document; target_column: summary",
        "max_seq_length: 512; max_target_length: 64; peft: true; quantization: int8",
    ),
    "extractive-qa": (
        "text_column: context; question_column: question; answer_column: answers",
        "max_seq_length: 384; max_doc_stride: 96",
    ),
    "sentence-transformers": (
        "sentence1_column: anchor; sentence2_column: positive; sentence3_column: negative; "
        "target_column: score",
        "max_seq_length: 128",
    ),
    "image-classification": ("image_column: picture; target_column: label", "weight_decay: 0.01"),
    "image-regression": ("image_column: picture; target_column: score", "weight_decay: 0.02"),
    "object-detection": ("image_column: image; objects_column: objects", "image_square_size: 512"),
    "vlm": (
        "image_column: image; text_column: answer; prompt_text_column: question",
        "peft: true; quantization: int4; target_modules: all-linear; merge_adapter: false",
    ),
    "tabular": (
        "id_column: row; target_columns: [price]",
        "seed: 7; num_trials: 5; time_limit: 60; task: regression; numeric_scaler: standard",
    ),
}
_LEARNING = (
    "epochs: 2; batch_size: 4; lr: 2e-5; optimizer: adamw_torch; scheduler: cosine; "
    "gradient_accumulation: 2; mixed_precision: fp16"
)


def _lines(text: str, indent: int) -> str:
    return "".join(f"{' ' * indent}{part}\n" for part in text.split("; ") if part)


def _config(name: str, task: Task, number: int) -> str:
    """The ``number``-th way of writing a configuration of a task."""
    columns, params = _MORE[task.name]
    if task.name == "llm" and not name.endswith(("dpo", "orpo", "reward")):
        columns = "text_column: messages" if number % 2 else "text_column: text"
    if task.name != "tabular":
        params = f"{params}; {_LEARNING}"
    chat = ("", "  chat_template: null\n")[number % 2]
    if task.chat:
        chat = f"  chat_template: {('null', 'tokenizer', 'zephyr', 'chatml')[number % 4]}\n"
    backend = ("local", "local-cli", "spaces-a10g-small", "ep-aws-useast1-m")[number % 4]
    log = ("none", "tensorboard")[number % 2]
    split = ("null", "validation")[number % 2]
    hub = (
        "hub:\n  username: ${HF_USERNAME}\n  token: ${HF_TOKEN}\n  push_to_hub: "
        + ("true\n", "false\n")[number % 2]
        if number % 3
        else ""
    )
    return (
        f"# {task.label}\ntask: {name}\nbase_model: owner/base-{task.name}\n"
        f"project_name: project-{number}\nlog: {log}\nbackend: {backend}\n\n"
        f"data:\n  path: owner/rows\n  train_split: train\n  valid_split: {split}\n{chat}"
        f"  column_mapping:\n{_lines(columns, 4)}\nparams:\n{_lines(params, 2)}\n{hub}"
    )


def _configs() -> dict[str, str]:
    """Two ways for each name of each task."""
    counts: dict[str, itertools.count[int]] = {}
    found = {}
    for name, (task, _) in TASK_NAMES.items():
        for _ in range(2):
            number = next(counts.setdefault(task.name, itertools.count(1)))
            found[f"{task.name} {number}"] = _config(name, task, number)
    return found


CONFIGS = _configs()
