"""From the study's words to candidates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count

from tunewise.candidates.base import Candidate, Trained
from tunewise.candidates.constant import Constant, fixed_answers_for
from tunewise.candidates.context import BuildContext
from tunewise.data.chat import Example
from tunewise.errors import StudyError
from tunewise.scoring.base import Scorer
from tunewise.study.parts import KINDS
from tunewise.study.schema import CandidateSpec


def build_candidate(spec: CandidateSpec, *, context: BuildContext) -> Candidate:
    """Make the candidate that ``spec`` describes.

    Raises:
        StudyError: it needs a model and has none, or nothing is known under its kind.
        DataError: a recorded candidate's file is wrong.
    """
    candidate: Candidate = KINDS.load(spec.kind).from_study(spec, context)
    return candidate


def training_examples(
    spec: CandidateSpec,
    *,
    context: BuildContext,
    train: Sequence[Example],
    dev: Sequence[Example],
) -> list[Example]:
    """The training rows as a fine-tuned candidate will later be asked: instructions, passages."""
    candidate = build_candidate(spec, context=context)
    if not isinstance(candidate, Trained):
        raise StudyError(f"{spec.name}: a candidate of kind {spec.kind!r} is not trained")
    return candidate.training_examples(train, dev)


def with_floor(
    specs: Sequence[CandidateSpec],
    scorer: Scorer,
    *,
    train: Sequence[Example],
    dev: Sequence[Example],
    test: Sequence[Example] = (),
) -> tuple[CandidateSpec, ...]:
    """The candidates, and the best constant answer among them where it can be measured for free.

    It stands last, and only where the study does not name one itself.

    Args:
        test: of recorded answers, which may come without any other rows.
    """
    if any(spec.is_constant for spec in specs) or not fixed_answers_for(scorer, train, dev, test):
        return tuple(specs)
    kind, taken = Constant.kind, {spec.name for spec in specs}
    names = chain([kind], (f"{kind}_{place}" for place in count(2)))
    return (*specs, CandidateSpec(name=next(n for n in names if n not in taken), kind=kind))
