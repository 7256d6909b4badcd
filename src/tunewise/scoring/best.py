"""Scores of answers to rows that want several: the best of them counts.

Whatever scores an answer goes through here, so that metrics themselves know of one wanted answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewise.data.chat import Completion, Example
from tunewise.scoring.base import BatchScorer, ItemScore, Scorer


def score_answer(scorer: Scorer, example: Example, completion: Completion) -> ItemScore:
    """The score of one answer, by the wanted answer that fits it best."""
    return max(
        (scorer.score(one, completion) for one in _readings(example, completion)),
        key=lambda item: item.value,
    )


def score_answers(
    scorer: Scorer, examples: Sequence[Example], completions: Sequence[Completion]
) -> list[ItemScore]:
    """What ``score_answer`` gives for each pair, in order; at once where the metric can."""
    pairs = list(zip(examples, completions, strict=True))
    if not isinstance(scorer, BatchScorer):
        return [score_answer(scorer, example, completion) for example, completion in pairs]
    readings = [_readings(example, completion) for example, completion in pairs]
    found = iter(
        scorer.score_all(
            [one for ones in readings for one in ones],
            [c for ones, (_, c) in zip(readings, pairs, strict=True) for _ in ones],
        )
    )
    return [max((next(found) for _ in ones), key=lambda item: item.value) for ones in readings]


def _readings(example: Example, completion: Completion) -> list[Example]:
    """The row once for each of its wanted answers; once where there is nothing to compare."""
    if not example.references or completion.error is not None:
        return [example]
    return [
        replace(example, messages=(*example.prompt, answer), references=())
        for answer in (*example.messages[len(example.prompt) :], *example.references)
    ]
