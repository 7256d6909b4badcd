"""The joint to where fine-tuning runs: it takes hours, so it is never one blocking call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tunewise.data.findings import Finding
from tunewise.errors import TunewiseError
from tunewise.study.parts import ROUTES as ROUTES
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


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the program asks of a route before it uses it; nobody goes by a route's name.

    The defaults are those of a service of which nothing is known: it keeps the weights, it may
    charge money, and nothing of it runs on this machine.

    Attributes:
        local_weights: it tunes a model whose weights lie on this machine, and gives weights back;
            else it tunes models by name, and the tuned one is asked where it was made.
        this_machine: it trains here, in a process that this one can pause. Several learning rates
            are then tried, trackers follow it, and its settings can be explained beforehand.
        charges_money: what a run costs counts against ``costs.max_usd``.
    """

    local_weights: bool = False
    this_machine: bool = False
    charges_money: bool = True


class Route(Protocol):
    """A place where fine-tuning runs.

    Attributes:
        name: as written in ``fine_tune.route``.
        capabilities: what it can; see ``Capabilities``.
    """

    name: str
    capabilities: Capabilities

    def missing(self) -> str | None:
        """What must be done here before it can be used, in a sentence; None if nothing."""
        ...

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


def open_route(
    name: str, *, servers: Mapping[str, Server] | None = None, prices: Prices | None = None
) -> Route:
    """The route called ``name``, of this package or another.

    Args:
        servers: the study's, for routes that go to one.
        prices: what training costs.

    Raises:
        TrainingError: there is none of that name, or more than one; it cannot be imported or
            opened, or it is no route.
    """
    factory = ROUTES.load(name)
    given = {"servers": servers, "prices": prices}
    try:
        takes = inspect.signature(factory).parameters
        route: Route = factory(**{key: value for key, value in given.items() if key in takes})
    except TunewiseError:
        raise
    except Exception as error:  # another package's code
        raise ROUTES.failed(ROUTES.find(name), error) from error
    ROUTES.checked(name, route)
    return route
