"""The joint to a way of getting answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunewise.data.chat import Completion, Example, Progress, Request


class Fitted(Protocol):
    """A candidate with everything chosen; it only answers."""

    def answer(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Completion]:
        """One completion per example, in order."""
        ...

    def request(self, example: Example) -> Request | None:
        """The request for one example, or None where no request is made (classifier, recorded)."""
        ...

    def chosen(self) -> Mapping[str, Any]:
        """What was chosen on dev (k, order, passages…) and how each choice scored; JSON values."""
        ...


class Candidate(Protocol):
    """One way of getting answers. Whatever there is to choose is chosen on dev, in ``fit``."""

    name: str
    kind: str

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> Fitted: ...
