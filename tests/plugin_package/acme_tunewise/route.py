"""A route that rents a machine: it takes weights, gives weights back, and costs three dollars."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tunewise.routes.base import Capabilities, Forecast, Status
from tunewise.training.job import TrainingJob, TrainingResult


class AcmeRoute:
    """Trains where it is called, and notes in ``$ACME_NOTES`` what it was asked to do."""

    name = "acme"
    capabilities = Capabilities(local_weights=True, this_machine=False, charges_money=True)

    def __init__(self, servers: Any = None, prices: Any = None) -> None:
        self.servers, self.prices = servers, prices

    def missing(self) -> str | None:
        return None if "ACME_NOTES" in os.environ else "set ACME_NOTES"

    def check(self, job: TrainingJob) -> list[Any]:
        return []

    def forecast(self, job: TrainingJob) -> Forecast:
        return Forecast(None, None, 3.0, None, None, "a flat price")

    def submit(self, job: TrainingJob) -> AcmeHandle:
        self._note(job)
        return AcmeHandle(job)

    def attach(self, id: str) -> AcmeHandle:
        raise NotImplementedError

    def _note(self, job: TrainingJob) -> None:
        with Path(os.environ["ACME_NOTES"]).open("a") as file:
            told = {
                "learning_rate": job.learning_rate,
                "servers": sorted(self.servers or {}),
                "prices": None if self.prices is None else str(self.prices.date),
            }
            file.write(json.dumps(told) + "\n")


class AcmeHandle:
    """A job that is over when it has been asked for."""

    def __init__(self, job: TrainingJob) -> None:
        self.id, self._job = str(job.output), job

    def events(self, since: int = 0) -> list[Any]:
        return []

    def status(self) -> Status:
        return Status("succeeded")

    def cancel(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def result(self, timeout: float | None = None) -> TrainingResult:
        from tunewise.training.loop import train

        return train(self._job)
