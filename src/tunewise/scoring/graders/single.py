"""Graders one by one: each grades a batch of answers and says what went wrong with which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunewise.errors import TunewiseError
from tunewise.scoring.graders.models import Engines, ModelGrading, Question, Reading
from tunewise.scoring.graders.result import NO_ERRORS, Errors
from tunewise.scoring.graders.schema import (
    LabelModel,
    PythonGrader,
    ScoreModel,
    Single,
    StringCheck,
    TextSimilarity,
)
from tunewise.scoring.graders.similarity import similarity, vector_cosine
from tunewise.scoring.graders.templates import MissingValueError, parse_template
from tunewise.scoring.sandbox import Limits, Outcome, Sandbox

Spaces = Mapping[str, Any]
"""``item`` and ``sample`` with their values."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one grader says of one answer.

    Attributes:
        value: the reward; None where the grader could not say one.
        errors: what went wrong.
        scores: further results, for ``metadata.scores``.
        model: that was asked.
        tokens: of that model; None where none was asked.
        note: in words.
    """

    value: float | None
    errors: Errors = NO_ERRORS
    scores: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    tokens: int | None = None
    note: str | None = None


class Grading(Protocol):
    """One grader, ready to grade."""

    def grade(self, rows: Sequence[Spaces]) -> list[Part]:
        """One part for each row, in order; never raises for what a row holds."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def ready(grader: Single, engines: Engines, limits: Limits | None) -> Grading:
    """The grader with its templates read and, for Python, its sandbox made.

    Raises:
        SandboxError: the grader is Python, and no sandbox can be had.
    """
    if isinstance(grader, PythonGrader):
        return _PythonGrading(grader, limits)
    if isinstance(grader, ScoreModel | LabelModel):
        return _ModelBatch(grader, engines)
    return _TextGrading(grader, engines)


def missing(error: MissingValueError) -> Part:
    """The part of a row that lacks what a template asks for.

    A sample without it is a bad answer, and worth 0; an item without it is a bad row.
    """
    if error.space == "sample":
        return Part(0.0, Errors(sample_parse_error=True), note=str(error))
    return Part(None, Errors(invalid_variable_error=True), note=str(error))


class _TextGrading:
    def __init__(self, grader: StringCheck | TextSimilarity, engines: Engines) -> None:
        self._grader = grader
        self._engines = engines
        self._input = parse_template(grader.input, "input")
        self._reference = parse_template(grader.reference, "reference")

    def grade(self, rows: Sequence[Spaces]) -> list[Part]:
        texts: list[tuple[str, str] | Part] = []
        for row in rows:
            try:
                texts.append((self._input.render(row), self._reference.render(row)))
            except MissingValueError as error:
                texts.append(missing(error))
        pairs = [pair for pair in texts if not isinstance(pair, Part)]
        parts = iter(self._compared(pairs) if pairs else ())
        return [text if isinstance(text, Part) else next(parts) for text in texts]

    def _compared(self, pairs: Sequence[tuple[str, str]]) -> list[Part]:
        grader = self._grader
        if isinstance(grader, StringCheck):
            return [Part(_checked(grader.operation, *pair)) for pair in pairs]
        metric = grader.evaluation_metric
        if metric == "cosine" and self._engines.embed is not None:
            return self._embedded(pairs)
        over = {"cosine_over": "character n-grams"} if metric == "cosine" else {}
        return [Part(similarity(metric, *pair), scores=over) for pair in pairs]

    def _embedded(self, pairs: Sequence[tuple[str, str]]) -> list[Part]:
        assert self._engines.embed is not None
        try:
            vectors = self._engines.embed([text for pair in pairs for text in pair])
        except TunewiseError as error:
            errors = Errors(model_grader_server_error=True,
                            model_grader_server_error_details=str(error))  # fmt: skip
            return [Part(None, errors, note=str(error))] * len(pairs)
        return [
            # As a reward below 0 says nothing that 0 does not.
            Part(
                min(1.0, max(0.0, vector_cosine(one, other))),
                scores={"cosine_over": "embeddings"},
                model=self._engines.embedding_model,
            )
            for one, other in zip(vectors[::2], vectors[1::2], strict=True)
        ]

    def close(self) -> None:
        pass


def _checked(operation: str, text: str, reference: str) -> float:
    checks: dict[str, Callable[[], bool]] = {
        "eq": lambda: text == reference,
        "ne": lambda: text != reference,
        "like": lambda: reference in text,
        "ilike": lambda: reference.casefold() in text.casefold(),
    }
    return float(checks[operation]())


class _PythonGrading:
    def __init__(self, grader: PythonGrader, limits: Limits | None) -> None:
        self._sandbox = Sandbox(grader.source, "grade", limits)

    def grade(self, rows: Sequence[Spaces]) -> list[Part]:
        return [_of_outcome(self._sandbox.call(row["sample"], row["item"])) for row in rows]

    def close(self) -> None:
        self._sandbox.close()


def _of_outcome(outcome: Outcome) -> Part:
    if outcome.ending == "ok":
        return Part(outcome.value)
    if outcome.ending == "refused":
        errors = Errors(python_grader_server_error=True,
                        python_grader_server_error_type=outcome.error)  # fmt: skip
    else:
        errors = Errors(
            python_grader_runtime_error=True,
            python_grader_runtime_error_details=outcome.error,
            unresponsive_reward_error=outcome.ending in ("timeout", "crashed"),
        )
    return Part(None, errors, note=outcome.error)


class _ModelBatch:
    def __init__(self, grader: ScoreModel | LabelModel, engines: Engines) -> None:
        self._model = grader.model
        self._grading = ModelGrading(grader)
        self._ask = engines.ask

    def grade(self, rows: Sequence[Spaces]) -> list[Part]:
        made: list[Question | Part] = []
        for row in rows:
            try:
                made.append(self._grading.question(row))
            except MissingValueError as error:
                made.append(missing(error))
        questions = [q for q in made if isinstance(q, Question)]
        parts = iter(self._asked(questions) if questions else ())
        return [q if isinstance(q, Part) else next(parts) for q in made]

    def _asked(self, questions: Sequence[Question]) -> list[Part]:
        if self._ask is None:
            return [self._failed(f"no model can be asked here, so not {self._model!r}")] * len(
                questions
            )
        try:
            replies = self._ask(self._model, questions)
        except TunewiseError as error:
            return [self._failed(str(error))] * len(questions)
        return [
            self._part(
                self._grading.read(reply),
                None
                if reply.prompt_tokens is None and reply.completion_tokens is None
                else (reply.prompt_tokens or 0) + (reply.completion_tokens or 0),
            )
            for reply in replies
        ]

    def _part(self, reading: Reading, tokens: int | None) -> Part:
        scores = {"label": reading.label} if reading.label is not None else {}
        return Part(
            None if reading.errors else reading.value,
            reading.errors,
            scores,
            self._model,
            tokens,
            reading.note,
        )

    def _failed(self, reason: str) -> Part:
        errors = Errors(model_grader_server_error=True, model_grader_server_error_details=reason)
        return Part(None, errors, model=self._model, note=reason)

    def close(self) -> None:
        pass
