"""A job's result file: its figures step by step, as CSV with OpenAI's and Azure's columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS: Mapping[str, str] = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    "train_mean_token_accuracy": "train_mean_token_accuracy",
    "validation_mean_token_accuracy": "valid_mean_token_accuracy",
    "full_valid_loss": "full_valid_loss",
    "full_valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
}
"""Columns, and which figure of a step stands in each. Accuracy has one name at OpenAI and two at
Azure; programs written for either find theirs."""

FILENAME = "step_metrics.csv"


def results_csv(steps: Iterable[Mapping[str, Any]]) -> bytes:
    """The file of a job's steps, in their order; a figure that a step has not is left empty.

    Columns of a method's own figures (rewards, margins) follow the fixed ones. Cells hold numbers
    only and names of columns are ours, so there is nothing that a spreadsheet would run.
    """
    rows = [dict(step) for step in steps]
    known = {*COLUMNS.values(), *COLUMNS, "total_steps"}
    own = sorted({name for row in rows for name in row} - known)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *own])
    for row in rows:
        names = [*COLUMNS.values(), *own]
        writer.writerow([_cell(row.get(name)) for name in names])
    return text.getvalue().encode("ascii")


def _cell(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else ""
