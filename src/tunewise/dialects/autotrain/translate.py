"""A configuration of AutoTrain's in our words, with a row for each of its keys."""

from __future__ import annotations

import json
from typing import Any

from tunewise.dialects.autotrain.config import Config, cloud_of, expanded
from tunewise.dialects.autotrain.language import LanguageStudy, Mapped
from tunewise.dialects.autotrain.parameters import PARAMETERS
from tunewise.dialects.autotrain.tasks import LOCAL_BACKENDS
from tunewise.dialects.told import State, Told, Translation, shown

_HUB = ("push_to_hub", "username", "token")


def translate(config: Config, *, here: bool = True) -> Translation:
    """What a configuration means here.

    Args:
        here: as of ``LanguageStudy``.

    Raises:
        StudyError: its rows are not as it says.
    """
    label = config.task.label + (f" ({config.trainer})" if config.trainer else "")
    missing: list[str] = []
    study: dict[str, Any] | None = None
    if config.task.name == "llm":
        made = LanguageStudy(config, here=here)
        study, mapped = made.study, made.mapped
        missing += dict.fromkeys(made.missing)
    else:
        mapped = {name: _later(name) for name in config.values}
        missing.append(
            f"the trainer for {config.task.label} is not here yet: Tunewise trains language "
            "models (`llm-…`). The configuration was understood as the table says"
        )
    cloud = cloud_of(config.backend)
    if cloud is not None:
        missing.append(
            f"`backend: {config.backend}` means {cloud}, and there is no launcher for it yet: "
            "run it here with `backend: local`, or start the same command on such a machine"
        )
    told = [_row(config, name, mapped[name], later=study is None) for name in config.values]
    told.append(_backend(config, cloud))
    if "trainer" not in config.written or config.written["trainer"] != ("task",):
        line = config.places.lines.get(("task",))
        told.append(Told("task", config.task.name, "mapped" if study else "later", "", label, line))
    if study is not None and study["fine_tune"]["method"] == "sft":
        why = (
            "AutoTrain learns prompts too; here the assistant's messages alone. As there: "
            "`--set fine_tune.trained_rows=all`"
        )
        told.append(Told("(prompts)", "", "defaulted", "fine_tune.trained_rows: answers", why))
    return Translation("autotrain", label, [*told, *config.ignored], study, missing)


def _later(name: str) -> Mapped:
    known = PARAMETERS[name]
    return Mapped(known.ours, None, known.why)


def _row(config: Config, name: str, mapped: Mapped, *, later: bool) -> Told:
    value = config.values[name]
    written = name in config.written
    key = ".".join(map(str, config.written.get(name, (name,))))
    if name in _HUB:
        return _hub_row(config, name, key, value)
    ours = mapped.ours
    if ours and mapped.value is not None and mapped.value != value:
        ours += f": {json.dumps(mapped.value, ensure_ascii=False)}"
    state: State = "mapped"
    if later:
        state = "no meaning here" if mapped.why and not mapped.ours else "later"
    elif not mapped.ours and not _heeded(name):
        state = "no meaning here"
    if not written and state != "later":
        state = "defaulted"
    return Told(key, shown(name, value), state, ours, mapped.why, config.line(name))


def _heeded(name: str) -> bool:
    """Whether the parameter takes effect here, though no key of a study holds it."""
    return name.endswith("_column") or name in {"merge_adapter", "gradient_accumulation"}


def _hub_row(config: Config, name: str, key: str, value: Any) -> Told:
    written = name in config.written
    why = PARAMETERS[name].why
    if not config.values["push_to_hub"]:
        why = "nothing is uploaded"
    elif name == "username":
        unset: list[str] = []
        if expanded(value, unset.append) is None and unset:
            why = f"the environment variable {unset[0]} is not set"
    state: State = "mapped" if written else "defaulted"
    return Told(key, shown(name, value), state, "", why, config.line(name))


def _backend(config: Config, cloud: str | None) -> Told:
    line = config.places.lines.get(("backend",))
    if config.backend in LOCAL_BACKENDS:
        return Told("backend", config.backend, "mapped", "fine_tune.route: local", "", line)
    return Told("backend", config.backend, "later", "", f"{cloud}: no launcher yet", line)
