"""The joint to a way of getting answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunewise.data.chat import Completion, Example, Progress, Request
from tunewise.errors import StudyError


class NotOfferedError(StudyError):
    """A candidate that cannot be measured on these data; the others can.

    The message is the reason, fit for the report beside the candidate's name.
    """


class Fitted(Protocol):
    """A candidate with everything chosen; it only answers."""

    @property
    def dev_completions(self) -> list[Completion] | None:
        """The chosen setting's answers to all dev rows, in order; None where dev was empty."""
        ...

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

    @property
    def name(self) -> str:
        """How the report calls it."""
        ...

    @property
    def kind(self) -> str:
        """As written in the study file."""
        ...

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> Fitted:
        """Choose on ``dev``, learn from ``train``.

        Raises:
            NotOfferedError: when these data cannot be answered this way.
        """
        ...
