"""AutoTrain's parameters in one table: what each is, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["int", "float", "bool", "text", "texts"]
"""``texts``: one text or a list of texts."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of AutoTrain's.

    Attributes:
        kind: of its value.
        means: what it is, for ``--help``.
        ours: our key; empty where it has none.
        why: what there is to say about the mapping, or why there is none.
        choices: all values that it takes; empty for any.
        null: null is a value.
    """

    kind: Kind
    means: str
    ours: str = ""
    why: str = ""
    choices: tuple[str, ...] = ()
    null: bool = False


def _column(means: str, ours: str = "", *, null: bool = False) -> Parameter:
    return Parameter("text", f"column with {means}", ours, null=null)


P = Parameter
PARAMETERS: Mapping[str, Parameter] = {
    # Where from and where to.
    "model": P("text", "what is tuned: a hub id or a folder", "model"),
    "project_name": P("text", "folder that the result is written to", "name"),
    "data_path": P(
        "text", "folder with a file for each split, or a hub data set", "data", null=True
    ),
    "train_split": P("text", "split, or name of the file, to learn from", "data.train"),
    "valid_split": P(
        "text",
        "split, or name of the file, to choose on",
        "data.dev",
        "without it all rows are learnt from",
        null=True,
    ),
    "log": P("text", "experiment tracker", "fine_tune.report_to"),
    "push_to_hub": P("bool", "upload the result", "", "the folder goes to the hub afterwards"),
    "username": P("text", "owner on the hub", "", "names the repository on the hub", null=True),
    "token": P("text", "key of the hub", "", "used for the hub, written nowhere", null=True),
    # Columns.
    "text_column": _column("the text, the conversation or the wanted answer", "data.columns"),
    "prompt_text_column": _column("the prompt", "data.columns.input", null=True),
    "rejected_text_column": _column(
        "the answer that is not wanted", "data.columns.rejected", null=True
    ),
    "target_column": _column("what is predicted", "data.columns.output", null=True),
    "question_column": _column("the question", "data.columns.input"),
    "answer_column": _column("the answers", "data.columns.references"),
    "tokens_column": _column("the words, as a list"),
    "tags_column": _column("the tags, one a word"),
    "sentence1_column": _column("the first sentence"),
    "sentence2_column": _column("the second sentence"),
    "sentence3_column": _column("the third sentence", null=True),
    "image_column": _column("the image"),
    "objects_column": _column("boxes and their categories"),
    "id_column": _column("the row's id", "data.columns.id", null=True),
    "target_columns": P("texts", "columns that are predicted"),
    "categorical_columns": P("texts", "columns with categories", null=True),
    "numerical_columns": P("texts", "columns with numbers", null=True),
    # How it learns.
    "trainer": P("text", "method", "fine_tune.method"),
    "lr": P("float", "learning rate", "fine_tune.learning_rate"),
    "epochs": P("int", "passes over the rows", "fine_tune.epochs"),
    "batch_size": P(
        "int",
        "rows of a pass",
        "fine_tune.batch_size",
        "rows of an optimiser step: batch_size × gradient_accumulation",
    ),
    "gradient_accumulation": P(
        "int", "passes of an optimiser step", "fine_tune.batch_size", "see batch_size"
    ),
    "warmup_ratio": P("float", "share of the steps that warm up", "fine_tune.warmup_ratio"),
    "weight_decay": P("float", "weight decay", "fine_tune.weight_decay"),
    "seed": P("int", "random seed", "fine_tune.seeds"),
    "optimizer": P(
        "text", "optimiser", "", "the trainer has AdamW; adapters leave little to page or compress"
    ),
    "scheduler": P(
        "text",
        "learning rate schedule",
        "",
        "the trainer has one: linear warm-up, then half a cosine down to a tenth",
    ),
    "max_grad_norm": P(
        "float", "limit of the gradient's norm", "", "the trainer clips at 1, as by default there"
    ),
    "mixed_precision": P(
        "text", "16-bit arithmetic", "fine_tune.precision", choices=("fp16", "bf16"), null=True
    ),
    "auto_find_batch_size": P(
        "bool",
        "halve the batch until it fits",
        "",
        "passes are cut to the memory that is there, whatever the batch",
    ),
    "disable_gradient_checkpointing": P(
        "bool", "keep all activations", "fine_tune.recompute", "by default where memory needs it"
    ),
    "early_stopping_patience": P(
        "int", "looks without gain before it stops", "", "the weights of the best look are kept"
    ),
    "early_stopping_threshold": P(
        "float", "gain that counts as one", "", "the weights of the best look are kept"
    ),
    "eval_strategy": P(
        "text", "when dev is looked at", "", "dev is looked at after each epoch, where there is one"
    ),
    "logging_steps": P("int", "steps between two lines of the log", "", "every step is logged"),
    "save_total_limit": P(
        "int", "checkpoints that are kept", "", "a run keeps what it needs to go on, and the best"
    ),
    "use_flash_attention_2": P(
        "bool", "use FlashAttention 2", "", "the fastest attention that the machine has is taken"
    ),
    "distributed_backend": P(
        "text",
        "how several GPUs share the work",
        "",
        "training runs on one device",
        ("ddp", "deepspeed"),
        null=True,
    ),
    "unsloth": P("bool", "train with Unsloth", "", "the trainer has fused layers of its own"),
    # Language models.
    "chat_template": P(
        "text",
        "how conversations are written",
        "",
        "conversations are written by the model's own chat template",
        null=True,
    ),
    "add_eos_token": P("bool", "end each text with a mark", "", "the end mark is always learnt"),
    "block_size": P(
        "int",
        "length that texts are cut to",
        "fine_tune.max_length",
        "continued pretraining alone cuts its texts; other rows stay whole",
    ),
    "model_max_length": P(
        "int",
        "longest row in tokens",
        "fine_tune.max_length",
        "longer rows are left out and counted, not cut",
    ),
    "max_seq_length": P("int", "longest row in tokens", "fine_tune.max_length"),
    "max_prompt_length": P(
        "int", "longest prompt in tokens", "", "prompts are never cut; max_length limits the row"
    ),
    "max_completion_length": P(
        "int",
        "longest answer in tokens",
        "",
        "answers are never cut; max_length limits the row",
        null=True,
    ),
    "max_target_length": P("int", "longest target in tokens", "", "targets are never cut"),
    "max_doc_stride": P("int", "overlap of a long context's windows"),
    "padding": P(
        "text",
        "side that is padded",
        "",
        "rows lie one after the other in flat batches: nothing is padded",
        ("left", "right"),
        null=True,
    ),
    "peft": P("bool", "train an adapter, not all weights", "fine_tune.adapter"),
    "quantization": P(
        "text",
        "bits of the base under an adapter",
        "fine_tune.adapter",
        choices=("int4", "int8"),
        null=True,
    ),
    "target_modules": P("texts", "layers with an adapter", "fine_tune.lora.target_modules"),
    "lora_r": P("int", "rank of the adapter", "fine_tune.lora.rank"),
    "lora_alpha": P("int", "scale of the adapter", "fine_tune.lora.alpha"),
    "lora_dropout": P("float", "dropout in the adapter", "fine_tune.lora.dropout"),
    "merge_adapter": P("bool", "write a whole model", "", "the adapter is merged afterwards"),
    "model_ref": P(
        "text",
        "DPO's reference model",
        "",
        "the reference is the model that training begins with",
        null=True,
    ),
    "dpo_beta": P("float", "closeness to the reference", "fine_tune.dpo.beta"),
    # Images and tables.
    "image_square_size": P("int", "edge that images are scaled to"),
    "task": P("text", "classification or regression", choices=("classification", "regression")),
    "num_trials": P("int", "trials of the search"),
    "time_limit": P("int", "seconds of the search"),
    "categorical_imputer": P("text", "what fills gaps among categories", null=True),
    "numerical_imputer": P("text", "what fills gaps among numbers", null=True),
    "numeric_scaler": P("text", "how numbers are scaled", null=True),
    # Programs of one's own on a Space.
    "script_path": P("text", "folder with the program", null=True),
    "env": P("text", "environment of the program", null=True),
    "args": P("text", "arguments of the program", null=True),
}

FLAG_ALIASES: Mapping[str, str] = {
    "base_model": "model",
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "lr_scheduler_type": "scheduler",
    "optim": "optimizer",
    "optimiser": "optimizer",
    "merge_lora": "merge_adapter",
    "use_peft": "peft",
    "beta": "dpo_beta",
    "max_length": "model_max_length",
    "lora_rank": "lora_r",
    "report_to": "log",
}
"""Names that users of other tools write; flags take them, a YAML file is told the right one."""
