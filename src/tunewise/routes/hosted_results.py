"""A finished job's result file: losses step by step, in each form that the services have sent."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import math
from dataclasses import dataclass, field

from tunewise.errors import TrainingError

_VALIDATION = ("full_valid_loss", "valid_loss", "validation_loss", "full_validation_loss")


@dataclass(frozen=True)
class Curves:
    """What a result file holds.

    Attributes:
        train_loss: (step, loss), by step.
        dev_loss: the same on the validation file: the whole of it where it was measured, else
            samples of it.
        metrics: each figure as it last was.
        last_step: of which there is any figure; 0 where there is none.
    """

    train_loss: list[tuple[int, float]] = field(default_factory=list)
    dev_loss: list[tuple[int, float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    last_step: int = 0


def parse_results(content: bytes, where: str = "result file") -> Curves:
    """Read a result file: CSV, plain or in base64 (OpenAI has sent both); empty cells are unknown.

    Raises:
        TrainingError: it is neither.
    """
    text = _decoded(content, where)
    rows = csv.DictReader(io.StringIO(text))
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        for row in rows:
            step = _number(row.get("step"))
            if step is None:
                continue
            for name, cell in row.items():
                value = _number(cell)
                if name is None or name == "step" or value is None:
                    continue
                # Azure writes -1 where a loss or an accuracy was not measured at a step.
                if value != -1 or not name.endswith(("loss", "accuracy")):
                    curves.setdefault(name, []).append((int(step), value))
    except csv.Error as error:
        raise TrainingError(f"the result file is no CSV: {error}", where=where) from None
    validation = next((curves[n] for n in _VALIDATION if n in curves), [])
    return Curves(
        train_loss=sorted(curves.get("train_loss", [])),
        dev_loss=sorted(validation),
        metrics={name: max(points)[1] for name, points in curves.items()},
        last_step=max((step for points in curves.values() for step, _ in points), default=0),
    )


def _decoded(content: bytes, where: str) -> str:
    text = content.decode("utf-8-sig", "replace").strip()
    if not text.startswith("step"):
        try:
            text = base64.b64decode("".join(text.split()), validate=True).decode("utf-8-sig")
        except (binascii.Error, UnicodeDecodeError):
            text = ""
    header = text.partition("\n")[0].split(",")
    if "step" not in [name.strip() for name in header]:
        raise TrainingError("the result file has no column `step`", where=where)
    return text


def _number(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None
