"""What became of a configuration: a row for each key, and the study that came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["mapped", "defaulted", "no meaning here", "later"]
HIDDEN = "[secret]"
SECRETS = frozenset({"token", "hub_token", "api_key", "wandb_key", "hf_token"})
"""Keys, by their last part, whose values are never shown nor written."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one key.

    Attributes:
        key: as the configuration calls it.
        value: as read there, or its default; a secret is hidden.
        state: mapped to ours; the other tool's default, since the configuration is silent; without
            meaning here; or meant for a part of ours that does not exist yet.
        ours: our key, with its value where that differs; empty for none.
        why: in a sentence; empty where the mapping says it all.
        line: where it stands; None for defaults and flags.
    """

    key: str
    value: Any
    state: State
    ours: str = ""
    why: str = ""
    line: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("key", "value", "state", "ours", "why", "line")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Translation:
    """A configuration in our words.

    Attributes:
        dialect: whose it is: ``autotrain``, ``axolotl``, …
        task: in a few words, for instance ``LLM fine-tuning (sft)``.
        told: a row for each key.
        study: the keys of a study; None where no trainer of ours does the task yet.
        missing: why it cannot run now; empty where it can.
    """

    dialect: str
    task: str
    told: Sequence[Told]
    study: Mapping[str, Any] | None = None
    missing: Sequence[str] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "dialect": self.dialect,
            "task": self.task,
            "study": None if self.study is None else dict(self.study),
            "missing": list(self.missing),
            "told": [row.as_dict() for row in self.told],
        }


def told_twice(repeated: Iterable[tuple[str, int, int]]) -> list[Told]:
    """A row for each value that a later one of the same key replaces."""
    return [
        Told(key, "", "no meaning here", "", f"stands again in line {again}, and that counts", line)
        for key, line, again in repeated
    ]


def shown(key: str, value: Any) -> Any:
    """The value, unless its key is that of a secret."""
    secret = key.rpartition(".")[2] in SECRETS
    return HIDDEN if secret and value not in (None, "") else value
