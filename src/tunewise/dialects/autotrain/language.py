"""AutoTrain's language models as a study of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewise.dialects.autotrain.config import Config
from tunewise.dialects.autotrain.parameters import PARAMETERS
from tunewise.dialects.autotrain.tasks import LLM_METHODS
from tunewise.dialects.machine import has_gpu, installed, quantizes
from tunewise.dialects.rows import first_rows, holds_messages, split_source
from tunewise.errors import DataError
from tunewise.study.complaints import Complaint, study_error

_TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


@dataclass(frozen=True, slots=True)
class Mapped:
    """What became of a parameter: our key with its value, or none and why."""

    ours: str = ""
    value: Any = None
    why: str = ""


def study_name(project: str) -> str:
    """A project's name as a study may be called."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", project).strip("-_")[:60]
    return plain or "autotrain"


_FIRST_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Models whose names were without an owner once; the hub leads to these."""


def model_name(name: str, folder: Path | None) -> str:
    """A model as a study names it: a folder that is there, else a hub id."""
    given = Path(name).expanduser()
    places = [given] if folder is None or given.is_absolute() else [given, folder / given]
    there = next((place for place in places if place.is_dir()), None)
    return str(there.absolute()) if there is not None else _FIRST_NAMES.get(name, name)


class LanguageStudy:
    """The study of a configuration, and what became of each parameter.

    Args:
        config: of an LLM task.
        here: the study is for this machine: what it cannot do (4 bits without a GPU) is told and
            left out. False writes what the configuration says.

    Raises:
        StudyError: local rows have no such column; a tracker is unknown.

    What is ``missing`` before it can be trained, such as the rows, is told in sentences.
    """

    def __init__(self, config: Config, *, here: bool) -> None:
        self._config, self._here = config, here
        self._values = config.values
        self.missing: list[str] = []
        self.method = LLM_METHODS[config.trainer]
        self.source = self._split("train_split")
        self._rows = [] if self.missing else first_rows(self.source)
        self.mapped: dict[str, Mapped] = {}
        self._columns()
        for name, value in self._values.items():
            special = getattr(self, f"_{name}", None)
            if name in self.mapped:
                continue
            known = PARAMETERS[name]
            if special is not None:
                self.mapped[name] = special(value)
            elif known.ours:
                self.mapped[name] = Mapped(known.ours, value, known.why)
            else:
                self.mapped[name] = Mapped(why=known.why)

    @property
    def study(self) -> dict[str, Any]:
        """The study's keys."""
        raw: dict[str, Any] = {
            "name": "",
            "model": "",
            "data": {},
            "metric": "exact_match",  # a study has one; a fine-tune alone scores nothing
            "fine_tune": {"method": self.method},
        }
        for one in self.mapped.values():
            if one.ours and one.value is not None:
                _put(raw, one.ours, one.value)
        if self.method == "sft":
            raw["fine_tune"]["trained_rows"] = "all_assistant"
        if raw["fine_tune"].get("adapter") == "full":
            raw["fine_tune"].pop("lora", None)
        return raw

    # Rows.

    def _split(self, key: str) -> str:
        path, split = self._values["data_path"], self._values[key]
        if not path:
            raise study_error(
                [
                    Complaint(
                        ("data_path",), "no rows are named", "Give a folder or a hub data set."
                    )
                ],
                self._config.places,
            )
        try:
            return split_source(path, split, self._config.folder)
        except DataError as error:
            wrong = key if "split" in error.message else "data_path"
            where = self._config.places.where(self._config.written.get(wrong, (wrong,)))
            self.missing.append(f"{where}: {error.message}: {error.where}. {error.hint or ''}")
            return str(path)

    def _columns(self) -> None:
        """Which of our columns the parameters' columns are."""
        values = self._values
        text, prompt = values["text_column"], values["prompt_text_column"]
        rejected = values["rejected_text_column"]
        pairs = self.method in ("dpo", "orpo", "reward")
        self._check({"text_column": text, **({"rejected_text_column": rejected} if pairs else {})})
        unused = Mapped(why=f"`{self._config.trainer}` reads no such column")
        if not pairs:
            self.mapped |= {"prompt_text_column": unused, "rejected_text_column": unused}
            self.mapped["text_column"] = self._text_column(text)
            return
        usual = text == "chosen" and rejected == "rejected" and prompt in (None, "prompt")
        if usual:
            self.mapped["text_column"] = Mapped(why="read as the wanted answers: `chosen`")
            self.mapped["rejected_text_column"] = Mapped(why="read as such: `rejected`")
            self.mapped["prompt_text_column"] = Mapped(
                why="read as such: `prompt`" if prompt else "the prompt is what both answers share"
            )
            return
        self.mapped["text_column"] = Mapped("data.columns.output", text)
        self.mapped["rejected_text_column"] = Mapped("data.columns.rejected", rejected)
        self.mapped["prompt_text_column"] = (
            Mapped("data.columns.input", prompt)
            if prompt
            else Mapped(why="the prompt is what both answers share")
        )

    def _text_column(self, text: str) -> Mapped:
        """Conversations are learnt answer by answer; plain texts as a whole."""
        talks = holds_messages(self._rows, text)
        if talks is None:
            talks = self._values["chat_template"] is not None
        if talks:
            return Mapped("data.columns.messages", text, "conversations")
        why = "texts"
        if self.method == "sft":
            self.method = "pretrain"
            why = (
                "texts without roles: the whole text is learnt, as there; for answers alone give "
                "conversations, or rows with a prompt and a completion"
            )
        return Mapped("data.columns.text", text, why)

    def _check(self, wanted: Mapping[str, str]) -> None:
        """Columns that no row has are told now, with the configuration's line."""
        if not self._rows:
            return
        found = dict.fromkeys(str(name) for row in self._rows for name in row)
        wrong = [
            Complaint(
                self._config.written.get(key, ("data", "column_mapping", key)),
                f"the rows have no column {column!r}" + self._defaulted(key),
                f"Found in {self.source}: {', '.join(found)}.",
            )
            for key, column in wanted.items()
            if column not in found
        ]
        if wrong:
            raise study_error(wrong, self._config.places)

    def _defaulted(self, key: str) -> str:
        return "" if key in self._config.written else f" (the default of `{key}`)"

    def _data_path(self, value: str) -> Mapped:
        return Mapped("data.train", self.source)

    def _train_split(self, value: str) -> Mapped:
        return Mapped("data.train", self.source)

    def _valid_split(self, value: str | None) -> Mapped:
        if value is None:
            return Mapped(why="none: all rows are learnt from, and nothing is held back for dev")
        if value == self._values["train_split"]:
            return Mapped(why="the same as train_split: rows that were learnt from choose nothing")
        return Mapped("data.dev", self._split("valid_split"))

    # What it learns with.

    def _model(self, value: str) -> Mapped:
        return Mapped("model", model_name(value, self._config.folder))

    def _project_name(self, value: str) -> Mapped:
        return Mapped("name", study_name(value), f"the result is written to {value}/")

    def _trainer(self, value: str) -> Mapped:
        return Mapped("fine_tune.method", self.method)

    def _log(self, value: str) -> Mapped:
        name = value.lower()
        if name in ("none", ""):
            return Mapped("fine_tune.report_to", [])
        if name not in _TRACKERS:
            path = self._config.written.get("log", ("log",))
            hint = f"One of {', '.join(_TRACKERS)}, none."
            raise study_error(
                [Complaint(path, f"{value!r} is no tracker", hint)], self._config.places
            )
        if self._here and not installed(name):
            return Mapped(
                why=f"{name} is not installed; every step is in events.jsonl all the same"
            )
        return Mapped("fine_tune.report_to", [name])

    def _seed(self, value: int) -> Mapped:
        return Mapped("fine_tune.seeds", [value])

    def _batch_size(self, value: int) -> Mapped:
        steps = self._values["gradient_accumulation"]
        why = f"{value} × gradient_accumulation {steps}: rows of an optimiser step"
        return Mapped("fine_tune.batch_size", value * steps, why)

    def _gradient_accumulation(self, value: int) -> Mapped:
        return Mapped(why="within fine_tune.batch_size, see batch_size; memory sets the passes")

    def _mixed_precision(self, value: str | None) -> Mapped:
        if value is None:
            return Mapped("fine_tune.precision", "auto", "what the machine does best")
        if self._here and not has_gpu():
            return Mapped(why="a processor computes in the type that it does best (precision auto)")
        if value == "fp16":
            return Mapped(
                "fine_tune.precision", "auto", "bfloat16 where the GPU has it; fp16 overflows"
            )
        return Mapped("fine_tune.precision", "bfloat16")

    def _disable_gradient_checkpointing(self, value: bool) -> Mapped:
        if value:
            return Mapped("fine_tune.recompute", False)
        return Mapped(why="activations are computed again where memory needs it, and only there")

    def _optimizer(self, value: str) -> Mapped:
        return Mapped(why=PARAMETERS["optimizer"].why)

    # Lengths.

    def _block_size(self, value: int) -> Mapped:
        if self.method != "pretrain" or value <= 0:
            return Mapped(why=PARAMETERS["block_size"].why)
        longest = self._values["model_max_length"]
        return Mapped("fine_tune.max_length", min(value, longest), "texts are cut to this length")

    def _model_max_length(self, value: int) -> Mapped:
        if self.method == "pretrain" and self._values["block_size"] > 0:
            return Mapped(why="block_size is shorter and cuts the texts")
        if "model_max_length" not in self._config.written:
            return Mapped(why="the model's own context is the limit")
        return Mapped("fine_tune.max_length", value, PARAMETERS["model_max_length"].why)

    # Adapters.

    def _peft(self, value: bool) -> Mapped:
        if not value:
            return Mapped("fine_tune.adapter", "full", "all weights are trained")
        bits = self._values["quantization"]
        if bits != "int4":
            return Mapped("fine_tune.adapter", "lora")
        if self._here and not quantizes():
            return Mapped("fine_tune.adapter", "lora", "the base stays whole, see quantization")
        return Mapped("fine_tune.adapter", "qlora")

    def _quantization(self, value: str | None) -> Mapped:
        if value is None:
            return Mapped(why="the base stays whole")
        if not self._values["peft"]:
            return Mapped(why="goes with an adapter (`peft: true`) only, there and here")
        if value == "int8":
            return Mapped(why="the base is held in 16 bits, which loses nothing, or in 4 (`int4`)")
        if self._here and not quantizes():
            return Mapped(why="4 bits need an NVIDIA GPU and bitsandbytes; the base stays whole")
        return Mapped("fine_tune.adapter", "qlora")

    def _target_modules(self, value: str | Sequence[str] | None) -> Mapped:
        if isinstance(value, str) and "," in value:
            value = [name.strip() for name in value.split(",") if name.strip()]
        return self._of_adapter("fine_tune.lora.target_modules", value or "all-linear")

    def _lora_r(self, value: int) -> Mapped:
        return self._of_adapter("fine_tune.lora.rank", value)

    def _lora_alpha(self, value: int) -> Mapped:
        return self._of_adapter("fine_tune.lora.alpha", value)

    def _lora_dropout(self, value: float) -> Mapped:
        return self._of_adapter("fine_tune.lora.dropout", value)

    def _of_adapter(self, key: str, value: Any) -> Mapped:
        if not self._values["peft"]:
            return Mapped(why="all weights are trained (`peft: false`)")
        return Mapped(key, value)

    def _merge_adapter(self, value: bool) -> Mapped:
        if value and not self._values["peft"]:
            return Mapped(why="there is no adapter to merge (`peft: false`)")
        return Mapped(why="the adapter is merged into a whole model" if value else "")

    # Methods.

    def _dpo_beta(self, value: float) -> Mapped:
        if self.method not in ("dpo", "orpo"):
            return Mapped(why=f"`{self._config.trainer}` has no beta")
        return Mapped(f"fine_tune.{self.method}.beta", value)

    def _model_ref(self, value: str | None) -> Mapped:
        if value in (None, self._values["model"]):
            return Mapped(why="the model that training begins with")
        return Mapped(why=PARAMETERS["model_ref"].why)

    def _chat_template(self, value: str | None) -> Mapped:
        if value is None:
            return Mapped(why="")
        why = PARAMETERS["chat_template"].why
        return Mapped(why=why if value != "tokenizer" else "the model's own chat template")


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    *way, last = key.split(".")
    for step in way:
        raw = raw.setdefault(step, {})
    raw[last] = value
