"""What stands beside tuned weights: how they were trained, as far as asking them depends on it."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tunewise.errors import ModelError
from tunewise.models.raw_form import Form
from tunewise.workspace import write_json_atomic

TRAINED_AS = "tunewise.json"
"""The file's name, in the folder of an adapter or of a whole model."""


@dataclass(frozen=True, slots=True)
class TrainedAs:
    """How tuned weights want to be asked.

    Attributes:
        date: ISO 8601, of the day that chat templates wrote as today's; None where nobody said.
        form: of the text that was learnt from; None where nobody said.
    """

    date: str | None = None
    form: Form | None = None

    def write(self, folder: Path) -> None:
        """Write it beside the weights in ``folder``.

        Raises:
            WorkspaceError: the disk is full or the folder cannot be written.
        """
        write_json_atomic(folder / TRAINED_AS, asdict(self))


def trained_as(folder: Path) -> TrainedAs:
    """What stands beside the weights in ``folder``; nothing where they were made elsewhere.

    Raises:
        ModelError: the file cannot be meant.
    """
    path = folder / TRAINED_AS
    if not path.is_file():
        return TrainedAs()
    try:
        value = json.loads(path.read_text("utf-8"))
        date, form = value.get("date"), value.get("form")
        if date is not None:
            dt.date.fromisoformat(date)
        if form not in (None, "chat", "raw"):
            raise ValueError(f"there is no form {form!r}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"how the weights were trained cannot be read: {error}",
            where=str(path),
            hint="Delete the file: the model is then asked as if it had been made elsewhere.",
        ) from error
    return TrainedAs(date, form)
