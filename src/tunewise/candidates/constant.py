"""One answer for every row: what any candidate must beat, and what a collapsed model only equals.

The answer is chosen on the training rows by the metric itself: the commonest label, the best fixed
list, number, object or text; where tools could be called, no call is among them. Of a row with
several right answers each may be the one. Nothing is asked, so it costs nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tunewise.candidates.answers import AnswerShape, parsed, shape_of
from tunewise.candidates.base import NotOfferedError, Traits
from tunewise.candidates.context import BuildContext
from tunewise.candidates.plain_files import constant_files
from tunewise.data.chat import (
    Completion,
    Example,
    Progress,
    Request,
    answer_of,
    canonical_hash,
)
from tunewise.scoring.answers import calls_as_text, given_text
from tunewise.scoring.base import BatchScorer, Scorer
from tunewise.scoring.best import score_answers
from tunewise.study.schema import CandidateSpec

_COMMONEST = 8
_LONGEST_LIST = 10
_TEXTS = 12
_FIRST_ROWS = 50
_FINALISTS = 6
_MOST_ROWS = 5000
_FEWEST_ROWS = 10
# Metrics of texts take time in proportion to their length, some of them 10 ms for 700 characters.
_CHARACTERS = 150_000
_SHOWN = 200


def fixed_answers_for(scorer: Scorer, *splits: Sequence[Example]) -> bool:
    """Whether a constant can be measured for free: some answers, and a metric that asks nobody."""
    return not isinstance(scorer, BatchScorer) and any(
        row.target is not None for rows in splits for row in rows
    )


class ConstantFitted:
    """One answer, whatever is asked.

    Attributes:
        dev_completions: the answer once a dev row; None where dev was empty.
    """

    def __init__(
        self, answer: Completion, dev: Sequence[Example], chosen: Mapping[str, Any]
    ) -> None:
        self._answer = answer
        self._chosen = chosen
        self.dev_completions = [answer] * len(dev) if dev else None

    def request(self, example: Example) -> Request | None:
        return None

    def answer(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Completion]:
        if progress is not None:
            progress(len(examples), len(examples))
        return [self._answer] * len(examples)

    def files(self) -> dict[str, str] | None:
        return None if self._answer.tool_calls else constant_files(self._answer.text)

    def chosen(self) -> Mapping[str, Any]:
        return self._chosen


class CrossFitted(ConstantFitted):
    """Where there are no rows to learn from: each half of the rows gets the other half's answer.

    So that no row has a say in what it is answered with; rows that ask the same are in one half.
    """

    def __init__(self, constant: Constant) -> None:
        note = (
            "there are no rows to choose it on: each half of the test rows gets the answer that "
            "scores best on the other half"
        )
        super().__init__(_completion(""), (), {"notes": [note], "dev_evaluations": 0})
        self._constant = constant

    def answer(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Completion]:
        halves: tuple[list[Example], list[Example]] = ([], [])
        for row in examples:
            halves[_half(row)].append(row)
        best = [self._best(halves[1] or halves[0]), self._best(halves[0] or halves[1])]
        if progress is not None:
            progress(len(examples), len(examples))
        return [best[_half(row)] for row in examples]

    def _best(self, rows: Sequence[Example]) -> Completion:
        answered = [row for row in rows if row.target is not None]
        return self._constant.best(answered)[0] if answered else _completion("")


def _half(row: Example) -> int:
    return int(canonical_hash([row.user_text or row.id])[:8], 16) % 2


@dataclass(frozen=True)
class Constant:
    """The fixed answer that scores best on the training rows (on dev where there are none)."""

    name: str
    scorer: Scorer
    seed: int = 0
    kind: str = "constant"
    traits: ClassVar[Traits] = Traits(
        title="one constant answer", needs_model=False, free=True, constant=True, complexity=0
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> Constant:
        return cls(spec.name, context.scorer, seed=context.seed)

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> ConstantFitted:
        if isinstance(self.scorer, BatchScorer):
            raise NotOfferedError(
                f"{self.name}: {self.scorer.name} would have to be asked about every fixed answer"
            )
        learnt_on, rows = next(
            (
                (split, found)
                for split, part in (("train", train), ("dev", dev))
                if (found := [row for row in part if row.target is not None])
            ),
            ("train", []),
        )
        if not rows and not train and not dev:
            return CrossFitted(self)
        if not rows:
            raise NotOfferedError(f"{self.name}: no row to learn from has an answer")
        answer, scores, n = self.best(rows)
        best = next(score for score, one in scores if one is answer)
        if best <= 0:
            raise NotOfferedError(f"{self.name}: by this metric no fixed answer scores anything")
        wanted = given_text(answer)
        return ConstantFitted(
            answer,
            dev,
            {
                "answer": wanted,
                "share": sum(_key(answer) in map(_key, _wanted(row)) for row in rows) / len(rows),
                f"{learnt_on}_score": best,
                "dev_evaluations": 0 if learnt_on == "train" else n * len(scores),
                "tried": [
                    {"answer": given_text(one)[:_SHOWN], f"{learnt_on}_score": score}
                    for score, one in scores
                ],
                "notes": [],
            },
        )

    def best(
        self, rows: Sequence[Example]
    ) -> tuple[Completion, list[tuple[float, Completion]], int]:
        """The best fixed answer to rows that have answers; finalists with scores, and on how many
        rows these were compared."""
        shape = shape_of(rows)
        drawn = sorted(rows, key=lambda row: canonical_hash([self.seed, row.id]))
        pool = list(_pool(rows, shape))
        each = sum(len(answer.text) for answer in pool) / len(pool)

        def affordable(answers: int, most: int) -> list[Example]:
            if shape.kind in ("labels", "number"):
                return drawn[:most]
            return drawn[: max(_FEWEST_ROWS, min(most, int(_CHARACTERS / (each + 1) / answers)))]

        first = affordable(len(pool), _FIRST_ROWS)
        finalists = sorted(pool, key=lambda answer: -self._score(first, answer))[:_FINALISTS]
        sample = affordable(len(finalists), _MOST_ROWS)
        scores = [(self._score(sample, answer), answer) for answer in pool if answer in finalists]
        _, answer = max(scores, key=lambda pair: pair[0])  # ties: the commoner one
        return answer, scores, len(sample)

    def _score(self, rows: Sequence[Example], answer: Completion) -> float:
        return self.scorer.aggregate(score_answers(self.scorer, rows, [answer] * len(rows)))


def _wanted(row: Example) -> list[Completion]:
    """The right answers, as if they were given; those of ``references`` follow the first."""
    answers = [row.target or {}, *row.references]
    return [
        _completion(answer_of(answer).strip(), tuple(answer.get("tool_calls") or ()))
        for answer in answers
    ]


def _key(answer: Completion) -> tuple[str, str]:
    """Equal for equal answers; ids of calls are no part of an answer."""
    return answer.text, calls_as_text(answer.tool_calls)


def _completion(text: str, calls: tuple[Mapping[str, Any], ...] = ()) -> Completion:
    return Completion(text=text, tool_calls=calls, latency_s=0.0, finish_reason="stop")


def _pool(rows: Sequence[Example], shape: AnswerShape) -> Iterator[Completion]:
    """Distinct fixed answers that may score well, the likeliest first."""
    seen: set[tuple[str, str]] = set()
    for answer in _candidates(rows, shape):
        if _key(answer) not in seen:
            seen.add(_key(answer))
            yield answer


def _candidates(rows: Sequence[Example], shape: AnswerShape) -> Iterator[Completion]:
    found: dict[tuple[str, str], Completion] = {}
    counts: Counter[tuple[str, str]] = Counter()
    texts: list[str] = []
    for row in rows:
        right = {_key(answer): answer for answer in _wanted(row)}
        found |= right
        counts.update(right.keys())  # an answer once a row, however often it stands there
        texts += [answer.text for answer in right.values() if answer.text]
    yield from (found[key] for key, _ in counts.most_common(_COMMONEST))
    match shape.kind:
        case "tool_calls":
            yield _completion("")
        case "json_list":
            values = map(parsed, texts)  # further right answers may be of another form
            yield from map(_completion, _lists([v for v in values if isinstance(v, list)]))
        case "json_object":
            values = map(parsed, texts)
            yield _completion(_object([v for v in values if isinstance(v, dict)]))
        case "number":
            yield _completion(sorted(texts, key=_magnitude)[len(texts) // 2])
        case "text" if texts:
            by_length = sorted(texts, key=lambda text: (len(text), text))
            for place in range(_TEXTS):
                yield _completion(by_length[place * (len(by_length) - 1) // (_TEXTS - 1)])


def _lists(values: Sequence[list[Any]]) -> Iterator[str]:
    """The commonest item, the two commonest, and so on; and the list without any."""
    counts = Counter(_dumped(item) for value in values for item in value)
    items = [json.loads(text) for text, _ in counts.most_common(_LONGEST_LIST)]
    for length in range(len(items) + 1):
        yield _dumped(items[:length])


def _object(values: Sequence[dict[str, Any]]) -> str:
    """The commonest value of each key that most objects have."""
    columns: dict[str, Counter[str]] = {}
    for value in values:
        for key, inner in value.items():
            columns.setdefault(key, Counter())[_dumped(inner)] += 1
    return _dumped(
        {
            key: json.loads(counts.most_common(1)[0][0])
            for key, counts in columns.items()
            if 2 * counts.total() > len(values)
        }
    )


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _magnitude(text: str) -> float:
    from tunewise.scoring.numbers import last_number

    number = last_number(text)
    return float(number.value) if number is not None else 0.0
