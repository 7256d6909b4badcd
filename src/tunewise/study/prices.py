"""The price file: dated, with its source. Prices are data, never built in.

Example::

    date: 2026-11-01
    source: https://example.com/pricing
    models:
      openai:gpt-4.1-mini: {input: 0.40, cached: 0.10, output: 1.60}
      openai:ft:gpt-4.1-mini: {input: 0.80, cached: 0.20, output: 3.20}
      tunewise/tiny: {usd_per_hour: 0.50}
    training:
      openai:gpt-4.1-mini: {per_1m_tokens: 5.00}
      local: {usd_per_hour: 0.50}
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tunewise.errors import StudyError
from tunewise.study.complaints import Places
from tunewise.study.requirements import complaint
from tunewise.study.schema import Strict
from tunewise.study.yaml_source import parse_yaml, read_text

STALE_DAYS = 90


class ModelPrice(Strict):
    """What one model costs: by token, by request, by the hour of a machine, or by the month."""

    input: float | None = Field(None, ge=0, description="US dollars per 1M prompt tokens")
    cached: float | None = Field(None, ge=0, description="per 1M prompt tokens read from a cache")
    cache_write: float | None = Field(
        None, ge=0, description="per 1M prompt tokens written to a cache; as `input` if absent"
    )
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

    def tuned(self, model: str) -> ModelPrice | None:
        """What a model tuned from ``model`` costs to ask; a hosted one has a price of its own."""
        return self.models.get(tuned_name(model))

    def training_usd(
        self, route: str, model: str, seconds: float | None, tokens: int | None
    ) -> float | None:
        """US dollars of one training run; None where the file does not say."""
        price = self.training.get(model) or self.training.get(route)
        if price is None:
            return None
        parts = [
            None if rate is None or amount is None else rate * amount
            for rate, amount in (
                (price.usd_per_hour, None if seconds is None else seconds / 3600),
                (price.per_1m_tokens, None if tokens is None else tokens / 1e6),
            )
        ]
        known = [part for part in parts if part is not None]
        return sum(known) if known else None

    def age_days(self, today: datetime.date) -> int:
        """Days since the prices were read."""
        return (today - self.date).days


def tuned_name(model: str) -> str:
    """How a price file calls models tuned from ``model``: ``openai:ft:NAME`` for ``openai:NAME``.

    A model on this machine costs the same before and after.
    """
    server, colon, name = model.partition(":")
    return f"{server}:ft:{name}" if colon and not name.startswith("ft:") else model


def load_prices(path: Path) -> Prices:
    """Read a price file.

    Raises:
        StudyError: when it is missing, not YAML, or a key or value is wrong; with the line.
    """
    parsed = parse_yaml(read_text(path, "price file"), str(path))
    try:
        return Prices.model_validate(parsed.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    places = Places(str(path), parsed.lines)
    raise StudyError(_wrong(first), where=places.where(first["loc"]), hint=_FORM)


_FORM = (
    "A price file has `date: 2026-01-31`, `source: URL`, and "
    "`models: {NAME: {input: 0.4, output: 1.6}}` in US dollars per 1M tokens."
)


def _wrong(first: Mapping[str, Any]) -> str:
    if first["type"] == "missing":
        return "this key is missing"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = [*Prices.model_fields, *ModelPrice.model_fields, *TrainingPrice.model_fields]
        near = difflib.get_close_matches(key, known, n=1)
        return f"unknown key; did you mean `{near[0]}`?" if near else "unknown key"
    return complaint(first)
