"""AutoTrain's command line: its verbs and flags, made from the table of parameters."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tunewise.dialects.autotrain.config import Config, assemble, is_backend
from tunewise.dialects.autotrain.parameters import FLAG_ALIASES, PARAMETERS, Parameter
from tunewise.dialects.autotrain.tasks import BACKENDS, LLM_METHODS, VERBS, Task
from tunewise.dialects.autotrain.values import typed
from tunewise.errors import UsageError
from tunewise.study.complaints import Places
from tunewise.study.yaml_source import KeyPath

_COMMAND = "tunewise autotrain"
OTHER_VERBS = {
    "app": "AutoTrain's web page has no counterpart yet; a file or flags do the same",
    "api": "the API of Tunewise is `tunewise serve` (OpenAI's fine-tuning API)",
    "setup": "nothing is to be set up: `tunewise doctor` says what is missing",
    "spacerunner": "programs of your own on a Space are not run; a task names what is trained",
    "tools": "`merge-llm-adapter` is part of a training: `--merge-adapter`",
}
"""AutoTrain's verbs that train nothing, and what to do instead."""


@dataclass(frozen=True)
class Flags:
    """A command line that was understood.

    Attributes:
        config: what is to be trained.
        train: ``--train`` was given.
    """

    config: Config
    train: bool


class _Parser(argparse.ArgumentParser):
    """Errors as ours; long names only in full."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where=self.prog, hint=f"All flags: {self.prog} --help")


def parse_flags(arguments: Sequence[str]) -> Flags:
    """A verb with its flags.

    Raises:
        UsageError: no such verb or flag, or a value of another type.
        StudyError: values that contradict each other.
    """
    task, rest = task_of(arguments[0]), arguments[1:]
    parser = flags_of(task)
    found, unknown = parser.parse_known_args([_plain(a) for a in rest])
    if unknown:
        raise UsageError(
            f"{task.verb} has no flag {unknown[0]!r}",
            where=parser.prog,
            hint=_near(unknown[0], task),
        )
    given: dict[str, tuple[KeyPath, Any]] = {}
    lines: dict[KeyPath, str] = {}
    for name in task.defaults:
        value = getattr(found, name, None)
        if value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        try:
            given[name] = ((flag,), typed(PARAMETERS[name], value))
        except ValueError as error:
            raise UsageError(str(error), where=flag) from None
        lines[(flag,)] = flag
    if task.name == "llm" and given.get("trainer", ("", "default"))[1] not in LLM_METHODS:
        raise UsageError(
            f"{given['trainer'][1]!r} is no trainer of language models",
            where="--trainer",
            hint=f"One of {', '.join(LLM_METHODS)}.",
        )
    backend = found.backend or "local"
    if not is_backend(backend):
        near = difflib.get_close_matches(backend, BACKENDS, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"One of {', '.join(BACKENDS)}."
        raise UsageError(f"{backend!r} is no back end of AutoTrain's", where="--backend", hint=hint)
    for flag in ("deploy", "inference"):
        if getattr(found, flag):
            raise UsageError(
                _NOT_TRAINING[flag], where=f"--{flag}", hint="To train, give --train instead."
            )
    places = Places(parser.prog, {}, flags=lines)
    return Flags(assemble(task, backend, given, (), places, None), found.train)


def task_of(verb: str) -> Task:
    """The task of a verb.

    Raises:
        UsageError: it is none, or one that trains nothing.
    """
    if verb in OTHER_VERBS:
        raise UsageError(OTHER_VERBS[verb], where=f"{_COMMAND} {verb}")
    task = VERBS.get(verb)
    if task is None:
        near = difflib.get_close_matches(verb, [*VERBS, *OTHER_VERBS], n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Tasks: {', '.join(VERBS)}."
        raise UsageError(f"AutoTrain has no task {verb!r}", where=_COMMAND, hint=hint)
    return task


_NOT_TRAINING = {
    "deploy": "AutoTrain never had more than the flag; serve a tuned model with `tunewise serve`",
    "inference": "asking is no part of training: `tunewise chat MODEL --adapter FOLDER`",
}


def flags_of(task: Task) -> argparse.ArgumentParser:
    """The parser of a task's flags, with their help and defaults."""
    parser = _Parser(
        prog=f"{_COMMAND} {task.verb or task.name}",
        description=f"AutoTrain's flags for {task.label}.",
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Ours beside them: --dry-run, --set KEY=VALUE, --workspace, --json, --quiet.",
    )
    parser.add_argument("--train", action="store_true", help="start the training")
    parser.add_argument("--deploy", action="store_true", help=_NOT_TRAINING["deploy"])
    parser.add_argument("--inference", action="store_true", help=_NOT_TRAINING["inference"])
    parser.add_argument("--backend", help="where it runs; local is this machine [local]")
    for name, default in task.defaults.items():
        _add(parser, name, PARAMETERS[name], default)
    return parser


def _add(parser: argparse.ArgumentParser, name: str, parameter: Parameter, default: Any) -> None:
    aliases = [a for a, meant in FLAG_ALIASES.items() if meant == name]
    names = [f"--{n.replace('_', '-')}" for n in (name, *aliases)]
    told = "" if default in (None, "") else f" [{_word(default)}]"
    options: dict[str, Any] = {"dest": name, "help": (parameter.means + told).replace("%", "%%")}
    if parameter.kind == "bool":
        parser.add_argument(*names, nargs="?", const=True, metavar="true|false", **options)
    elif parameter.kind == "texts":
        parser.add_argument(*names, type=_texts, metavar="NAME,…", **options)
    else:
        parser.add_argument(*names, metavar=parameter.kind.upper(), **options)


def _texts(text: str) -> Any:
    return [part.strip() for part in text.split(",")] if "," in text else text


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def _plain(argument: str) -> str:
    """``--batch_size=2`` as ``--batch-size=2``: AutoTrain takes both."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _near(argument: str, task: Task) -> str | None:
    name = argument.partition("=")[0]
    aliases = [alias for alias, meant in FLAG_ALIASES.items() if meant in task.defaults]
    flags = [f"--{n.replace('_', '-')}" for n in (*task.defaults, *aliases)]
    if name.removeprefix("--").replace("-", "_") in PARAMETERS:
        return "It is a flag of other tasks."
    near = difflib.get_close_matches(name, flags, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else None
