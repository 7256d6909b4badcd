"""Fine-tuning at OpenAI, or at any server that speaks its fine-tuning API, such as our own."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from tunewise.data.findings import Finding
from tunewise.routes.hosted import HostedRoute
from tunewise.routes.hosted_rows import RowLimits
from tunewise.training.job import TrainingJob

OPENAI_HOST = "api.openai.com"
CLOSED_TO_NEW = datetime.date(2026, 5, 7)
CLOSED_TO_IDLE = datetime.date(2026, 7, 2)
CLOSED = datetime.date(2027, 1, 6)
"""The last day on which OpenAI makes fine-tuning jobs, as announced in 2026."""

# Longest training example, by the beginning of the model's name (OpenAI's fine-tuning guide).
_ROW_TOKENS = {"gpt-4.1": 65_536, "gpt-4o": 65_536, "gpt-3.5-turbo": 16_385}


class OpenAIRoute(HostedRoute):
    """OpenAI's fine-tuning API, at the address of OPENAI_BASE_URL or of a study's server."""

    name = service = "openai"

    def limits(self, job: TrainingJob) -> RowLimits:
        """OpenAI's own; other servers have theirs."""
        if not self._is_openai(job):
            return RowLimits()
        model = self.base_model(job)
        known = (n for start, n in _ROW_TOKENS.items() if model.startswith(start))
        return RowLimits(row_tokens=next(known, None))

    def notes(self, job: TrainingJob) -> Iterator[Finding]:
        """When OpenAI closes, for jobs that would go there."""
        if not self._is_openai(job):
            return
        today = datetime.datetime.now(datetime.UTC).date()
        when = "takes" if today <= CLOSED else "said that it would take"
        yield Finding(
            "training_not_available",
            "warning",
            1,
            (),
            f"OpenAI {when} no fine-tuning jobs after {CLOSED}; organisations new to it are "
            f"closed out since {CLOSED_TO_NEW}, those without recent use since {CLOSED_TO_IDLE}",
            "Keep the data: the same study runs with `route: local`, `route: azure`, or against "
            "your own `tunewise serve` (OPENAI_BASE_URL).",
        )

    def _is_openai(self, job: TrainingJob) -> bool:
        from tunewise.models.opening import address_of
        from tunewise.study.keys import parse_base_url

        return parse_base_url(address_of(self._ref(job.model))).host == OPENAI_HOST
