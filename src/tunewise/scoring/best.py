"""Scores of answers to rows that want several: the best of them counts.

Whatever scores an answer goes through here, so that metrics themselves know of one wanted answer,
and of no thoughts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewise.data.chat import Completion, Example
from tunewise.data.thoughts import UNFINISHED
from tunewise.scoring.answers import scorable
from tunewise.scoring.base import BatchScorer, ItemScore, Scorer


def score_answer(scorer: Scorer, example: Example, completion: Completion) -> ItemScore:
    """The score of one answer, by the wanted answer that fits it best."""
    given = _given(completion)
    scores = [scorer.score(one, given) for one in readings_of(example, given)]
    return _told(max(scores, key=lambda item: item.value), given)


def score_answers(
    scorer: Scorer, examples: Sequence[Example], completions: Sequence[Completion]
) -> list[ItemScore]:
    """What ``score_answer`` gives for each pair, in order; at once where the metric can."""
    pairs = list(zip(examples, map(_given, completions), strict=True))
    if not isinstance(scorer, BatchScorer):
        return [score_answer(scorer, example, completion) for example, completion in pairs]
    readings = [readings_of(example, completion) for example, completion in pairs]
    found = iter(
        scorer.score_all(
            [one for ones in readings for one in ones],
            [c for ones, (_, c) in zip(readings, pairs, strict=True) for _ in ones],
        )
    )
    best = [max((next(found) for _ in ones), key=lambda item: item.value) for ones in readings]
    return [_told(score, given) for score, (_, given) in zip(best, pairs, strict=True)]


def _given(completion: Completion) -> Completion:
    """What a metric is shown. Of a thought without an answer it is shown that there is none.

    Metrics of other packages know of failed requests alone, so it stands there as one.
    """
    given = scorable(completion)
    if given.unfinished and given.error is None:
        return replace(given, error=UNFINISHED)
    return given


def _told(score: ItemScore, given: Completion) -> ItemScore:
    """The score with the true reason where an answer ended inside a thought."""
    if not given.unfinished or given.error != UNFINISHED:
        return score
    return replace(score, value=0.0, details={**score.details, "reason": UNFINISHED})


def readings_of(example: Example, completion: Completion) -> list[Example]:
    """The row once for each of its wanted answers; once where there is nothing to compare."""
    if not example.references or completion.error is not None:
        return [example]
    return [
        replace(example, messages=(*example.prompt, answer), references=())
        for answer in (*example.messages[len(example.prompt) :], *example.references)
    ]
