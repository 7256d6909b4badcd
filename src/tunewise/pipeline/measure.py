"""Asking a candidate and scoring what it answers."""

from __future__ import annotations

from collections.abc import Sequence

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError
from tunewise.pipeline.causes import grouped
from tunewise.pipeline.store import Item
from tunewise.scoring.answers import scorable
from tunewise.scoring.base import ItemScore, Scorer
from tunewise.scoring.best import score_answers
from tunewise.words import plural, verb


def scored_items(
    candidate: str,
    split: str,
    examples: Sequence[Example],
    completions: Sequence[Completion],
    scorer: Scorer,
    seed: int | None = None,
) -> list[Item]:
    """The answers as items with their scores; a failed answer scores 0 and says why.

    An answer that ended inside a thought did not fail: it is one, and it is wrong.
    """
    items = []
    given = [scorable(completion) for completion in completions]
    scores = score_answers(scorer, examples, given)
    for example, completion, score in zip(examples, given, scores, strict=True):
        items.append(
            Item(
                id=example.id,
                candidate=candidate,
                split=split,
                score=score.value,
                answer=completion.text,
                seed=completion.seed if seed is None else seed,
                request=completion.request_key,
                tool_calls=[dict(c) for c in completion.tool_calls],
                prompt_tokens=completion.prompt_tokens,
                completion_tokens=completion.completion_tokens,
                cached_tokens=completion.cached_tokens,
                static_tokens=completion.static_tokens,
                latency_s=completion.latency_s,
                error=completion.error,
                advice=completion.advice,
                thoughts=completion.thoughts or "",
                details=dict(score.details),
                data=score.data,
            )
        )
    return items


def recorded_gaps(name: str, missing: Sequence[str], extra: Sequence[str]) -> list[str]:
    """What to tell where recorded answers and rows do not match."""
    found = []
    if missing:
        found.append(
            f"{name}: {plural(len(missing), 'row')} without a recorded answer "
            f"{verb(len(missing), 'counts', 'count')} as wrong "
            f"({_some(missing)})."
        )
    if extra:
        found.append(
            f"{name}: {plural(len(extra), 'recorded id')} of no row "
            f"{verb(len(extra), 'is', 'are')} not used "
            f"({_some(extra)})."
        )
    return found


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")


def mean_score(scorer: Scorer, items: Sequence[Item]) -> float:
    """The score of a set of items, in points."""
    rows = [ItemScore(i.score, details=i.details, data=i.data) for i in items]
    return 100 * scorer.aggregate(rows)


def refuse_failures(name: str, completions: Sequence[Completion]) -> None:
    """Stop where a candidate could not be asked at all: that is a fault, not a bad score.

    Raises:
        StudyError: every request failed.
    """
    if completions and all(c.error for c in completions):
        groups = grouped(completions)
        first = completions[groups[0][0]]
        other = f" (and {plural(len(groups) - 1, 'other cause')})" if len(groups) > 1 else ""
        hint = "Mend the cause and run again; what was answered is kept."
        raise StudyError(
            f"every request of {name} failed: {first.error}{other}",
            where=name,
            hint=f"{first.advice} {hint}" if first.advice else hint,
        )
