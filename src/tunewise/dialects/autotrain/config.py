"""An AutoTrain configuration, read and checked: every parameter with its value and its place."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewise.dialects.autotrain.parameters import FLAG_ALIASES, PARAMETERS
from tunewise.dialects.autotrain.tasks import BACKENDS, CLOUDS, LLM_METHODS, TASK_NAMES, Task
from tunewise.dialects.autotrain.values import typed
from tunewise.dialects.sources import Source
from tunewise.dialects.told import SECRETS, Told, told_twice
from tunewise.study.complaints import Complaint, Places, study_error
from tunewise.study.keys import is_secret_name
from tunewise.study.yaml_source import KeyPath

_REQUIRED = ("task", "base_model", "project_name", "log", "backend", "data", "params")
_DATA = ("path", "train_split", "valid_split", "chat_template", "column_mapping")
_HUB = ("username", "token", "push_to_hub")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_UNQUOTED = {"path": "data_path", "train_split": "train_split", "valid_split": "valid_split"}


@dataclass(frozen=True)
class Config:
    """A configuration of AutoTrain's.

    Attributes:
        task: what is trained.
        backend: where; this machine or a cloud.
        values: of every parameter of the task; secrets are references or themselves.
        written: parameters that were given, each with the key that gave it.
        ignored: keys that AutoTrain reads and the task does not use.
        places: lines and flags of keys, for messages.
        folder: the file's.
    """

    task: Task
    backend: str
    values: Mapping[str, Any]
    written: Mapping[str, KeyPath]
    ignored: tuple[Told, ...]
    places: Places
    folder: Path | None = None

    @property
    def trainer(self) -> str:
        """The part after ``llm-``, ``st:`` or ``vlm:``; empty where the task has none."""
        return str(self.values.get("trainer") or "")

    def line(self, key: str) -> int | None:
        """Where a parameter was given; None for defaults and flags."""
        path = self.written.get(key)
        return None if path is None else self.places.lines.get(path)


def read_config(source: Source) -> Config:
    """Check a YAML file's keys, names and types.

    Raises:
        StudyError: with the line of each thing that is wrong, and what was probably meant.
    """
    reader = _Reader(source)
    return reader.config()


@dataclass
class _Reader:
    """Gathers what is given and what is wrong with it."""

    source: Source
    wrong: list[Complaint] = field(default_factory=list)
    given: dict[str, tuple[KeyPath, Any]] = field(default_factory=dict)
    ignored: list[Told] = field(default_factory=list)

    def config(self) -> Config:
        raw = self.source.value
        for key in _REQUIRED:
            if key not in raw:
                self.complain((key,), f"`{key}` is missing", _EXAMPLES[key])
        self.known((), raw, (*_REQUIRED, "hub"))
        self.text("base_model", "model")
        self.text("project_name", "project_name")
        self.text("log", "log")
        task, trainer = self.task(raw.get("task"))
        backend = self.backend(raw.get("backend"))
        if task is not None:
            self.data(raw, task)
            self.hub(raw)
            self.params(raw, task)
        places = Places(self.source.name, self.source.lines)
        if self.wrong or task is None:
            raise study_error(self.wrong, places)
        if trainer is not None:
            self.given["trainer"] = (("task",), trainer)
        return assemble(
            task,
            backend,
            self.given,
            (*self.ignored, *told_twice(self.source.repeated)),
            places,
            self.source.folder,
        )

    def complain(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.wrong.append(Complaint(path, message, hint))

    def known(self, path: KeyPath, value: Mapping[str, Any], names: Iterable[str]) -> None:
        """Complain of keys that no AutoTrain configuration has in this place."""
        names = tuple(names)
        for key in value:
            if key not in names:
                self.complain((*path, key), "unknown key", _likely(key, names, path))

    def section(self, raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        value = raw.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.complain((name,), "should be a mapping (lines of `key: value`)")
            return {}
        return value

    def text(self, key: str, parameter: str) -> None:
        if key in self.source.value:
            self.put(parameter, (key,), self.source.value[key])

    def put(self, parameter: str, path: KeyPath, value: Any) -> None:
        try:
            self.given[parameter] = (path, typed(PARAMETERS[parameter], value))
        except ValueError as error:
            secret = parameter in SECRETS
            self.complain(path, "should be text" if secret else str(error))

    def task(self, value: Any) -> tuple[Task | None, str | None]:
        if "task" not in self.source.value:
            return None, None
        found = TASK_NAMES.get(value) if isinstance(value, str) else None
        if found is None:
            near = difflib.get_close_matches(str(value), TASK_NAMES, n=1, cutoff=0.5)
            hint = f"Did you mean `{near[0]}`?" if near else f"Tasks: {', '.join(TASK_NAMES)}."
            self.complain(("task",), f"{str(value)[:60]!r} is no task of AutoTrain's", hint)
            return None, None
        return found

    def backend(self, value: Any) -> str:
        name = str(value)
        if "backend" in self.source.value and not is_backend(name):
            near = difflib.get_close_matches(name, BACKENDS, n=1, cutoff=0.5)
            hint = f"Did you mean `{near[0]}`?" if near else f"Back ends: {', '.join(BACKENDS)}."
            self.complain(("backend",), f"{name[:60]!r} is no back end of AutoTrain's", hint)
        return name

    def data(self, raw: Mapping[str, Any], task: Task) -> None:
        data = self.section(raw, "data")
        self.known(("data",), data, _DATA)
        if raw.get("data") is not None and "path" not in data:
            self.complain(("data", "path"), "`path` is missing", _EXAMPLES["path"])
        for key, parameter in _UNQUOTED.items():
            if key in data:
                self.put(parameter, ("data", key), data[key])
        if "chat_template" in data:
            path: KeyPath = ("data", "chat_template")
            if task.chat:
                self.put("chat_template", path, data["chat_template"])
            else:
                self.ignore(path, data["chat_template"], task)
        columns = data.get("column_mapping")
        if columns is not None and not isinstance(columns, dict):
            self.complain(("data", "column_mapping"), "should be a mapping (`text_column: text`)")
        elif columns:
            names = [n for n in PARAMETERS if n.endswith(("_column", "_columns"))]
            self.take(("data", "column_mapping"), columns, names, task)

    def hub(self, raw: Mapping[str, Any]) -> None:
        hub = self.section(raw, "hub")
        self.known(("hub",), hub, _HUB)
        for key in _HUB:
            if key in hub:
                self.put(key, ("hub", key), hub[key])

    def params(self, raw: Mapping[str, Any], task: Task) -> None:
        params = self.section(raw, "params")
        self.take(("params",), params, PARAMETERS, task)

    def take(
        self, path: KeyPath, values: Mapping[str, Any], names: Iterable[str], task: Task
    ) -> None:
        """Parameters of the task; those of other tasks are told, unknown ones are wrong."""
        self.known(path, values, names)
        for key, value in values.items():
            if key in task.defaults:
                self.put(key, (*path, key), value)
            elif key in names:
                self.ignore((*path, key), value, task)

    def ignore(self, path: KeyPath, value: Any, task: Task) -> None:
        why = f"a parameter of other tasks; {task.label} has none of this name, there and here"
        key = ".".join(map(str, path))
        line = self.source.lines.get(path)
        self.ignored.append(Told(key, value, "no meaning here", "", why, line))


def assemble(
    task: Task,
    backend: str,
    given: Mapping[str, tuple[KeyPath, Any]],
    ignored: tuple[Told, ...],
    places: Places,
    folder: Path | None,
) -> Config:
    """A configuration of what is given, and the task's defaults for the rest.

    Raises:
        StudyError: the values contradict each other.
    """
    values = {**task.defaults, **{key: value for key, (_, value) in given.items()}}
    written = {key: path for key, (path, _) in given.items()}
    wrong = [Complaint(written.get(k, (k,)), *told) for k, *told in _contradictions(task, values)]
    if wrong:
        raise study_error(wrong, places)
    return Config(task, backend, values, written, ignored, places, folder)


def _contradictions(task: Task, values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in ("lr", "epochs", "batch_size", "gradient_accumulation", "lora_r", "lora_alpha"):
        if key in values and values[key] <= 0:
            yield key, f"should be greater than 0, not {values[key]}", ""
    for key, most in (("warmup_ratio", 1), ("lora_dropout", 1)):
        if key in values and not 0 <= values[key] < most:
            yield key, f"should be between 0 and {most}, not {values[key]}", ""
    if not str(values["project_name"]).strip():
        yield "project_name", "should name a folder", ""
    if task.name == "llm":
        trainer = values["trainer"]
        if trainer not in LLM_METHODS:
            known = ", ".join(LLM_METHODS)
            yield "trainer", f"{trainer!r} is no trainer of language models", f"One of {known}."
        elif trainer in ("dpo", "orpo", "reward") and values["rejected_text_column"] is None:
            yield (
                "rejected_text_column",
                f"`{trainer}` needs the column with the answers that are not wanted",
                "In a file: `data: {column_mapping: {rejected_text_column: rejected}}`.",
            )


def is_backend(name: str) -> bool:
    """Whether AutoTrain knows a back end of this name."""
    return (
        name in BACKENDS
        or any(name.startswith(start) and len(name) > len(start) for start in ("ngc-", "nvcf-"))
        or name == "ngc"
    )


def cloud_of(backend: str) -> str | None:
    """Whose machines a back end means; None for this one."""
    return next((name for start, name in CLOUDS.items() if f"{backend}-".startswith(start)), None)


def expanded(value: Any, missing: Callable[[str], None]) -> str | None:
    """A name of the hub's with ``${NAME}`` replaced from the environment.

    Args:
        missing: called with the name of a variable that is not set.

    Variables that hold secrets by their name are not put into names that others see.
    """
    if not isinstance(value, str):
        return None
    found = _REFERENCE.fullmatch(value.strip())
    if found is None:
        return value.strip() or None
    if is_secret_name(found[1]) or not os.environ.get(found[1], "").strip():
        missing(found[1])
        return None
    return os.environ[found[1]].strip()


def _likely(key: str, names: tuple[str, ...], path: KeyPath) -> str:
    plain = key.lower().replace("-", "_")
    meant = FLAG_ALIASES.get(plain, plain)
    if meant in names:
        return f"Did you mean `{meant}`?"
    near = difflib.get_close_matches(plain, names, n=1, cutoff=0.7)
    if near:
        return f"Did you mean `{near[0]}`?"
    sections = {"data": _DATA, "hub": _HUB, "params": tuple(PARAMETERS), "": _REQUIRED}
    here = str(path[-1]) if path else ""
    for section, keys in sections.items():
        if meant in keys and section != here:
            return f"It belongs under `{section}`." if section else "It belongs at the top."
    shown = names if len(names) <= 12 else ()
    return f"Possible here: {', '.join(shown)}." if shown else "AutoTrain has no such parameter."


_EXAMPLES = {
    "task": "For instance `task: llm-sft`.",
    "base_model": "A hub id or a folder: `base_model: HuggingFaceTB/SmolLM2-135M-Instruct`.",
    "project_name": "It names the folder of the result: `project_name: my-model`.",
    "log": "`log: tensorboard`, `wandb` or `none`.",
    "backend": "`backend: local` is this machine.",
    "data": "A mapping with `path`, `train_split`, `valid_split`, `column_mapping`.",
    "params": "A mapping; `params: {}` takes the defaults.",
    "path": "A folder with `train.csv` or `train.jsonl`, or a data set of the hub.",
}
