"""Answers or scores made elsewhere, so that people who already ran their systems get a verdict.

Each line of an answer file: ``id``; ``answer`` (text) or ``score`` (0..1); optional ``split``
(train, dev, test), ``prompt_tokens``, ``completion_tokens``, ``static_tokens`` (those of the prompt
that every request repeats at its start), ``cached_tokens`` (as billed), ``latency_s``, ``seed``,
and ``reasoning_content``, what the model thought before the answer. Ids may come once for each
seed. Needs neither a model nor torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tunewise.candidates.base import Traits
from tunewise.candidates.context import BuildContext
from tunewise.data.chat import Completion, Example, Progress, Request
from tunewise.data.findings import RowError
from tunewise.data.lines import json_lines
from tunewise.data.thoughts import split_thoughts
from tunewise.errors import DataError
from tunewise.study.schema import CandidateSpec
from tunewise.words import plural, verb

_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "static_tokens")
_KEYS = frozenset(
    {"id", "answer", "score", "split", *_TOKENS, "latency_s", "seed", "reasoning_content"}
)
_SPLITS = ("train", "dev", "test")
_SHOWN = 20


@dataclass
class RecordedAnswers:
    """What the answer files of one candidate hold.

    Attributes:
        by_seed: for each seed (None where the lines name none) its completions by id.
        splits: the split of each id that names one.
        only_scores: every line has a score instead of an answer.
        ids: all ids, in the order of the files.
        unknown_keys: keys that mean nothing here, with how many lines have them.
    """

    by_seed: dict[int | None, dict[str, Completion]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    only_scores: bool = True
    ids: dict[str, None] = field(default_factory=dict)
    unknown_keys: dict[str, int] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int | None]:
        """The seeds, smallest first."""
        return sorted(self.by_seed, key=lambda seed: (seed is not None, seed or 0))


def read_recorded(paths: Sequence[Path]) -> RecordedAnswers:
    """Read answer files line by line.

    Raises:
        DataError: a file cannot be read, or a line is wrong; names file and line.
    """
    found = RecordedAnswers()
    first_seen: dict[tuple[int | None, str], str] = {}
    for path in paths:
        for number, row in json_lines(path):
            where = f"{path}:{number}"
            if isinstance(row, RowError):
                raise DataError(row.message, where=where, hint=row.hint)
            _add(found, row, where, first_seen)
    if not found.ids:
        raise DataError(
            "there are no recorded answers",
            where=", ".join(map(str, paths)),
            hint='Write one line a row: {"id": "…", "answer": "…"}',
        )
    return found


def recorded_answers(spec: CandidateSpec, folder: Path | None = None) -> RecordedAnswers:
    """Read the answer files of a recorded candidate; relative paths start at ``folder``."""
    files = [spec.answers] if isinstance(spec.answers, str) else list(spec.answers or [])
    return read_recorded([(folder or Path()) / Path(file).expanduser() for file in files])


def examples_from_recorded(recorded: Sequence[RecordedAnswers]) -> list[Example]:
    """Examples without content, for a study that has scores and no data file.

    Raises:
        DataError: a candidate has answers that would need data to be scored, or two candidates put
            one id into different splits.
    """
    splits: dict[str, str] = {}
    ids: dict[str, None] = {}
    for one in recorded:
        if not one.only_scores:
            raise DataError(
                "recorded answers cannot be scored without data",
                hint="Name the data set as `data.examples`, or record `score` on every line.",
            )
        ids.update(one.ids)
        for key, split in one.splits.items():
            if splits.setdefault(key, split) != split:
                raise DataError(
                    f"the row {key!r} is in {splits[key]} for one candidate and in {split} for "
                    "another",
                    hint="Give each id the same `split` in all answer files.",
                )
    return [Example(id=key, messages=(), split=splits.get(key)) for key in ids]


class RecordedFitted:
    """Answers looked up by id.

    Attributes:
        answers: what was recorded.
        dev_completions: the first seed's answers to all dev rows; None where dev was empty.
    """

    def __init__(
        self, answers: RecordedAnswers, train: Sequence[Example], dev: Sequence[Example]
    ) -> None:
        self.answers = answers
        self._missing: dict[str, None] = {}
        self._elsewhere = [
            row.id
            for split, rows in (("train", train), ("dev", dev))
            for row in rows
            if answers.splits.get(row.id, split) != split
        ]
        self._seen = {row.id for row in (*train, *dev)}
        self.dev_completions = self.answer(dev) if dev else None

    @property
    def seeds(self) -> list[int | None]:
        """The recorded seeds; one None where none are named."""
        return self.answers.seeds

    def request(self, example: Example) -> Request | None:
        return None

    def answer(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Completion]:
        """The first seed's answers. An id without one is a failure, and counts as wrong."""
        return self.answer_seed(examples, self.seeds[0], progress)

    def answer_seed(
        self, examples: Sequence[Example], seed: int | None, progress: Progress | None = None
    ) -> list[Completion]:
        """One seed's answers, in order."""
        held = self.answers.by_seed[seed]
        completions = []
        for row in examples:
            self._seen.add(row.id)
            completion = held.get(row.id)
            if completion is None:
                self._missing[row.id] = None
                completion = Completion(
                    error="no answer was recorded for this row",
                    advice="Record answers to all rows; a row's id stands with its answer.",
                    seed=seed,
                )
            completions.append(completion)
        if progress is not None:
            progress(len(examples), len(examples))
        return completions

    def answer_all_seeds(self, examples: Sequence[Example]) -> dict[int | None, list[Completion]]:
        """The answers of every seed."""
        return {seed: self.answer_seed(examples, seed) for seed in self.seeds}

    @property
    def missing(self) -> list[str]:
        """Ids that were asked for and have no answer, for one seed at least."""
        return list(self._missing)

    @property
    def extra(self) -> list[str]:
        """Recorded ids that belong to no row seen so far."""
        return [key for key in self.answers.ids if key not in self._seen]

    def chosen(self) -> Mapping[str, Any]:
        notes = []
        if n := len(self._elsewhere):
            notes.append(
                f"{plural(n, 'row')} {verb(n, 'is', 'are')} in another split here than in the "
                "answer file: " + ", ".join(self._elsewhere[:_SHOWN])
            )
        for key, count in self.answers.unknown_keys.items():
            lines = f"{plural(count, 'line')} {verb(count, 'has', 'have')}"
            notes.append(f"{lines} the key {key!r}, which means nothing here")
        missing, extra = self.missing, self.extra
        return {
            "recorded": len(self.answers.ids),
            "seeds": self.seeds,
            "only_scores": self.answers.only_scores,
            "missing": {"count": len(missing), "ids": missing[:_SHOWN]},
            "extra": {"count": len(extra), "ids": extra[:_SHOWN]},
            "dev_evaluations": 0,
            "tried": [],
            "notes": notes,
        }


@dataclass(frozen=True)
class Recorded:
    """Answers made elsewhere; there is nothing to choose."""

    name: str
    answers: RecordedAnswers
    kind: str = "recorded"
    traits: ClassVar[Traits] = Traits(needs_model=False, recorded=True, dev_rounds=0, complexity=50)

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> Recorded:
        return cls(spec.name, recorded_answers(spec, context.folder))

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> RecordedFitted:
        return RecordedFitted(self.answers, train, dev)


def _add(
    found: RecordedAnswers, row: object, where: str, first_seen: dict[tuple[int | None, str], str]
) -> None:
    if not isinstance(row, Mapping):
        raise DataError("the line is not a JSON object", where=where, hint=_EXAMPLE)
    key = row.get("id")
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        raise DataError("the line has no `id`", where=where, hint=_EXAMPLE)
    key = str(key)
    seed = _number(row, "seed", where, whole=True)
    assert seed is None or isinstance(seed, int)
    answer, score = row.get("answer"), _number(row, "score", where, most=1)
    if (answer is None) == (score is None):
        both = "both `answer` and `score`" if answer is not None else "neither `answer` nor `score`"
        raise DataError(f"the line for {key!r} has {both}", where=where, hint="Give one of them.")
    if answer is not None and not isinstance(answer, str):
        raise DataError(
            f"`answer` of {key!r} is not text", where=where, hint="Write JSON answers as a string."
        )
    if key in found.by_seed.get(seed, {}):
        before = first_seen[seed, key]
        which = "" if seed is None else f" with seed {seed}"
        raise DataError(
            f"the id {key!r}{which} has two answers; the first is at {before}",
            where=where,
            hint="Keep one, or give repeated runs different `seed` numbers.",
        )
    split = row.get("split")
    if split is not None:
        if split not in _SPLITS:
            raise DataError(
                f"the split {split!r} of {key!r} is unknown", where=where, hint="Use dev or test."
            )
        if found.splits.setdefault(key, split) != split:
            raise DataError(
                f"{key!r} is in {split} here and in {found.splits[key]} before", where=where
            )
    counted = {name: _number(row, name, where, whole=True) for name in _TOKENS}
    tokens = {name: None if value is None else int(value) for name, value in counted.items()}
    for part in ("cached_tokens", "static_tokens"):
        if (tokens[part] or 0) > (tokens["prompt_tokens"] or 0):
            raise DataError(
                f"`{part}` of {key!r} is more than its `prompt_tokens`",
                where=where,
                hint="They are a part of the prompt's tokens.",
            )
    first_seen[seed, key] = where
    found.by_seed.setdefault(seed, {})[key] = Completion(
        **_said(answer or "", row),
        prompt_tokens=tokens["prompt_tokens"],
        completion_tokens=tokens["completion_tokens"],
        cached_tokens=tokens["cached_tokens"],
        static_tokens=tokens["static_tokens"],
        latency_s=_number(row, "latency_s", where),
        score=score,
        seed=seed,
    )
    found.ids[key] = None
    found.only_scores = found.only_scores and score is not None
    for name in row.keys() - _KEYS:
        found.unknown_keys[name] = found.unknown_keys.get(name, 0) + 1


def _said(answer: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer and the thoughts before it, in its text or in a field of their own."""
    said = split_thoughts(answer)
    thoughts = said.thoughts or str(row.get("reasoning_content") or "").strip()
    return {"text": said.answer, "thoughts": thoughts, "unfinished": said.unfinished}


_EXAMPLE = 'A line looks like {"id": "row-1", "answer": "…"} or {"id": "row-1", "score": 0.5}'


def _number(
    row: Mapping[str, Any], name: str, where: str, *, whole: bool = False, most: float | None = None
) -> float | None:
    """A number of at least 0, or None where the line has none."""
    value = row.get(name)
    if value is None:
        return None
    kinds = int if whole else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool)
    # Written so that NaN fails it.
    if not right or not 0 <= value <= (sys.float_info.max if most is None else most):
        kind = "whole number" if whole else "number"
        limit = f"between 0 and {most:g}" if most is not None else "of 0 or more"
        raise DataError(
            f"`{name}` is {value!r}; it must be a {kind} {limit}",
            where=where,
            hint="Scores run from 0 (wrong) to 1 (right)." if name == "score" else None,
        )
    number: float = value
    return number
