"""What a candidate is made from: the study's settings, its models, its documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewise.candidates.choosing import Effort
from tunewise.candidates.passages import HasText
from tunewise.candidates.prompting import Limits
from tunewise.candidates.retrieval import PASSAGE_WORDS
from tunewise.errors import StudyError
from tunewise.models.engine import Engine
from tunewise.scoring.base import Scorer
from tunewise.study.schema import CandidateSpec


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
        constrain: models are held to the form of the training answers.
        phrasings: how many further phrasings of the instructions they try on dev.
        use_case: the study's, in a sentence.
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
    constrain: bool = False
    phrasings: int = 0
    use_case: str = ""

    def engine_of(self, spec: CandidateSpec) -> Engine:
        """The untuned model.

        Raises:
            StudyError: neither the candidate nor the study names one.
        """
        if self.engine is None:
            raise StudyError(
                f"the candidate {spec.name!r} needs a model",
                hint="Name one as the study's `model`, or as the candidate's own.",
            )
        return self.engine

    def prompts_of(self, spec: CandidateSpec) -> tuple[str, ...]:
        """The candidate's own instructions, or the study's."""
        if spec.prompt is None:
            return tuple(self.prompts)
        return (spec.prompt,) if isinstance(spec.prompt, str) else tuple(spec.prompt)

    def asking(self, spec: CandidateSpec) -> dict[str, Any]:
        """What all candidates that ask a model share."""
        return {
            "name": spec.name,
            "scorer": self.scorer,
            "limits": self.limits,
            "prompts": self.prompts_of(spec),
            "seed": self.seed,
            "labels": self.labels,
            "constrain": self.constrain,
        }

    def searching(self, spec: CandidateSpec) -> dict[str, Any]:
        """What all candidates with retrieval share."""
        return {
            "documents": self.documents,
            "k": spec.k,
            "passage_words": spec.passage_words or PASSAGE_WORDS,
            "dense": spec.dense,
        }

    def choosing(self) -> dict[str, Any]:
        """What all candidates share that choose among settings on dev."""
        return {
            "effort": self.effort,
            "phrasings": self.phrasings,
            "use_case": self.use_case,
        }
