"""What all metrics share: the text that is compared, failed requests, means."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tunewise.data.chat import Completion, Example, Message, answer_of
from tunewise.data.thoughts import UNFINISHED, split_thoughts
from tunewise.errors import StudyError
from tunewise.scoring.base import ItemScore

NO_GOLD = "the row has no wanted answer"


def wanted_text(example: Example) -> str | None:
    """The wanted answer as text; tool calls as JSON; None where the row has none."""
    return None if example.target is None else wanted_texts(example)[0]


def wanted_texts(example: Example) -> tuple[str, ...]:
    """All right answers of a row as text, the wanted one first; equal ones once."""
    target = () if example.target is None else (example.target,)
    texts = (
        answer_of(message) or calls_as_text(message.get("tool_calls") or ())
        for message in (*target, *example.references)
    )
    return tuple(dict.fromkeys(texts))


def scorable(completion: Completion) -> Completion:
    """The answer with its thoughts taken out of the text; twice is the same as once.

    Every answer that is scored, shown or compared comes through here, whoever gave it.
    """
    if completion.thoughts is not None:
        return completion
    said = split_thoughts(completion.text)
    return replace(completion, text=said.answer, thoughts=said.thoughts, unfinished=said.unfinished)


def why_none(completion: Completion) -> str | None:
    """Why there is no answer to score; None where there is one."""
    if completion.unfinished:
        return UNFINISHED
    return f"the request failed: {completion.error}" if completion.error is not None else None


def given_text(completion: Completion) -> str:
    """The answer as text; where it only calls tools, the calls as JSON."""
    return completion.text or calls_as_text(completion.tool_calls)


def plain_calls(calls: Sequence[Message]) -> list[dict[str, Any]]:
    """OpenAI's tool calls as ``{"name": …, "arguments": {…}}``.

    Arguments that are not valid JSON stay the text that they are.
    """
    made = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        if not isinstance(function, Mapping):
            continue
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments) if arguments.strip() else {}
        given = {} if arguments is None else arguments
        made.append({"name": str(function.get("name", "")), "arguments": given})
    return made


def calls_as_text(calls: Sequence[Message]) -> str:
    """Tool calls as JSON text, keys sorted; empty for no calls."""
    if not calls:
        return ""
    return json.dumps(plain_calls(calls), ensure_ascii=False, sort_keys=True, default=str)


def mean(items: Sequence[ItemScore]) -> float:
    """Mean of the item scores; 0 for no items."""
    return sum(item.value for item in items) / len(items) if items else 0.0


def f_measure(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


class AnswerScorer:
    """A metric that compares the answer's text with the wanted text."""

    name: ClassVar[str]
    binary: ClassVar[bool] = False
    corpus: ClassVar[bool] = False

    def score(self, example: Example, completion: Completion) -> ItemScore:
        """Score one answer; a failed request, or a thought without an answer, is 0 with a reason.

        Raises:
            StudyError: a corpus metric was given a recorded score instead of an answer.
        """
        gold = wanted_text(example)
        if (reason := why_none(completion)) is not None:
            return self.failed(gold or "", reason)
        answer = given_text(completion)
        if completion.score is not None and not answer:
            return self._recorded(example, completion.score)
        if gold is None:
            return self.failed("", NO_GOLD)
        return self.compare(gold, answer)

    def compare(self, gold: str, answer: str) -> ItemScore:
        """Score ``answer`` against ``gold``; both may be any text."""
        raise NotImplementedError

    def failed(self, gold: str, reason: str) -> ItemScore:
        """The score of a row without an answer."""
        return ItemScore(0.0, {"reason": reason})

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        """The mean of the items, in 0..1; 0 for no items."""
        return mean(items)

    def figures(self, items: Sequence[ItemScore]) -> Mapping[str, float]:
        """Means of what the items' details hold as numbers or yes/no."""
        names = {
            name
            for item in items
            for name, value in item.details.items()
            if isinstance(value, bool | float)
        }
        return {
            name: sum(float(item.details.get(name) or 0.0) for item in items) / len(items)
            for name in sorted(names)
        }

    def _recorded(self, example: Example, score: float) -> ItemScore:
        if self.corpus:
            raise StudyError(
                f"`{self.name}` is computed over whole sets of answers, but only a score is "
                f"recorded for row {example.id!r}",
                where="metric",
                hint="Record the answers too (`answer`), or use `metric: recorded`.",
            )
        return ItemScore(score, {"recorded": True})
