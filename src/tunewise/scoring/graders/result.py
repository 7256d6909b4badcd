"""What a grader gives for one answer, in the fields of the API's document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Errors:
    """What went wrong; all false where nothing did.

    Attributes:
        formula_parse_error: the formula has no finite value for these scores.
        sample_parse_error: a template or formula asks for what the sample does not hold, for
            instance ``output_json`` where it is no JSON.
        truncated_observation_error: a grading model's reply was cut at its token limit.
        unresponsive_reward_error: a Python grader took too long or ended its process.
        invalid_variable_error: a template asks for a field that the item does not have.
        other_error: anything else.
        python_grader_server_error: the sandbox could not be started; ``…_type`` says why.
        python_grader_runtime_error: the source raised or gave no finite number; ``…_details``.
        model_grader_server_error: the grading model could not be asked; ``…_details``.
        model_grader_refusal_error: it refused.
        model_grader_parse_error: its reply holds no score or label.
    """

    formula_parse_error: bool = False
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    invalid_variable_error: bool = False
    other_error: bool = False
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    model_grader_refusal_error: bool = False
    model_grader_parse_error: bool = False
    model_grader_server_error_details: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds of error that happened."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is True)

    def joined(self, other: Errors) -> Errors:
        """Both together; of two texts the first."""
        return Errors(
            **{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)}
        )


NO_ERRORS = Errors()


@dataclass(frozen=True, slots=True)
class Graded:
    """The grade of one answer.

    Attributes:
        reward: finite; the grader's ``invalid_grade`` (0) where it could not say one.
        name, type: of the grader.
        errors: what went wrong.
        execution_time: seconds; in a batch the batch's time per answer.
        scores: of a multi grader, each grader's score; of a cosine, over what it was computed.
        sub_rewards: of a multi grader, each grader's reward.
        token_usage: of grading models, prompts and replies; None where none was asked.
        sampled_model_name: the grading or embedding model.
        model_grader_token_usage_per_model: tokens by model.
        notes: in words, what was chosen or went wrong, for the user.
    """

    reward: float
    name: str
    type: str
    errors: Errors = NO_ERRORS
    execution_time: float = 0.0
    scores: Mapping[str, Any] = field(default_factory=dict)
    sub_rewards: Mapping[str, float] = field(default_factory=dict)
    token_usage: int | None = None
    sampled_model_name: str | None = None
    model_grader_token_usage_per_model: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The body of the API's answer (``RunGraderResponse``), with ``notes`` beside it."""
        return {
            "reward": self.reward,
            "metadata": {
                "name": self.name,
                "type": self.type,
                "errors": asdict(self.errors),
                "execution_time": self.execution_time,
                "scores": dict(self.scores),
                "token_usage": self.token_usage,
                "sampled_model_name": self.sampled_model_name,
                "notes": list(self.notes),
            },
            "sub_rewards": dict(self.sub_rewards),
            "model_grader_token_usage_per_model": dict(self.model_grader_token_usage_per_model),
        }
