"""AutoTrain's tasks: their names, command line verbs, and each parameter's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """A task of AutoTrain's.

    Attributes:
        name: the plain one.
        label: in words.
        verb: of the command line; empty where it has none.
        names: all that a file may write, each with the ``trainer`` that it implies or None.
        defaults: of every parameter.
        chat: the file may have ``data.chat_template``.
    """

    name: str
    label: str
    verb: str
    names: Mapping[str, str | None]
    defaults: Mapping[str, Any]
    chat: bool = False


_ALL: dict[str, Any] = {
    "project_name": "project-name",
    "data_path": None,
    "train_split": "train",
    "valid_split": None,
    "push_to_hub": False,
    "username": None,
    "token": None,
}
_LEARNING: dict[str, Any] = {
    **_ALL,
    "lr": 5e-5,
    "epochs": 3,
    "batch_size": 8,
    "warmup_ratio": 0.1,
    "gradient_accumulation": 1,
    "optimizer": "adamw_torch",
    "scheduler": "linear",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "seed": 42,
    "log": "none",
    "logging_steps": -1,
    "eval_strategy": "epoch",
    "save_total_limit": 1,
    "auto_find_batch_size": False,
    "mixed_precision": None,
}
_STOPPING: dict[str, Any] = {"early_stopping_patience": 5, "early_stopping_threshold": 0.01}
_LORA: dict[str, Any] = {
    "peft": False,
    "quantization": "int4",
    "target_modules": "all-linear",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
}
_LARGE: dict[str, Any] = {
    **_LEARNING,
    **_LORA,
    "data_path": "data",
    "lr": 3e-5,
    "epochs": 1,
    "batch_size": 2,
    "gradient_accumulation": 4,
    "merge_adapter": False,
    "disable_gradient_checkpointing": False,
}
_TEXT: dict[str, Any] = {
    **_LEARNING,
    **_STOPPING,
    "model": "bert-base-uncased",
    "max_seq_length": 128,
}
_TEXT_TARGET: dict[str, Any] = {**_TEXT, "text_column": "text", "target_column": "target"}
_IMAGE: dict[str, Any] = {
    **_LEARNING,
    **_STOPPING,
    "model": "google/vit-base-patch16-224",
    "image_column": "image",
}


def _names(*names: str) -> dict[str, str | None]:
    """Each with dashes and with underscores."""
    both = (n for name in names for n in (name, name.replace("_", "-"), name.replace("-", "_")))
    return dict.fromkeys(both)


_SENTENCES = ("pair", "pair_class", "pair_score", "triplet", "qa")

TASKS: tuple[Task, ...] = (
    Task(
        "llm",
        "LLM fine-tuning",
        "llm",
        {
            "llm": None,
            **{f"llm-{t}": t for t in ("sft", "orpo", "generic", "dpo", "reward", "default")},
        },
        {
            **_LARGE,
            "model": "gpt2",
            "trainer": "default",
            "add_eos_token": True,
            "block_size": -1,
            "model_max_length": 2048,
            "padding": "right",
            "use_flash_attention_2": False,
            "chat_template": None,
            "model_ref": None,
            "dpo_beta": 0.1,
            "max_prompt_length": 128,
            "max_completion_length": None,
            "prompt_text_column": None,
            "text_column": "text",
            "rejected_text_column": None,
            "unsloth": False,
            "distributed_backend": None,
        },
        chat=True,
    ),
    Task(
        "text-classification",
        "text classification",
        "text-classification",
        _names("text_classification", "text_binary_classification"),
        _TEXT_TARGET,
    ),
    Task(
        "text-regression",
        "text regression",
        "text-regression",
        _names("text_regression", "text_single_column_regression"),
        _TEXT_TARGET,
    ),
    Task(
        "token-classification",
        "token classification",
        "token-classification",
        _names("token_classification", "text_token_classification"),
        {**_TEXT, "tokens_column": "tokens", "tags_column": "tags"},
    ),
    Task(
        "seq2seq",
        "text to text (seq2seq)",
        "seq2seq",
        _names("seq2seq"),
        {
            **_LEARNING,
            **_STOPPING,
            **_LORA,
            "quantization": "int8",
            "model": "google/flan-t5-base",
            "batch_size": 2,
            "max_seq_length": 128,
            "max_target_length": 128,
            "text_column": "text",
            "target_column": "target",
        },
    ),
    Task(
        "extractive-qa",
        "extractive question answering",
        "extractive-qa",
        _names("extractive_qa", "ext_qa", "extractive_question_answering"),
        {
            **_TEXT,
            "max_doc_stride": 128,
            "text_column": "context",
            "question_column": "question",
            "answer_column": "answers",
        },
    ),
    Task(
        "sentence-transformers",
        "sentence embeddings",
        "sentence-transformers",
        {
            **_names("st", "sentence_transformers"),
            **{
                f"{prefix}:{kind}": kind
                for prefix in ("st", "sentence-transformers", "sentence_transformers")
                for kind in _SENTENCES
            },
        },
        {
            **_TEXT,
            "model": "microsoft/mpnet-base",
            "lr": 3e-5,
            "trainer": "pair_score",
            "sentence1_column": "sentence1",
            "sentence2_column": "sentence2",
            "sentence3_column": None,
            "target_column": None,
        },
    ),
    Task(
        "image-classification",
        "image classification",
        "image-classification",
        _names(
            "image_classification",
            "image_binary_classification",
            "image_multi_class_classification",
        ),
        {**_IMAGE, "target_column": "target"},
    ),
    Task(
        "image-regression",
        "image regression",
        "image-regression",
        _names("image_regression", "image_single_column_regression", "image_scoring"),
        {**_IMAGE, "target_column": "target"},
    ),
    Task(
        "object-detection",
        "object detection",
        "object-detection",
        _names("object_detection", "image_object_detection"),
        {**_IMAGE, "objects_column": "objects", "image_square_size": 600},
    ),
    Task(
        "vlm",
        "vision-language fine-tuning",
        "",
        {"vlm": None, "vlm:captioning": "captioning", "vlm:vqa": "vqa"},
        {
            **_LARGE,
            "model": "google/paligemma-3b-pt-224",
            "trainer": "vqa",
            "image_column": "image",
            "text_column": "text",
            "prompt_text_column": "prompt",
        },
    ),
    Task(
        "tabular",
        "classification or regression on a table",
        "tabular",
        {
            "tabular": None,
            **{f"tabular{mark}{t}": t for mark in ":-" for t in ("classification", "regression")},
        },
        {
            **_ALL,
            "model": "xgboost",
            "seed": 42,
            "log": "none",
            "id_column": "id",
            "target_columns": ["target"],
            "categorical_columns": None,
            "numerical_columns": None,
            "task": "classification",
            "num_trials": 10,
            "time_limit": 600,
            "categorical_imputer": None,
            "numerical_imputer": None,
            "numeric_scaler": None,
        },
    ),
)
"""Tasks of a file or a verb. ``spacerunner`` (a program on a Space) is a verb alone."""

TASK_NAMES: Mapping[str, tuple[Task, str | None]] = {
    name: (task, trainer) for task in TASKS for name, trainer in task.names.items()
}
VERBS: Mapping[str, Task] = {task.verb or task.name: task for task in TASKS}

LLM_METHODS: Mapping[str, str] = {
    "default": "pretrain",
    "generic": "pretrain",
    "sft": "sft",
    "dpo": "dpo",
    "orpo": "orpo",
    "reward": "reward",
}
"""The language models' trainers, each with our method."""

LOCAL_BACKENDS = ("local", "local-cli", "local-ui")
_SPACES = (
    "a10g-large a10g-small a100-large t4-medium t4-small cpu-upgrade cpu-basic l4x1 l4x4 l40sx1 "
    "l40sx4 l40sx8 a10g-largex2 a10g-largex4"
)
BACKENDS: tuple[str, ...] = (
    *LOCAL_BACKENDS,
    *(f"spaces-{name}" for name in _SPACES.split()),
    *(f"ep-aws-useast1-{size}" for size in ("s", "m", "l", "xl", "2xl", "4xl", "8xl")),
)
CLOUDS: Mapping[str, str] = {
    "spaces-": "Hugging Face Spaces",
    "ep-": "Hugging Face Inference Endpoints",
    "ngc-": "NVIDIA NGC",
    "nvcf-": "NVIDIA Cloud Functions",
}
"""Back ends that are not this machine, by how their names begin."""
