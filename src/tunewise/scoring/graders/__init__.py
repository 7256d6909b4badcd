"""Graders as OpenAI's fine-tuning API defines them: rewards for training, scores for answers."""

from __future__ import annotations

from tunewise.scoring.graders.errors import GraderError
from tunewise.scoring.graders.models import Ask, Engines, Question, asking
from tunewise.scoring.graders.result import Errors, Graded
from tunewise.scoring.graders.run import (
    GraderRun,
    RewardFunction,
    reward_function,
    run_grader,
    sample_of,
)
from tunewise.scoring.graders.schema import Grader, parse_grader, with_names

__all__ = [
    "Ask",
    "Engines",
    "Errors",
    "Graded",
    "Grader",
    "GraderError",
    "GraderRun",
    "Question",
    "RewardFunction",
    "asking",
    "parse_grader",
    "reward_function",
    "run_grader",
    "sample_of",
    "with_names",
]
