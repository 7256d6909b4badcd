"""The joint to where fine-tuning runs: it takes hours, so it is never one blocking call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tunewise.data.findings import Finding
from tunewise.errors import TrainingError
from tunewise.training.job import TrainingJob, TrainingResult

if TYPE_CHECKING:
    from tunewise.study.prices import Prices
    from tunewise.study.schema import Server

State = Literal["queued", "running", "paused", "interrupted", "succeeded", "failed", "cancelled"]
Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands.

    Attributes:
        state: ``interrupted`` is a run whose process is gone (a crash, a restart); it can be
            resumed, as can ``paused``.
        step, total_steps: optimiser steps, where known.
        seconds_left: as last estimated.
        error: why it failed, for the user.
    """

    state: State
    step: int | None = None
    total_steps: int | None = None
    seconds_left: float | None = None
    error: str | None = None

    @property
    def over(self) -> bool:
        """Nothing more will happen unless somebody resumes it."""
        return self.state not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job will take; None is unknown.

    Attributes:
        seconds: of training.
        peak_memory_bytes: of the process that trains.
        usd: money charged by the route.
        tokens: learnt from, over all epochs.
        steps: optimiser steps.
        basis: what the figures rest on, for the report.
    """

    seconds: float | None
    peak_memory_bytes: int | None
    usd: float | None
    tokens: int | None
    steps: int | None
    basis: str


class Handle(Protocol):
    """One submitted job.

    Attributes:
        id: enough for ``Route.attach``, also from another process.
    """

    id: str

    def events(self, since: int = 0) -> list[Event]:
        """Events from number ``since`` (counted from 0) on."""
        ...

    def status(self) -> Status:
        """How it stands now."""
        ...

    def cancel(self) -> None:
        """Stop for good."""
        ...

    def pause(self) -> None:
        """Make a checkpoint and stop; ``resume`` goes on."""
        ...

    def resume(self) -> None:
        """Go on after a pause or an interruption; harmless while it runs."""
        ...

    def result(self, timeout: float | None = None) -> TrainingResult:
        """Wait for the end.

        Args:
            timeout: seconds; None waits without limit.

        Raises:
            TrainingError: it failed, was stopped, or takes longer than ``timeout``.
        """
        ...


class Route(Protocol):
    """A place where fine-tuning runs.

    Attributes:
        name: as written in ``fine_tune.route``.
    """

    name: str

    def check(self, job: TrainingJob) -> list[Finding]:
        """Whether it can, before anything is spent: an ``error`` among the findings says no."""
        ...

    def forecast(self, job: TrainingJob) -> Forecast:
        """Time, memory and money."""
        ...

    def submit(self, job: TrainingJob) -> Handle:
        """Start the job, or find it: the same job twice is one job."""
        ...

    def attach(self, id: str) -> Handle:
        """A job that was submitted before, perhaps by another process."""
        ...


_BUILT_IN: Mapping[str, str] = {
    "local": "tunewise.routes.local:LocalRoute",
    "openai": "tunewise.routes.openai:OpenAIRoute",
    "azure": "tunewise.routes.azure:AzureRoute",
}


def routes() -> dict[str, str]:
    """Names of all installed routes and where each comes from."""
    found = dict(_BUILT_IN)
    found.update({e.name: e.value for e in entry_points(group="tunewise.routes")})
    return found


def open_route(
    name: str, *, servers: Mapping[str, Server] | None = None, prices: Prices | None = None
) -> Route:
    """The route called ``name``: a built-in one, or one of an entry point ``tunewise.routes``.

    Args:
        servers: the study's, for the hosted routes.
        prices: what hosted training costs.

    Raises:
        TrainingError: there is none of that name, or it cannot be imported.
    """
    if name == "local":
        from tunewise.routes.local import LocalRoute

        return LocalRoute()
    if name == "openai":
        from tunewise.routes.openai import OpenAIRoute

        return OpenAIRoute(servers, prices)
    if name == "azure":
        from tunewise.routes.azure import AzureRoute

        return AzureRoute(servers, prices)
    for entry in entry_points(group="tunewise.routes", name=name):
        try:
            route: Route = entry.load()()
        except Exception as error:  # another package's code
            raise TrainingError(
                f"the route cannot be opened: {error}",
                where=f"fine_tune.route: {name}",
                hint=f"It comes from {entry.value}; is that package complete?",
            ) from error
        return route
    known: Sequence[str] = sorted(routes())
    raise TrainingError(
        "no such route",
        where=f"fine_tune.route: {name}",
        hint=f"Installed routes: {', '.join(known)}.",
    )
