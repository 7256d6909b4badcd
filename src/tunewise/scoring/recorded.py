"""The metric of answers that were scored elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError
from tunewise.scoring.answers import given_text, mean, why_none
from tunewise.scoring.base import ItemScore, Scorer


@dataclass(frozen=True)
class Recorded:
    """The score (0..1) that was recorded with the answer; else another metric's."""

    name: ClassVar[str] = "recorded"
    binary: ClassVar[bool] = False
    corpus: ClassVar[bool] = False

    scorer: str | None = Field(None, description="metric for answers without a recorded score")
    options: dict[str, Any] = Field(default_factory=dict, description="that metric's options")

    def __post_init__(self) -> None:
        """Find the other metric at once, so that a wrong name is an error before anything."""
        self._other  # noqa: B018

    @cached_property
    def _other(self) -> Scorer | None:
        if self.scorer is None:
            return None
        from tunewise.scoring.registry import get_scorer

        other = get_scorer(self.scorer, self.options)
        if other.corpus or other.name == self.name:
            raise StudyError(
                f"`{self.scorer}` cannot be mixed with recorded scores",
                where="metric.options.scorer",
                hint="Choose a metric that is a mean of rows, for instance exact_match.",
            )
        return other

    def score(self, example: Example, completion: Completion) -> ItemScore:
        """The recorded score; where there is none, the other metric's; else 0 with the reason."""
        if (reason := why_none(completion)) is not None:
            return ItemScore(0.0, {"reason": reason})
        if completion.score is not None:
            if 0.0 <= completion.score <= 1.0:
                return ItemScore(float(completion.score), {"recorded": True})
            return ItemScore(0.0, {"reason": f"{completion.score} is not a score in 0..1"})
        if self._other is not None and given_text(completion):
            return self._other.score(example, completion)
        return ItemScore(0.0, {"reason": "no score is recorded for this row"})

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        """The mean of the items, in 0..1."""
        return mean(items)
