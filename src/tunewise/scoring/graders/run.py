"""Graders at work: one answer for the API, batches of answers as the rewards of training."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tunewise.data.chat import Message
from tunewise.data.thoughts import split_thoughts
from tunewise.scoring.graders.formula import Formula, FormulaError, parse_formula
from tunewise.scoring.graders.models import Engines
from tunewise.scoring.graders.result import NO_ERRORS, Errors, Graded
from tunewise.scoring.graders.schema import Grader, Multi, Single, parse_grader
from tunewise.scoring.graders.single import Grading, Part, ready
from tunewise.scoring.jsontext import read_json
from tunewise.scoring.sandbox import Limits

log = logging.getLogger(__name__)

Sample = Mapping[str, Any] | str
"""A model's answer: its text, or what :func:`sample_of` gives."""
Item = Mapping[str, Any]
"""The row that the answer belongs to."""


def sample_of(text: str, tool_calls: Sequence[Message] = ()) -> dict[str, Any]:
    """The ``sample`` of templates and Python graders.

    ``output_text``; ``output_json`` where the text is JSON and nothing else; ``output_tools``, in
    OpenAI's form; and ``choices`` with the same as one message. Thoughts are no part of it.
    """
    text = split_thoughts(text).answer
    message: dict[str, Any] = {"role": "assistant", "content": text}
    calls = [dict(call) for call in tool_calls]
    if calls:
        message["tool_calls"] = calls
    sample: dict[str, Any] = {
        "output_text": text,
        "output_tools": calls,
        "choices": [{"index": 0, "message": message}],
    }
    found = read_json(text)
    if found is not None:
        sample["output_json"] = found.value
    return sample


class GraderRun:
    """A grader with its sandboxes, for as many answers as wanted. Close it, or use ``with``.

    Args:
        grader: from :func:`parse_grader`, or plain JSON values.
        engines: who is asked by graders that need a model.
        limits: of Python graders.

    Raises:
        GraderError: the grader cannot be meant as written.
        SandboxError: it holds Python, and no sandbox can be had.
    """

    def __init__(
        self, grader: Any, engines: Engines | None = None, limits: Limits | None = None
    ) -> None:
        self.grader: Grader = parse_grader(grader)
        self._formula: Formula | None = None
        singles: dict[str, Single]
        if isinstance(self.grader, Multi):
            singles = self.grader.graders
            self._formula = parse_formula(
                self.grader.calculate_output, list(singles), "grader.calculate_output"
            )
        else:
            singles = {self.grader.name: self.grader}
        self._invalid = {name: single.invalid_grade for name, single in singles.items()}
        self._gradings: dict[str, Grading] = {}
        try:
            for name, single in singles.items():
                self._gradings[name] = ready(single, engines or Engines(), limits)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GraderRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the sandboxes."""
        for grading in self._gradings.values():
            grading.close()

    def grade(self, pairs: Sequence[tuple[Sample, Item]]) -> list[Graded]:
        """One grade for each (sample, item), in order; all questions to a model go at once."""
        if not pairs:
            return []
        start = time.perf_counter()
        rows = [
            {"sample": sample_of(s) if isinstance(s, str) else s, "item": item} for s, item in pairs
        ]
        columns = {name: grading.grade(rows) for name, grading in self._gradings.items()}
        each = (time.perf_counter() - start) / len(rows)
        return [
            self._graded({name: parts[k] for name, parts in columns.items()}, each)
            for k in range(len(rows))
        ]

    def _graded(self, parts: Mapping[str, Part], seconds: float) -> Graded:
        errors = NO_ERRORS
        tokens: Counter[str] = Counter()
        for part in parts.values():
            errors = errors.joined(part.errors)
            if part.model is not None and part.tokens is not None:
                tokens[part.model] += part.tokens
        rewards = {
            name: self._invalid[name] if part.value is None else part.value
            for name, part in parts.items()
        }
        notes = tuple(part.note for part in parts.values() if part.note)
        scores: Mapping[str, Any]
        if self._formula is None:
            [(only, part)] = parts.items()
            reward, scores, rewards = rewards[only], part.scores, {}
        else:
            reward, wrong = self._calculated(self._formula, parts, rewards)
            if wrong is not None:
                errors = errors.joined(Errors(formula_parse_error=True))
                notes = (*notes, f"calculate_output: {wrong}")
            scores = {n: {"reward": rewards[n], **p.scores} if p.scores else rewards[n]
                      for n, p in parts.items()}  # fmt: skip
        return Graded(
            reward=reward,
            name=self.grader.name,
            type=self.grader.type,
            errors=errors,
            execution_time=seconds,
            scores=scores,
            sub_rewards=rewards,
            token_usage=tokens.total() if tokens else None,
            sampled_model_name=next((p.model for p in parts.values() if p.model), None),
            model_grader_token_usage_per_model=dict(tokens),
            notes=notes,
        )

    def _calculated(
        self, formula: Formula, parts: Mapping[str, Part], rewards: Mapping[str, float]
    ) -> tuple[float, str | None]:
        # A grader that broke down says nothing of the answer. Taken for a 0, it would win in a
        # formula such as 1 - a, and training would learn to break the grader.
        if any(part.value is None for part in parts.values()):
            return self.grader.invalid_grade, None
        try:
            return formula.value(rewards), None
        except FormulaError as error:
            return self.grader.invalid_grade, str(error)


def run_grader(
    grader: Any,
    sample: Sample,
    item: Item | None = None,
    engines: Engines | None = None,
    limits: Limits | None = None,
) -> Graded:
    """Grade one answer.

    Raises:
        GraderError: the grader cannot be meant as written.
        SandboxError: it holds Python, and no sandbox can be had.
    """
    with GraderRun(grader, engines, limits) as run:
        return run.grade([(sample, item or {})])[0]


class RewardFunction:
    """Answers into rewards, for training: whatever happens, each answer gets a finite number.

    Attributes:
        graded: how many answers were graded.
        errors: how often each kind of error happened (names of :class:`Errors`'s fields).
        last_note: what went wrong last, in words.
    """

    def __init__(self, run: GraderRun) -> None:
        self._run = run
        self.graded = 0
        self.errors: Counter[str] = Counter()
        self.last_note: str | None = None

    def __call__(self, pairs: Sequence[tuple[Sample, Item]]) -> list[float]:
        """One reward for each (sample, item), in order; 0 where grading failed."""
        self.graded += len(pairs)
        try:
            grades = self._run.grade(pairs)
        except Exception as error:
            # Hours of training hang on this: a fault of ours must not end them, nor pass unseen.
            log.warning("grading failed", exc_info=True)
            self.errors["other_error"] += len(pairs)
            self.last_note = f"{type(error).__name__}: {error}"
            return [0.0] * len(pairs)
        for grade in grades:
            self.errors.update(grade.errors.names)
            if grade.errors and grade.notes:
                self.last_note = grade.notes[0]
        return [g.reward if math.isfinite(g.reward) else 0.0 for g in grades]

    def close(self) -> None:
        """End the sandboxes."""
        self._run.close()


def reward_function(
    grader: Any, engines: Engines | None = None, limits: Limits | None = None
) -> RewardFunction:
    """The grader as a reward: a list of (sample, item) into a list of numbers.

    Raises:
        GraderError: the grader cannot be meant as written.
        SandboxError: it holds Python, and no sandbox can be had; said before training, not in it.
    """
    return RewardFunction(GraderRun(grader, engines, limits))
