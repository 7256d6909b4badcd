"""What a request costs, and what a candidate costs however little it is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunewise.errors import DataError
from tunewise.verdict.intervals import FloatArray

HOURS_PER_MONTH = 730.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a model's provider bills, in US dollars.

    Attributes:
        input, output: per 1M tokens. Thinking tokens are billed as output.
        cached: per 1M input tokens read from a cache; None: as ``input``.
        cache_write: per 1M input tokens written to a cache; None: as ``input``.
        per_request: retrieval, reranking and the like, per request.
    """

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    per_request: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of each request, counted from real requests; scalars or arrays of shape (n,).

    Attributes:
        input: all input tokens.
        output: all output tokens, thinking included.
        static: those of ``input`` that every request repeats at its start, and that a cache may
            hold (the text of nearest-neighbour shots and passages is not among them).
        cached: those of ``input`` that the provider billed as cached, where it says so; the
            share of hits is then not needed.
    """

    input: npt.ArrayLike
    output: npt.ArrayLike
    static: npt.ArrayLike = 0
    cached: npt.ArrayLike | None = None


def cost_per_request(
    usage: Usage, prices: Prices, *, hit_rate: float = 0.0, retry_rate: float = 0.0
) -> FloatArray:
    """US dollars of each request, shape (n,) or ().

    ``[T_static(h·p_cached + (1 − h)·p_write) + T_dynamic·p_in + T_out·p_out]/1e6·(1 + retries)``
    plus what retrieval and the like cost. With ``hit_rate`` 0 no cache is in use and nothing is
    written to one: a static token costs the input price.

    Args:
        hit_rate: share of static tokens that come from the cache, 0..1.
        retry_rate: repeated requests per request.

    Raises:
        DataError: negative counts, or more static or cached tokens than input tokens.
    """
    tokens = np.asarray(usage.input, dtype=np.float64)
    output = np.asarray(usage.output, dtype=np.float64)
    read = prices.input if prices.cached is None else prices.cached
    write = prices.input if prices.cache_write is None or hit_rate == 0 else prices.cache_write
    if usage.cached is not None:
        special = np.asarray(usage.cached, dtype=np.float64)
        price = read
    else:
        special = np.asarray(usage.static, dtype=np.float64)
        price = hit_rate * read + (1 - hit_rate) * write
    if np.any(special > tokens) or min(map(np.min, (tokens, output, special)), default=0) < 0:
        raise DataError(
            "token counts of a request contradict each other",
            hint="No count may be negative, and cached or static tokens are part of the input.",
        )
    paid = special * price + (tokens - special) * prices.input + output * prices.output
    return np.asarray(paid / 1e6 * (1 + retry_rate) + prices.per_request, dtype=np.float64)


def train_cost_by_token(*, tokens: float, epochs: float, usd_per_million: float) -> float:
    """US dollars of one training run that is billed by token."""
    return tokens * epochs * usd_per_million / 1e6


def train_cost_by_time(
    *, tokens: float, epochs: float, tokens_per_second: float, usd_per_hour: float
) -> float:
    """US dollars of one training run that is billed by the hour."""
    return tokens * epochs / tokens_per_second / 3600.0 * usd_per_hour


def hosting_per_month(*, usd_per_hour: float, replicas: int = 1) -> float:
    """US dollars a month (730 h) for machines that always run."""
    return usd_per_hour * replicas * HOURS_PER_MONTH


def replicas_needed(*, peak_requests_per_second: float, measured_per_second: float) -> int:
    """Machines for the peak, from the rate that one was measured to serve."""
    return max(1, -int(-peak_requests_per_second // measured_per_second))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What a candidate costs however little it is used, in US dollars.

    Attributes:
        once: labels, training runs, evaluation, hours; spread over the horizon. What is already
            spent whatever the verdict (sunk cost) does not belong here.
        per_month: hosting, vector store.
    """

    once: float = 0.0
    per_month: float = 0.0


def once(
    *,
    labels: float = 0.0,
    usd_per_label: float = 0.0,
    runs: float = 0.0,
    usd_per_run: float = 0.0,
    evaluation: float = 0.0,
    hours: float = 0.0,
    usd_per_hour: float = 0.0,
    horizon_months: float = 12.0,
    retrains_per_year: float = 0.0,
    usd_per_retrain: float = 0.0,
) -> float:
    """One-off US dollars over the horizon, retraining included."""
    retrains = horizon_months / 12.0 * retrains_per_year
    return (
        labels * usd_per_label
        + runs * usd_per_run
        + evaluation
        + hours * usd_per_hour
        + retrains * usd_per_retrain
    )


def cost_per_month(
    per_request: float, fixed: Fixed, *, requests_per_month: float, horizon_months: float = 12.0
) -> float:
    """``F/H + M + Q·c``: what a candidate costs a month at a volume, in US dollars."""
    return fixed.once / horizon_months + fixed.per_month + requests_per_month * per_request
