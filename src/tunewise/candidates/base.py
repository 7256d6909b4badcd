"""The joint to a way of getting answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from tunewise.data.chat import Completion, Example, Progress, Request
from tunewise.errors import StudyError
from tunewise.study.parts import Traits as Traits

if TYPE_CHECKING:
    from tunewise.candidates.context import BuildContext
    from tunewise.candidates.offers import Given
    from tunewise.study.schema import CandidateSpec


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


@runtime_checkable
class Trained(Protocol):
    """A candidate whose model is fine-tuned for it (``Traits.trained``)."""

    def training_examples(
        self, train: Sequence[Example], dev: Sequence[Example] = ()
    ) -> list[Example]:
        """The rows of ``train`` in their order, as the tuned model will later be asked."""
        ...


@runtime_checkable
class AnsweredBySeed(Protocol):
    """A fitted candidate that has several answers to a row, one a seed."""

    def answer_all_seeds(self, examples: Sequence[Example]) -> dict[int | None, list[Completion]]:
        """The answers of every seed, in order; None is a seed that nobody named."""
        ...

    @property
    def missing(self) -> list[str]:
        """Ids that were asked for and have no answer."""
        ...

    @property
    def extra(self) -> list[str]:
        """Ids with an answer that belong to no row seen so far."""
        ...


class CandidateKind(Protocol):
    """The class that an entry point of ``tunewise.candidates`` names.

    Attributes:
        traits: what candidates of this kind are.
    """

    traits: ClassVar[Traits]

    def from_study(self, spec: CandidateSpec, context: BuildContext) -> Candidate:
        """Make the candidate that a study describes; a class method."""
        ...


class Offering(Protocol):
    """A kind of ours that may be a candidate where a study names none."""

    def offer(self, given: Given) -> tuple[bool, str]:
        """Whether it fits, and why, in a sentence without a full stop; a class method."""
        ...
