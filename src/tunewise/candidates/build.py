"""From the study's words to candidates: which are offered, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tunewise.candidates.base import Candidate
from tunewise.candidates.choosing import Effort
from tunewise.candidates.classifier import Classifier, offered
from tunewise.candidates.few_shot import FewShot
from tunewise.candidates.fine_tuned import FineTuned, FineTunedRag
from tunewise.candidates.passages import HasText
from tunewise.candidates.prompting import Limits
from tunewise.candidates.rag import Rag
from tunewise.candidates.recorded import Recorded, RecordedAnswers, read_recorded
from tunewise.candidates.retrieval import PASSAGE_WORDS
from tunewise.candidates.zero_shot import ZeroShot
from tunewise.data.chat import Example
from tunewise.errors import StudyError
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer
from tunewise.study.schema import CandidateSpec

GROUP = "tunewise.candidates"
"""Entry points that add candidates: the name is the kind, the object is called as
``build(spec, context)`` and gives a :class:`Candidate`."""


@dataclass(frozen=True)
class BuildContext:
    """What candidates are made from; equal for all of a study but for the engines.

    Attributes:
        scorer: the study's metric.
        limits: of every answer.
        engine: with the model that this candidate asks; None for those that ask none.
        tuned_engine: with the tuned model; None before training.
        prompts: the study's instructions; a candidate's own come before them.
        documents: what retrieval searches.
        labels: the labels, where the study knows them; else they come from the training answers.
        seed: of every draw.
        effort: how many dev rows a first look takes.
        folder: where relative paths of answer files start.
    """

    scorer: Scorer
    limits: Limits
    engine: Engine | None = None
    tuned_engine: Engine | None = None
    prompts: Sequence[str] = ()
    documents: Sequence[HasText] = ()
    labels: Sequence[str] | None = None
    seed: int = 0
    effort: Effort = "standard"
    folder: Path | None = None


def build_candidate(spec: CandidateSpec, *, context: BuildContext) -> Candidate:
    """Make the candidate that ``spec`` describes.

    Raises:
        StudyError: it needs a model and has none, or nothing is known under its kind.
        DataError: a recorded candidate's file is wrong.
    """
    make = _MAKERS.get(spec.kind) or _from_entry_point(spec.kind)
    return make(spec, context)


def training_examples(
    spec: CandidateSpec,
    *,
    context: BuildContext,
    train: Sequence[Example],
    dev: Sequence[Example],
) -> list[Example]:
    """The training rows as a fine-tuned candidate will later be asked: instructions, passages."""
    candidate = build_candidate(spec, context=context)
    if not isinstance(candidate, FineTuned):
        raise StudyError(f"{spec.name}: a candidate of kind {spec.kind!r} is not trained")
    return candidate.training_examples(train, dev)


def recorded_answers(spec: CandidateSpec, folder: Path | None = None) -> RecordedAnswers:
    """Read the answer files of a recorded candidate; relative paths start at ``folder``."""
    files = [spec.answers] if isinstance(spec.answers, str) else list(spec.answers or [])
    return read_recorded([(folder or Path()) / Path(file).expanduser() for file in files])


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


def offers(
    train: Sequence[Example], *, has_documents: bool, has_model: bool, can_train: bool
) -> list[Offer]:
    """Every kind but ``recorded``, with the reason why it is offered or not."""
    no_model = "the study names no model"
    no_documents = "there are no documents to search"
    answered = any(row.target is not None for row in train)
    labels = offered(train)
    untrained = no_model if not has_model else "this model cannot be fine-tuned here"

    def offer(kind: str, *conditions: tuple[bool, str], why: str) -> Offer:
        against = next((reason for holds, reason in conditions if not holds), None)
        return Offer(kind, against is None, against or why)

    model = (has_model, no_model)
    shots = (answered, "no training row has an answer")
    documents = (has_documents, no_documents)
    trains = (has_model and can_train, untrained)
    return [
        offer("zero_shot", model, why="instructions alone are the cheapest baseline"),
        offer("few_shot", model, shots, why="training rows can be shown as examples"),
        offer("rag", model, documents, why="there are documents to search"),
        offer(
            "classifier",
            (labels is True, labels if isinstance(labels, str) else ""),
            why="the answers are a small set of labels",
        ),
        offer("fine_tuned", trains, shots, why="training rows have answers to learn from"),
        offer(
            "fine_tuned+rag",
            trains,
            shots,
            documents,
            why="there are documents to search and answers to learn from",
        ),
    ]


def default_candidates(
    train: Sequence[Example], *, has_documents: bool, has_model: bool, can_train: bool
) -> list[str]:
    """The kinds that a study without ``candidates`` measures; :func:`offers` has the reasons."""
    found = offers(train, has_documents=has_documents, has_model=has_model, can_train=can_train)
    return [offer.kind for offer in found if offer.offered]


def _prompts(spec: CandidateSpec, context: BuildContext) -> tuple[str, ...]:
    if spec.prompt is None:
        return tuple(context.prompts)
    return (spec.prompt,) if isinstance(spec.prompt, str) else tuple(spec.prompt)


def _engine(spec: CandidateSpec, context: BuildContext) -> Engine:
    if context.engine is None:
        raise StudyError(
            f"the candidate {spec.name!r} needs a model",
            hint="Name one as the study's `model`, or as the candidate's own.",
        )
    return context.engine


def _asking(spec: CandidateSpec, context: BuildContext) -> dict[str, Any]:
    """What all candidates that ask a model share."""
    return {
        "name": spec.name,
        "scorer": context.scorer,
        "limits": context.limits,
        "prompts": _prompts(spec, context),
        "seed": context.seed,
    }


def _searching(spec: CandidateSpec, context: BuildContext) -> dict[str, Any]:
    """What all candidates with retrieval share."""
    return {
        "documents": context.documents,
        "k": spec.k,
        "passage_words": spec.passage_words or PASSAGE_WORDS,
        "dense": spec.dense,
    }


def _choosing(context: BuildContext) -> dict[str, Any]:
    return {"labels": context.labels, "effort": context.effort}


def _zero_shot(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return ZeroShot(engine=_engine(spec, context), **_asking(spec, context), **_choosing(context))


def _few_shot(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return FewShot(
        engine=_engine(spec, context),
        k=spec.k,
        selection=tuple(dict.fromkeys(spec.selection or ("fixed", "nearest"))),
        orders=spec.orders or 3,
        **_asking(spec, context),
        **_choosing(context),
    )


def _rag(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return Rag(
        engine=_engine(spec, context),
        **_asking(spec, context),
        **_searching(spec, context),
        **_choosing(context),
    )


def _fine_tuned(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return FineTuned(engine=context.tuned_engine, **_asking(spec, context))


def _fine_tuned_rag(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return FineTunedRag(
        engine=context.tuned_engine, **_asking(spec, context), **_searching(spec, context)
    )


def _classifier(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return Classifier(spec.name, context.scorer, dense=spec.dense, seed=context.seed)


def _recorded(spec: CandidateSpec, context: BuildContext) -> Candidate:
    return Recorded(spec.name, recorded_answers(spec, context.folder))


_Maker = Callable[[CandidateSpec, BuildContext], Candidate]

_MAKERS: dict[str, _Maker] = {
    "zero_shot": _zero_shot,
    "few_shot": _few_shot,
    "rag": _rag,
    "classifier": _classifier,
    "fine_tuned": _fine_tuned,
    "fine_tuned+rag": _fine_tuned_rag,
    "recorded": _recorded,
}


def _from_entry_point(kind: str) -> _Maker:
    for point in entry_points(group=GROUP, name=kind):
        make: _Maker = point.load()
        return make
    known = ", ".join(_MAKERS)
    raise StudyError(
        f"there is no candidate of kind {kind!r}",
        hint=f"Known kinds: {known}, and those of installed packages.",
    )
