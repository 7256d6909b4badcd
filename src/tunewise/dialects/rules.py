"""Tables that say what another tool's keys are here, and the one reader of such tables."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewise.dialects.sources import Source
from tunewise.dialects.told import SECRETS, Told, Translation, shown, told_twice
from tunewise.errors import StudyError
from tunewise.study.loading import LoadedStudy, study_from
from tunewise.study.yaml_source import KeyPath

LEFT_OUT = object()
"""What a rule's ``value`` returns where the key says nothing for us."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key is here.

    Attributes:
        ours: our key; empty where it has none.
        why: what there is to say, or why there is none.
        value: its value in our words; ``LEFT_OUT`` for none.
    """

    ours: str = ""
    why: str = ""
    value: Callable[[Any], Any] | None = None


@dataclass
class Reading:
    """A configuration while it is read.

    Attributes:
        source: the file.
        values: of its keys, dotted, and of the defaults.
        lines: of its keys.
        told: a row for each key so far.
        keys: our keys, each with the other's that gave it.
        notes: what a person must do before it runs.
    """

    source: Source
    values: dict[str, Any]
    lines: Mapping[str, int | None]
    told: list[Told] = field(default_factory=list)
    keys: dict[str, tuple[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def get(self, *names: str) -> Any:
        """The first of the keys that is given, by its name or its last part; else None."""
        for name in names:
            for key, value in self.values.items():
                if key == name or key.rpartition(".")[2] == name:
                    return value
        return None

    def key_of(self, name: str) -> str:
        return next((k for k in self.values if name in (k, k.rpartition(".")[2])), name)

    def put(self, name: str, ours: str, value: Any, why: str = "") -> None:
        """Map a key of theirs to one of ours."""
        key = self.key_of(name)
        self.done.add(key)
        self.keys[ours] = (key, value)
        theirs = self.values.get(key)
        text = ours if value == theirs else f"{ours}: {value}"
        self._tell(key, theirs, "mapped" if key in self.lines else "defaulted", text, why)

    def drop(self, name: str, why: str) -> None:
        """Tell why a key has no meaning here."""
        key = self.key_of(name)
        if key in self.values and key not in self.done:
            self.done.add(key)
            self._tell(key, self.values[key], "no meaning here", "", why)

    def _tell(self, key: str, value: Any, state: Any, ours: str, why: str) -> None:
        self.told.append(Told(key, shown(key, value), state, ours, why, self.lines.get(key)))


@dataclass(frozen=True)
class Dialect:
    """Another tool's configuration.

    Attributes:
        name: as ``--from`` takes it.
        label: in words.
        signs: keys (by their last part) that tell it from the others.
        rules: by key, or by its last part.
        defaults: of the tool, where its files are silent.
        special: maps what takes more than one key; rules do the rest.
    """

    name: str
    label: str
    signs: frozenset[str]
    rules: Mapping[str, Rule]
    defaults: Mapping[str, Any]
    special: Callable[[Reading], None]


def read(dialect: Dialect, source: Source) -> tuple[Translation, LoadedStudy]:
    """A configuration as a study, checked, with a row for each of its keys.

    Raises:
        StudyError: a value cannot be meant; with its line and key.
    """
    flat = dict(_flat(source.value, ()))
    lines = {_dotted(path): source.lines.get(path) for path in flat}
    values = {**{_dotted(path): value for path, value in flat.items()}}
    last = {key.rpartition(".")[2] for key in values}
    values |= {k: v for k, v in dialect.defaults.items() if k not in last}
    reading = Reading(source, values, lines)
    dialect.special(reading)
    for key, value in values.items():
        if key not in reading.done:
            _by_rule(dialect, reading, key, value)
    reading.told += told_twice(source.repeated)
    method = reading.keys.get("fine_tune.method", ("", "sft"))[1]
    flags = {
        _where(source, reading, theirs, ours): (ours, value)
        for ours, (theirs, value) in reading.keys.items()
    }
    name = project(Path(source.name).stem)
    raw: dict[str, Any] = {"name": name, "metric": "exact_match", "data": {}, "fine_tune": {}}
    loaded = study_from(raw, Path.cwd(), source.name, flags=flags)
    return (
        Translation(dialect.name, f"{dialect.label} ({method})", reading.told, loaded.raw,
                    reading.notes),
        loaded,
    )  # fmt: skip


def _where(source: Source, reading: Reading, theirs: str, ours: str) -> str:
    line = reading.lines.get(theirs)
    place = f"{source.name}:{line}" if line else source.name
    # One key of theirs may give two of ours, and each needs a name of its own.
    return f"{place}: {theirs}" + (f" → {ours}" if _shared(reading, theirs) else "")


def _shared(reading: Reading, theirs: str) -> bool:
    return sum(key == theirs for key, _ in reading.keys.values()) > 1


def _by_rule(dialect: Dialect, reading: Reading, key: str, value: Any) -> None:
    rule = dialect.rules.get(key) or dialect.rules.get(key.rpartition(".")[2])
    if rule is None:
        near = difflib.get_close_matches(key.rpartition(".")[2], dialect.rules, n=1, cutoff=0.8)
        why = (
            f"not known here, and not used. Did you mean `{near[0]}`?"
            if near
            else ("not known here, and not used")
        )
        if near:
            reading.notes.append(f"`{key}` is not known; probably `{near[0]}` is meant")
        reading.drop(key, why)
        return
    if value is None or not rule.ours:
        reading.drop(key, rule.why or "not set")
        return
    try:
        made = rule.value(value) if rule.value else value
    except (TypeError, ValueError):
        line = reading.lines.get(key)
        where = f"{reading.source.name}:{line}: {key}" if line else f"{reading.source.name}: {key}"
        shown_value = "" if key.rpartition(".")[2] in SECRETS else f", not {value!r}"
        raise StudyError(f"should be another kind of value{shown_value}", where=where) from None
    if made is LEFT_OUT:
        reading.drop(key, rule.why or "says what is the case in any event")
    elif rule.ours in reading.keys:
        reading.drop(key, f"{rule.ours} is given by `{reading.keys[rule.ours][0]}`")
    else:
        reading.put(key, rule.ours, made, rule.why)


def _flat(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Nested mappings as dotted keys; lists stay values."""
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from _flat(inner, (*path, key))
    else:
        yield path, value


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


# What several dialects share: the names of Hugging Face's training arguments.


def only_if(wanted: Any, value: Any) -> Callable[[Any], Any]:
    """A rule's ``value``: ours where the key says ``wanted``, else nothing."""
    return lambda given: value if given == wanted else LEFT_OUT


def trackers(value: Any) -> Any:
    """``report_to`` as a list of trackers."""
    names = value if isinstance(value, list) else [value]
    return [n for n in names if n not in (None, "none", "all", "")]


def modules(value: Any) -> Any:
    """Layers with an adapter: ``all`` and its kin are all linear ones."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if value in (["all"], ["all-linear"]):
        return "all-linear"
    return list(value)


def project(value: Any) -> str:
    """A study's name from an output folder."""
    from tunewise.dialects.autotrain.language import study_name

    return study_name(Path(str(value)).name)


_SPEED = "the trainer chooses what is fast on this machine"
_SAVED = "a run keeps what it needs to go on, and the best"
_LOGGED = "every step is logged, and dev is looked at after each epoch"
_UNUSED_ANYWAY = "rows lie one after the other in flat batches: nothing is padded or packed"

SHARED: Mapping[str, Rule] = {
    "output_dir": Rule("name", "", project),
    "learning_rate": Rule("fine_tune.learning_rate"),
    "num_train_epochs": Rule("fine_tune.epochs"),
    "num_epochs": Rule("fine_tune.epochs"),
    "weight_decay": Rule("fine_tune.weight_decay"),
    "warmup_ratio": Rule("fine_tune.warmup_ratio"),
    "seed": Rule("fine_tune.seeds", "", lambda v: [int(v)]),
    "report_to": Rule("fine_tune.report_to", "", trackers),
    "bf16": Rule("fine_tune.precision", "else what the machine does best",
                 lambda v: "bfloat16" if v is True else LEFT_OUT),
    "fp16": Rule("", "bfloat16 where the GPU has it; fp16 overflows"),
    "gradient_checkpointing": Rule(
        "fine_tune.recompute", "where memory needs it, unless it is said",
        lambda v: v if isinstance(v, bool) else LEFT_OUT),
    "max_steps": Rule("", "a run is as long as its epochs; give epochs instead"),
    "warmup_steps": Rule("", "the warm-up is a share of the steps (fine_tune.warmup_ratio)"),
    "lora_r": Rule("fine_tune.lora.rank"),
    "lora_rank": Rule("fine_tune.lora.rank"),
    "lora_alpha": Rule("fine_tune.lora.alpha"),
    "lora_dropout": Rule("fine_tune.lora.dropout"),
    "lora_target_modules": Rule("fine_tune.lora.target_modules", "", modules),
    "use_rslora": Rule("fine_tune.lora.rslora"),
    "use_dora": Rule("fine_tune.lora.dora"),
    **dict.fromkeys(
        ("lr_scheduler", "lr_scheduler_type", "scheduler"),
        Rule("", "the trainer has one schedule: linear warm-up, then half a cosine"),
    ),
    **dict.fromkeys(
        ("optim", "optimizer"),
        Rule("", "the trainer has AdamW; adapters leave little to page or compress"),
    ),
    **dict.fromkeys(("max_grad_norm",), Rule("", "gradients are clipped at 1")),
    **dict.fromkeys(
        ("packing", "sample_packing", "eval_sample_packing", "pad_to_sequence_len",
         "padding_free", "group_by_length", "neat_packing", "padding_side"),
        Rule("", _UNUSED_ANYWAY),
    ),
    **dict.fromkeys(
        ("flash_attention", "flash_attn", "xformers_attention", "sdp_attention", "tf32",
         "attn_implementation", "use_liger_kernel", "enable_liger_kernel", "deepspeed", "fsdp",
         "fsdp_config", "torch_compile", "dataloader_num_workers", "preprocessing_num_workers",
         "dataset_num_proc", "use_unsloth", "ddp_timeout", "torch_dtype", "dtype",
         "gradient_checkpointing_kwargs", "use_reentrant", "plugins"),
        Rule("", _SPEED),
    ),
    **dict.fromkeys(
        ("save_steps", "save_strategy", "save_total_limit", "saves_per_epoch", "save_only_model",
         "save_safetensors", "overwrite_output_dir", "overwrite_cache", "plot_loss",
         "resume_from_checkpoint", "auto_resume_from_checkpoints", "dataset_prepared_path"),
        Rule("", _SAVED),
    ),
    **dict.fromkeys(
        ("logging_steps", "logging_strategy", "logging_first_step", "eval_steps", "eval_strategy",
         "evals_per_epoch", "evaluation_strategy", "do_train", "do_eval", "eval_table_size",
         "per_device_eval_batch_size", "eval_batch_size", "debug", "run_name", "logging_dir"),
        Rule("", _LOGGED),
    ),
    **dict.fromkeys(
        ("push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo"),
        Rule("", "a study uploads nothing"),
    ),
    **dict.fromkeys(
        ("chat_template", "template", "special_tokens", "tokens", "eos_token", "pad_token",
         "tokenizer_type", "model_type", "tokenizer_config", "chat_template_path"),
        Rule("", "the model's own tokenizer and chat template are used"),
    ),
    "trust_remote_code": Rule("", "code that comes with a model is never run"),
}  # fmt: skip


def batch(reading: Reading, rows: str, steps: str = "gradient_accumulation_steps") -> None:
    """Rows of an optimiser step, from the rows of a pass and the passes of a step."""
    of_pass, passes = reading.get(rows), reading.get(steps)
    if of_pass is None:
        return
    try:
        product: Any = int(of_pass) * int(passes or 1)
    except (TypeError, ValueError):
        product = of_pass  # refused where the study is checked, with its line
    reading.put(rows, "fine_tune.batch_size", product, f"{rows} × {steps}: rows of a step")
    reading.drop(steps, "within fine_tune.batch_size; memory sets the passes")


def adapter(reading: Reading, name: str, *, on: bool, four_bits: str) -> None:
    """What is trained: an adapter, one over 4 bits, or all weights.

    Args:
        name: the key that says whether there is an adapter.
        four_bits: the key that says whether the base is held in 4 bits.
    """
    quantized = reading.get(four_bits) in (True, 4, "4", "true")
    reading.put(name, "fine_tune.adapter", ("qlora" if quantized else "lora") if on else "full")
    reading.drop(four_bits, "see fine_tune.adapter" if on else "goes with an adapter only")
    if not on:
        for key in [k for k in reading.values if "lora" in k and k not in reading.done]:
            reading.drop(key, "all weights are trained")


def data_place(reading: Reading, path: Any) -> str:
    """A file or folder beside the configuration or in the working folder, else as written."""
    folder = reading.source.folder
    given = Path(str(path)).expanduser()
    for place in (given, *([folder / given] if folder else [])):
        if place.exists():
            return str(place.absolute())
    return str(path)


def need(reading: Reading, *names: str) -> Any:
    value = reading.get(*names)
    if value is None:
        raise missing(reading, names[0], "")
    return value


def missing(reading: Reading, name: str, hint: str) -> StudyError:
    return StudyError(
        f"`{name}` is missing", where=f"{reading.source.name}:1: {name}", hint=hint or None
    )
