"""Which request goes to the engine next: projects take turns, whoever asked first or most.

The engine computes the oldest first. Were all that wait inside it, one project's thousand requests
would stand before everybody's; so no more are inside than are computed at once, and the others wait
here, in a lane for each project.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

Entry = Literal["go", "wait", "full", "share"]


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A request.

    Attributes:
        base: the model that computes it: each has places of its own.
        scope: whose it is; empty is the server's own, which has no share.
        rows: answers, at most all places of a model.
    """

    id: str
    base: str
    scope: str
    rows: int


@dataclass(slots=True)
class _Model:
    """One model's places."""

    inside: Counter[str] = field(default_factory=Counter)
    lanes: dict[str, deque[_Ticket]] = field(default_factory=dict)
    turn: Counter[str] = field(default_factory=Counter)


class Lanes:
    """Places in the engine; its methods are called under one lock.

    Args:
        rows: answers of one model that are inside at once.
        total: answers of all models that are inside or wait; more are ``full``.
        share: of them, those of one project; more are ``share``.
    """

    def __init__(self, rows: int, total: int, share: int) -> None:
        self._rows, self._total, self._share = rows, total, share
        self._turns = 0
        self.clear()

    @property
    def held(self) -> int:
        """Answers that are inside or wait."""
        return self._held.total()

    def held_by(self, scope: str) -> int:
        """Those of one project."""
        return self._held[scope]

    def enter(self, id: str, base: str, scope: str, rows: int) -> Entry:
        """A new request: whether it may go in, waits, or is refused."""
        if self._tickets and self.held + rows > self._total:
            return "full"
        if scope and self._held[scope] and self._held[scope] + rows > self._share:
            return "share"
        ticket = self._tickets[id] = _Ticket(id, base, scope, rows)
        self._held[scope] += rows
        model = self._models.setdefault(base, _Model())
        if not model.lanes and self._fits(model, ticket):
            self._go(model, ticket)
            return "go"
        self._waiting.add(id)
        model.lanes.setdefault(scope, deque()).append(ticket)
        return "wait"

    def leave(self, id: str) -> list[str]:
        """A request is over or given up; those that may go in now."""
        ticket = self._tickets.pop(id, None)
        if ticket is None:
            return []
        model = self._models[ticket.base]
        self._held[ticket.scope] -= ticket.rows
        if id in self._waiting:
            self._waiting.remove(id)
            model.lanes[ticket.scope].remove(ticket)
        else:
            model.inside[ticket.scope] -= self._counted(ticket)
        going = []
        while (following := self._next(model)) is not None and self._fits(model, following):
            model.lanes[following.scope].popleft()
            self._waiting.remove(following.id)
            self._go(model, following)
            going.append(following.id)
        model.lanes = {scope: lane for scope, lane in model.lanes.items() if lane}
        self._held += Counter()  # zeros go
        if not model.lanes and not model.inside.total():
            del self._models[ticket.base]
        return going

    def clear(self) -> None:
        """All requests are gone."""
        self._models: dict[str, _Model] = {}
        self._tickets: dict[str, _Ticket] = {}
        self._waiting: set[str] = set()
        self._held: Counter[str] = Counter()

    def _next(self, model: _Model) -> _Ticket | None:
        """The oldest of the project with the fewest inside, whose last turn is longest ago."""
        waiting = [scope for scope, lane in model.lanes.items() if lane]
        if not waiting:
            return None
        scope = min(waiting, key=lambda one: (model.inside[one], model.turn[one]))
        return model.lanes[scope][0]

    def _fits(self, model: _Model, ticket: _Ticket) -> bool:
        return model.inside.total() + self._counted(ticket) <= self._rows

    def _counted(self, ticket: _Ticket) -> int:
        return min(ticket.rows, self._rows)

    def _go(self, model: _Model, ticket: _Ticket) -> None:
        self._turns += 1
        model.turn[ticket.scope] = self._turns
        model.inside[ticket.scope] += self._counted(ticket)
