"""What grpo rewards: a metric, a Python function, or a grader of OpenAI's fine-tuning API."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError, TrainingError, TunewiseError
from tunewise.study.schema import FineTune
from tunewise.study.trusted_code import find_code

if TYPE_CHECKING:
    from tunewise.scoring.graders import RewardFunction


_ANSWER = re.compile(r"""item\.answer\b|['"]answer\\?['"]""")
"""A template's or Python's name for the wanted answer, in a grader written as JSON."""


class Rewards(Protocol):
    """Answers into rewards.

    Attributes:
        errors: how often each kind of error happened.
    """

    errors: Counter[str]

    def __call__(
        self, examples: Sequence[Example], completions: Sequence[Completion]
    ) -> list[float]:
        """A finite reward for each pair, in order.

        Raises:
            TrainingError: the user's own function failed.
        """
        ...


def open_rewards(fine_tune: FineTune, date: str | None = None) -> Rewards:
    """What ``fine_tune.reward`` or ``fine_tune.grader`` names.

    Args:
        date: ISO 8601, what the chat templates of models on this machine that grade are given as
            today's: a run that goes on tomorrow must grade as it did; None is the day itself.

    Raises:
        TrainingError: neither is given, or the function cannot be imported.
        UntrustedCodeError: the function is code that the user has not allowed.
        StudyError: no such metric, or wrong options of one.
        GraderError, SandboxError: the grader cannot be meant as written, or not run here.
    """
    if fine_tune.grader is not None:
        return _Grader(fine_tune.grader, date)
    if fine_tune.reward is None:
        raise TrainingError(
            "grpo needs to know what to reward",
            where="fine_tune.reward",
            hint="Give a metric (`reward: exact_match`), `reward: module:function`, or `grader`.",
        )
    if ":" in fine_tune.reward.name:
        return _Function(fine_tune.reward.name, fine_tune.reward.options)
    return _Metric(fine_tune.reward.name, fine_tune.reward.options, date)


class _Metric:
    """An item score of the project's scorers, from 0 to 1."""

    def __init__(self, name: str, options: Mapping[str, Any], date: str | None) -> None:
        from tunewise.models.opening import open_engine
        from tunewise.scoring.registry import get_scorer

        try:
            self._scorer = get_scorer(name, options, engines=partial(open_engine, date=date))
        except StudyError as error:
            place = (error.where or "").replace("metric", "fine_tune.reward", 1)
            raise StudyError(error.message, where=place or None, hint=error.hint) from None
        self.errors: Counter[str] = Counter()

    def __call__(
        self, examples: Sequence[Example], completions: Sequence[Completion]
    ) -> list[float]:
        from tunewise.scoring.best import score_answers

        return [float(item.value) for item in score_answers(self._scorer, examples, completions)]


class _Function:
    """``module:function`` of the user's, which runs with all rights where they allow it."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name, self._options = name, dict(options)
        try:
            self._function = find_code(name).load()
        except StudyError:
            raise
        except Exception as error:  # a module may fail in any way while it is imported
            raise TrainingError(
                f"the reward {name!r} cannot be imported: {type(error).__name__}: {error}",
                where="fine_tune.reward",
                hint="It is loaded from its one file; what that imports must be installed or on "
                "PYTHONPATH.",
            ) from error
        if not callable(self._function):
            raise TrainingError(f"{name!r} is not a function", where="fine_tune.reward")
        self.errors: Counter[str] = Counter()

    def __call__(
        self, examples: Sequence[Example], completions: Sequence[Completion]
    ) -> list[float]:
        return [self._one(e, c) for e, c in zip(examples, completions, strict=True)]

    def _one(self, example: Example, completion: Completion) -> float:
        try:
            value = float(self._function(example, completion, **self._options))
        except Exception as error:  # the user's code
            raise TrainingError(
                f"the reward {self._name!r} failed on row {example.id!r}: "
                f"{type(error).__name__}: {error}",
                where="fine_tune.reward",
                hint="It is called with the example and the completion and returns a number.",
            ) from error
        if not math.isfinite(value):
            raise TrainingError(
                f"the reward {self._name!r} gave {value} on row {example.id!r}",
                where="fine_tune.reward",
                hint="It must return a finite number.",
            )
        return value


class _Grader:
    def __init__(self, grader: Mapping[str, Any], date: str | None) -> None:
        from tunewise.models.opening import open_engine
        from tunewise.scoring.graders import Engines, asking, reward_function

        try:
            asked = asking(partial(open_engine, date=date))
            self._run: RewardFunction = reward_function(grader, Engines(ask=asked))
        except TunewiseError as error:
            if error.where:
                error.where = f"fine_tune.{error.where}"
            raise
        self.errors = self._run.errors
        # A grader that asks a model must not be asked again and again what stays the same.
        self._reads_answer = _ANSWER.search(json.dumps(grader)) is not None

    def __call__(
        self, examples: Sequence[Example], completions: Sequence[Completion]
    ) -> list[float]:
        from tunewise.scoring.graders import sample_of

        items = [self._items(e, c) for e, c in zip(examples, completions, strict=True)]
        samples = [sample_of(c.text, c.tool_calls) for c in completions]
        grades = iter(
            self._run([(s, item) for s, ones in zip(samples, items, strict=True) for item in ones])
        )
        return [max(next(grades) for _ in ones) for ones in items]

    def _items(self, example: Example, completion: Completion) -> list[dict[str, Any]]:
        """The row as the grader sees it; once for each right answer where it reads the answer."""
        from tunewise.scoring.answers import wanted_texts
        from tunewise.scoring.best import readings_of

        known = {
            "messages": [dict(m) for m in example.prompt],
            "answer": example.answer,
            "references": list(wanted_texts(example)),
        }
        if not self._reads_answer or "answer" in example.metadata:
            return [{**known, **example.metadata}]
        return [
            {**known, "answer": one.answer, **example.metadata}
            for one in readings_of(example, completion)
        ]
