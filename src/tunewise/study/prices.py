"""The price file: dated, with its source. Prices are data, never built in.

Example::

    date: 2026-11-01
    source: https://example.com/pricing
    models:
      openai:gpt-4.1-mini: {input: 0.40, cached: 0.10, output: 1.60}
      tunewise/tiny: {usd_per_hour: 0.50}
    training:
      openai:gpt-4.1-mini: {per_1m_tokens: 5.00}
      local: {usd_per_hour: 0.50}
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from tunewise.errors import StudyError
from tunewise.study.schema import Strict

STALE_DAYS = 90


class ModelPrice(Strict):
    """What one model costs: by token, by request, by the hour of a machine, or by the month."""

    input: float | None = Field(None, ge=0, description="US dollars per 1M prompt tokens")
    cached: float | None = Field(None, ge=0, description="per 1M prompt tokens read from a cache")
    output: float | None = Field(None, ge=0, description="per 1M answer tokens")
    usd_per_request: float | None = Field(None, ge=0)
    usd_per_hour: float | None = Field(
        None, ge=0, description="machine that answers one request after another, billed by use"
    )
    usd_per_month: float | None = Field(None, ge=0, description="hosting, whether used or not")


class TrainingPrice(Strict):
    """What training costs on a route or for a hosted model."""

    per_1m_tokens: float | None = Field(None, ge=0)
    usd_per_hour: float | None = Field(None, ge=0)


class Prices(Strict):
    """A dated price file."""

    date: datetime.date
    source: str = Field(min_length=1, description="where the prices were read")
    models: dict[str, ModelPrice] = Field(default_factory=dict)
    training: dict[str, TrainingPrice] = Field(default_factory=dict)

    def age_days(self, today: datetime.date) -> int:
        """Days since the prices were read."""
        return (today - self.date).days


def load_prices(path: Path) -> Prices:
    """Read a price file.

    Raises:
        StudyError: when it is missing, not YAML, or a key or value is wrong.
    """
    try:
        raw: Any = yaml.safe_load(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise StudyError("no such price file", where=str(path)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"cannot be read as YAML: {error}", where=str(path)) from None
    try:
        return Prices.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StudyError(
            f"{first['msg']}",
            where=f"{path}: {key}",
            hint="A price file has `date`, `source` and `models: {NAME: {input: …, output: …}}`.",
        ) from None
