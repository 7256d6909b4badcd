"""Another tool's configuration as a study file, and a study as AutoTrain's."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunewise.data.propose import propose
from tunewise.dialects.autotrain.config import read_config
from tunewise.dialects.autotrain.language import study_name
from tunewise.dialects.autotrain.translate import translate
from tunewise.dialects.axolotl import AXOLOTL
from tunewise.dialects.llama_factory import LLAMA_FACTORY
from tunewise.dialects.openai_job import OPENAI
from tunewise.dialects.rules import Dialect, read
from tunewise.dialects.sources import Source, read_source
from tunewise.dialects.told import Translation
from tunewise.dialects.trl import TRL
from tunewise.dialects.unsloth import UNSLOTH
from tunewise.errors import StudyError, TunewiseError, UsageError
from tunewise.study.keys import redact
from tunewise.study.loading import study_from
from tunewise.study.schema import Columns
from tunewise.study.yaml_source import KeyPath, parse_value, read_text

AUTOTRAIN = "autotrain"
DIALECTS: tuple[Dialect, ...] = (AXOLOTL, LLAMA_FACTORY, UNSLOTH, TRL, OPENAI)
NAMES = (AUTOTRAIN, *(d.name for d in DIALECTS))
_AUTOTRAIN_SIGNS = frozenset({"task", "base_model", "project_name", "backend"})
_FLAG = re.compile(r"(?:^|\s)--[A-Za-z]")


@dataclass(frozen=True)
class Converted:
    """A study that was made of a configuration.

    Attributes:
        translation: with a row for each key.
        study: as a study file has it.
        text: of the file, with what must be looked at as comments.
    """

    translation: Translation
    study: Mapping[str, Any]
    text: str


def convert(place: str, dialect: str | None, out: Path) -> Converted:
    """Read a configuration and make a study of it; nothing is written.

    Args:
        place: a file, or an https address.
        dialect: one of ``NAMES``, ``trl:dpo`` and its like; None goes by the keys.
        out: where the study will lie; paths are relative to its folder.

    Raises:
        StudyError: it cannot be read, or not be meant.
        UsageError: whose it is cannot be told.
        TrainingError: no trainer here does its task.
    """
    source = _source(place)
    name, _, method = (dialect or _recognised(source)).partition(":")
    if name not in NAMES:
        raise UsageError(
            f"{name!r} is none of the configurations that are read",
            where="--from",
            hint=f"One of {', '.join(NAMES)}.",
        )
    if name == AUTOTRAIN:
        made = translate(read_config(source), here=False)
        if made.study is None:
            raise StudyError("; ".join(made.missing), where=source.name)
        raw = dict(study_from(made.study, Path.cwd(), source.name).raw)
    else:
        if method:
            source.value["trainer"] = method
        made, loaded = read(next(d for d in DIALECTS if d.name == name), source)
        raw = dict(loaded.raw)
    study = _study(raw, source, out)
    notes = [*made.missing, *(f"{t.key}: {t.why}" for t in made.told if t.state == "later")]
    return Converted(made, study, _text(study, source, notes))


def _source(place: str) -> Source:
    path = Path(place).expanduser()
    if "://" not in place and path.suffix in ("", ".sh", ".txt"):
        text = read_text(path, "configuration")
        if _FLAG.search(text):
            return _command(text, place, path.absolute().parent)
    return read_source(place)


def _command(text: str, name: str, folder: Path) -> Source:
    """A command line's ``--key value`` as a mapping, with the line of each."""
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise StudyError(f"the command cannot be read: {error}", where=name) from None
    value: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {(): 1}
    key = None
    for word in words:
        if word.startswith("--"):
            key, equals, given = word[2:].partition("=")
            key = key.replace("-", "_")
            value[key] = parse_value(given) if equals else True
            before = text.partition(word.partition("=")[0])[0]
            lines[(key,)] = before.count("\n") + 1
        elif key is not None:
            made = parse_value(word)
            old = value[key]
            value[key] = made if old is True else [*(old if isinstance(old, list) else [old]), made]
    method = re.search(r"(?:\btrl\s+|/)(sft|dpo|orpo|kto|reward|grpo)(?:\.py)?\b", text)
    if method and "stage" not in value:
        value.setdefault("trainer", method[1])
    return Source(name, value, lines, folder)


def _recognised(source: Source) -> str:
    """Whose it is, by the keys that it has."""
    keys = {str(k) for k in _keys(source.value)}
    if len(_AUTOTRAIN_SIGNS & keys) >= 3:
        return AUTOTRAIN
    counted = sorted(((len(d.signs & keys), d.name) for d in DIALECTS), reverse=True)
    if counted[0][0] == 0 or counted[0][0] == counted[1][0]:
        raise UsageError(
            "whose configuration this is cannot be told by its keys",
            where=source.name,
            hint=f"Say it: --from {'|'.join(NAMES)}",
        )
    return counted[0][1]


def _keys(value: Any) -> set[Any]:
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(_keys(inner) for inner in value.values()))


def _study(raw: dict[str, Any], source: Source, out: Path) -> dict[str, Any]:
    """The study that ``tunewise run`` takes: with a metric that fits, and rows that it splits."""
    data, tuned = dict(raw.get("data") or {}), dict(raw.get("fine_tune") or {})
    name = raw.get("name") or study_name(Path(source.name).stem)
    study: dict[str, Any] = {"name": name, "model": raw.get("model"), "data": data}
    train = data.get("train")
    metric: Any = "exact_match"
    candidates = ["fine_tuned"]
    if tuned.get("method") not in ("pretrain", "reward") and train is not None:
        if "dev" not in data:
            data = {"examples": data.pop("train"), **data}
        if Path(train).exists():
            columns = Columns(**data.get("columns", {}))
            try:
                proposed = propose(train, columns=columns, model=str(raw.get("model"))).study
                metric, candidates = proposed["metric"], proposed["candidates"]
            except TunewiseError:
                pass  # the run says what is wrong with the rows, with their lines
    study["data"] = {key: _beside(value, out) for key, value in data.items() if value}
    study["model"] = _beside(study["model"], out)
    study |= {"metric": metric, "candidates": candidates, "fine_tune": tuned}
    return study


def _beside(value: Any, out: Path) -> Any:
    path = Path(value) if isinstance(value, str) else None
    if path is None or not path.is_absolute() or not path.exists():
        return value
    folder = out.absolute().parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else value


def _text(study: Mapping[str, Any], source: Source, notes: list[str]) -> str:
    lines = [f"# Made by `tunewise convert` of {Path(source.name).name}."]
    for note in notes:
        lines += [f"# To do: {line}" for line in textwrap.wrap(note, 88)]
    body = yaml.safe_dump(dict(study), sort_keys=False, allow_unicode=True, width=100)
    return redact("\n".join([*lines, "", body]))
