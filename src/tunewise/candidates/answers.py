"""What the training answers look like: labels, lists, objects, numbers or free text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunewise.data.chat import Example
from tunewise.data.labels import LONGEST_LABEL, MOST_LABELS, LabelCounts

_MOST_LISTED = 100
_NUMBER = re.compile(r"[-+]?[\d.,]*\d%?")


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """The form that training answers have in common.

    Attributes:
        kind: ``labels``, ``json_list``, ``json_object``, ``number``, ``tool_calls`` or ``text``.
        labels: for ``labels``, the most frequent first.
        keys: for ``json_object``, the keys that every answer has.
        reason: why the answers are not labels; None where they are.
        typical_words: 90th percentile of the answers' lengths.
    """

    kind: Literal["labels", "json_list", "json_object", "number", "tool_calls", "text"]
    labels: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    reason: str | None = None
    typical_words: int = 0

    @property
    def note(self) -> str | None:
        """What instructions can say about the answer's form; None where there is nothing."""
        match self.kind:
            case "labels" if len(self.labels) <= _MOST_LISTED:
                return f"Answer with one of: {', '.join(self.labels)}"
            case "labels":
                return "Answer with the label only."
            case "json_list":
                return "Answer with a JSON list only."
            case "json_object":
                quoted = ", ".join(json.dumps(key, ensure_ascii=False) for key in self.keys)
                keys = f" with the keys {quoted}" if self.keys else ""
                return f"Answer with a JSON object{keys} only."
            case "number":
                return "Answer with a number only."
            case "text" if 0 < self.typical_words <= 10:
                return f"Answer in at most {self.typical_words} words, without explanation."
            case "text":
                return "Give the answer only, without introduction or explanation."
            case _:
                return None


def shape_of(train: Sequence[Example], labels: Sequence[str] | None = None) -> AnswerShape:
    """The shape of the training answers; ``labels`` says that they are known to be labels."""
    if labels:
        return AnswerShape("labels", labels=tuple(labels))
    if any(e.target is not None and e.target.get("tool_calls") for e in train):
        return AnswerShape("tool_calls", reason="the answers are tool calls")
    answers = [text for e in train if (text := e.answer.strip())]
    counts = LabelCounts()
    for answer in answers:
        counts.add(answer)
    table = counts.table()
    if table is not None:
        ordered = sorted(table, key=lambda label: (-table[label], label))
        return AnswerShape("labels", labels=tuple(ordered))
    reason = _why_not_labels(answers)
    if not answers:
        return AnswerShape("text", reason=reason)
    values = [parsed(answer) for answer in answers]
    if all(isinstance(value, list) for value in values):
        return AnswerShape("json_list", reason=reason)
    objects = [value for value in values if isinstance(value, dict)]
    if len(objects) == len(values):
        common = [key for key in objects[0] if all(key in other for other in objects)]
        return AnswerShape("json_object", keys=tuple(common), reason=reason)
    if all(_NUMBER.fullmatch(answer) for answer in answers):
        return AnswerShape("number", reason=reason)
    lengths = sorted(len(answer.split()) for answer in answers)
    typical = lengths[min(len(lengths) - 1, int(0.9 * len(lengths)))]
    return AnswerShape("text", reason=reason, typical_words=typical)


def _why_not_labels(answers: Sequence[str]) -> str:
    """In words what :class:`LabelCounts` found against these answers."""
    values = len(set(answers))
    if not answers:
        return "no training row has an answer"
    if values == 1:
        return "all training rows have the same answer"
    if max(map(len, answers)) > LONGEST_LABEL:
        return f"some training answers are longer than a label of {LONGEST_LABEL} characters"
    if values > MOST_LABELS:
        return f"the training answers take {values} values, more than {MOST_LABELS} labels"
    return (
        f"the {len(answers)} training answers take {values} values: labels need at least 3 rows "
        "each on average"
    )


def parsed(answer: str) -> Any:
    """The JSON list or object that an answer is; None where it is neither."""
    if answer[:1] not in "[{":
        return None
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None
