"""Which kinds of candidates fit some data: what a study measures that names none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tunewise.data.chat import Example
from tunewise.plugins import loaded
from tunewise.study.parts import KINDS

Condition = tuple[bool, str]
"""Whether something holds, and why a kind that needs it is not offered where it does not."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Whether a kind of candidate fits the data, and why.

    Attributes:
        kind: as written in the study file.
        offered: whether it is a candidate by default.
        reason: one sentence without a full stop.
    """

    kind: str
    offered: bool
    reason: str


@dataclass(frozen=True)
class Given:
    """What there is to answer with; each kind's ``offer`` decides on it."""

    train: Sequence[Example]
    has_documents: bool
    has_model: bool
    can_train: bool

    @property
    def model(self) -> Condition:
        """There is a model to ask."""
        return self.has_model, "the study names no model"

    @property
    def documents(self) -> Condition:
        """There are documents to search."""
        return self.has_documents, "there are no documents to search"

    @property
    def trainable(self) -> Condition:
        """The model can be fine-tuned by the study's route."""
        against = "this model cannot be fine-tuned here" if self.has_model else self.model[1]
        return self.has_model and self.can_train, against

    @cached_property
    def answered(self) -> Condition:
        """Some training rows have answers."""
        holds = any(row.target is not None for row in self.train)
        return holds, "no training row has an answer"


def decide(why: str, *conditions: Condition) -> tuple[bool, str]:
    """Offered for the reason ``why`` where all conditions hold; else the first reason against."""
    against = next((reason for holds, reason in conditions if not holds), None)
    return against is None, against or why


def offers(
    train: Sequence[Example], *, has_documents: bool, has_model: bool, can_train: bool
) -> list[Offer]:
    """Every kind of ours that says when it fits, the simplest first, with its reason.

    Kinds of other packages are measured where a study names them, so that installing a package
    changes no study.
    """
    given = Given(train, has_documents, has_model, can_train)
    own = [(part.name, loaded(part)) for part in KINDS.parts() if part.own]
    deciding = [(kind, made) for kind, made in own if hasattr(made, "offer")]
    deciding.sort(key=lambda named: (named[1].traits.complexity, named[0]))
    return [Offer(kind, *made.offer(given)) for kind, made in deciding]


def default_candidates(
    train: Sequence[Example], *, has_documents: bool, has_model: bool, can_train: bool
) -> list[str]:
    """The kinds that a study without ``candidates`` measures; :func:`offers` has the reasons.

    Raises:
        StudyError: another package brings a kind of the same name as one of them.
    """
    found = offers(train, has_documents=has_documents, has_model=has_model, can_train=can_train)
    return [KINDS.find(offer.kind).name for offer in found if offer.offered]
