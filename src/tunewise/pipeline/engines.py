"""The engines of one study: opened once, counted against the budget, closed at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunewise.data.chat import Completion
from tunewise.errors import BudgetError, StudyError
from tunewise.models.engine import Engine
from tunewise.models.names import parse_model
from tunewise.models.opening import open_engine
from tunewise.models.raw_form import Form
from tunewise.pipeline.costing import request_usd
from tunewise.study.keys import resolve_key
from tunewise.study.prices import Prices
from tunewise.study.schema import Study
from tunewise.verdict.prices import Usage


class Engines:
    """Opens models by name and keeps them; what hosted models bill is added up.

    Args:
        study: names the servers and ``costs.max_usd``.
        prices: what hosted models bill; needed where ``max_usd`` is set.
        answers: folder where every raw answer is kept.
        date: the study's, for chat templates that write one.
    """

    def __init__(
        self, study: Study, prices: Prices | None, answers: Path, date: Callable[[], str]
    ) -> None:
        self._study = study
        self._prices = prices
        self._answers = answers
        self._date = date
        self._open: dict[tuple[str, Path | None, Form], Engine] = {}
        self.spent_usd = 0.0

    def get(
        self,
        spec: str,
        adapter: Path | None = None,
        *,
        billed_as: str | None = None,
        form: Form = "chat",
    ) -> Engine:
        """The engine for a model, with an adapter or without.

        Args:
            form: of the text by which it is asked.
            billed_as: how the price file calls it, where not by ``spec``: a tuned model.

        Raises:
            ModelError: no such model, no key, no access.
            StudyError: a budget is set and the price of this hosted model is unknown.
        """
        key = (spec, adapter, form)
        if key not in self._open:
            meter = None
            if not parse_model(spec, self._study.servers).is_local:
                meter = self.metered(billed_as or spec)
            try:
                self._open[key] = open_engine(
                    spec,
                    servers=self._study.servers,
                    adapter=adapter,
                    cache_dir=self._answers,
                    key_resolver=resolve_key,
                    spend=meter,
                    date=self._date(),
                    form=form,
                )
            except StudyError as error:
                server, field = spec.partition(":")[0], (error.where or "").partition(":")[0]
                if field not in ("base_url", "api_key") or server not in self._study.servers:
                    raise
                where = f"servers.{server}.{field}"
                raise StudyError(error.message, where=where, hint=error.hint) from error
        return self._open[key]

    def metered(self, spec: str) -> _Meter:
        """What adds up the bills of a hosted model.

        Raises:
            StudyError: a budget is set and the price is unknown.
        """
        meter = _Meter(self, spec)
        if self._study.costs.max_usd is not None and meter.unknown:
            raise StudyError(
                f"`costs.max_usd` is set, but the price of {spec} is unknown",
                where="costs.prices",
                hint="Add the model's `input` and `output` price, or remove `max_usd`.",
            )
        return meter

    def close(self, *, tuned_only: bool = False) -> None:
        """Close them all, or those of tuned models: adapters, and whole models in folders."""
        for key in list(self._open):
            spec, adapter, _ = key
            if not tuned_only or adapter is not None or Path(spec).is_absolute():
                self._open.pop(key).close()

    def pay(self, usd: float) -> None:
        """Add to what the study has spent.

        Raises:
            BudgetError: that is more than ``costs.max_usd``.
        """
        self.spent_usd += usd
        limit = self._study.costs.max_usd
        if limit is not None and self.spent_usd > limit:
            raise BudgetError(
                f"the study has spent {self.spent_usd:.2f} US dollars, its limit is {limit:.2f}",
                where="costs.max_usd",
                hint="Raise the limit and run again: answers that were paid for are kept.",
            )


class _Meter:
    """Adds up what one hosted model bills."""

    def __init__(self, engines: Engines, spec: str) -> None:
        self._engines = engines
        price = engines._prices.models.get(spec) if engines._prices else None
        self._price = price
        # A hosting fee alone says nothing of what an answer is billed.
        self.unknown = price is None or (
            (price.input is None or price.output is None) and price.usd_per_request is None
        )

    def __call__(self, completion: Completion) -> None:
        if self.unknown or self._price is None:
            return
        usage = Usage(
            input=completion.prompt_tokens or 0,
            output=completion.completion_tokens or 0,
            cached=completion.cached_tokens or 0,
        )
        usd = request_usd(self._price, usage, seconds=completion.latency_s or 0.0)
        self._engines.pay(0.0 if usd is None else float(usd))
