"""Choosing a setting on dev with few answers, and a record of what was tried.

Settings race: they are asked growing parts of dev, drawn by hash, and losers leave early. After a
part the better half goes on (successive halving: Jamieson & Talwalkar, 1502.07943), and whatever is
behind the leader by a paired test leaves. The best three of the first look go on to the rest of dev
in the same way, and the winner is always asked all of it. Ties go to the setting that was tried
first, so a candidate tries the cheaper one first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any, Generic, Literal, Protocol, TypeVar

from tunewise.candidates.asking import with_static_tokens
from tunewise.data.chat import Completion, Example, Progress, Request, canonical_hash
from tunewise.scoring.base import ItemScore, Scorer
from tunewise.scoring.best import score_answer
from tunewise.words import plural

Effort = Literal["quick", "standard", "thorough"]
FIRST_LOOK: Mapping[Effort, int] = {"quick": 40, "standard": 100, "thorough": 200}
FINALISTS = 3
BEHIND = 1.0
"""Standard errors behind the leader at which a setting leaves. What leaves wrongly is all but as
good; ``tests/test_candidates_racing.py`` counts what a race costs in true score."""
_FEW = 2
"""Settings that do not race: both are asked all."""
_FEWEST_RACED = 16
"""Rows of a first look below which all settings are asked all of it: parts would say nothing."""
_FEWEST_IN_A_PART = 8


def heats(n: int) -> list[int]:
    """After how many of ``n`` rows losers leave: a quarter, half, all."""
    if n < _FEWEST_RACED:
        return [n]
    found = [max(_FEWEST_IN_A_PART, math.ceil(n / 4))]
    return _doubled(found, n)


def _doubled(found: list[int], n: int) -> list[int]:
    """Twice as many rows each time, up to ``n``; a last step that would be short is left out."""
    while found[-1] * 5 < n * 4:
        found.append(2 * found[-1])
    found[-1] = n
    return found


class Option(Protocol):
    """One setting that could be chosen."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it is, in JSON values; stands in the table of what was tried."""
        ...

    def request(self, example: Example) -> Request:
        """The request for a row under this setting."""
        ...


_WORDING = ("prompt", "wording", "note", "instruction")
"""The settings that say how the instructions are put."""

OptionT = TypeVar("OptionT", bound=Option)


@dataclass(eq=False)
class _Trial(Generic[OptionT]):
    option: OptionT
    requests: dict[int, Request] = field(default_factory=dict)
    items: dict[int, ItemScore] = field(default_factory=dict)
    completions: dict[int, Completion] = field(default_factory=dict)
    left: bool = False


@dataclass(frozen=True)
class Choice(Generic[OptionT]):
    """What was chosen.

    Attributes:
        option: the chosen setting.
        dev_completions: its answers to all dev rows; None where dev is empty.
        dev_score: its score on dev in 0..1; None where dev is empty.
        tried: a row for each setting: its settings, ``dev_score`` (0..1) and ``dev_rows``.
        dev_evaluations: answers asked for on dev, over all settings.
        dev_rows: how many rows dev has.
    """

    option: OptionT
    dev_completions: list[Completion] | None
    dev_score: float | None
    tried: list[dict[str, Any]]
    dev_evaluations: int
    dev_rows: int

    @property
    def notes(self) -> list[str]:
        """How the settings raced, in a sentence; empty where all were asked all of dev."""
        left = Counter(int(one["dev_rows"]) for one in self.tried)
        stayed = left.pop(self.dev_rows, 0)
        if not left:
            return []
        parts = [
            f"{number} left after {plural(rows, 'row')}" for rows, number in sorted(left.items())
        ]
        return [
            f"{plural(len(self.tried), 'setting')} raced on dev: {', '.join(parts)}, "
            f"{stayed} asked all {self.dev_rows:,}"
        ]

    def as_dict(self) -> dict[str, Any]:
        """The choice in JSON values, for ``chosen()``."""
        return {
            **self.option.settings,
            "dev_score": self.dev_score,
            "dev_evaluations": self.dev_evaluations,
            "tried": self.tried,
        }


class DevSearch(Generic[OptionT]):
    """Races settings on a part of dev, then settles between the best on all of it."""

    def __init__(
        self,
        answer: Callable[[Sequence[Request], Progress | None], list[Completion]],
        scorer: Scorer,
        dev: Sequence[Example],
        *,
        effort: Effort = "standard",
        seed: int = 0,
        expected: int = 1,
        progress: Progress | None = None,
    ) -> None:
        """
        Args:
            answer: who answers requests.
            scorer: the study's metric.
            dev: the rows to choose on.
            effort: how many rows the first look takes.
            seed: draws those rows.
            expected: how many settings will be tried, for ``progress``.
            progress: called with the answers done and expected.
        """
        self._answer = answer
        self._scorer = scorer
        self._dev = dev
        self._drawn = sorted(range(len(dev)), key=lambda i: canonical_hash([seed, dev[i].id]))
        self._look = min(FIRST_LOOK[effort], len(dev))
        self._trials: list[_Trial[OptionT]] = []
        self._progress = progress
        rest = len(dev) - self._look
        self._total = expected * self._look + min(expected, FINALISTS) * rest
        self._done = 0

    @property
    def first_rows(self) -> list[Example]:
        """The rows of the first look."""
        return [self._dev[i] for i in sorted(self._drawn[: self._look])]

    def race(self, options: Iterable[OptionT]) -> OptionT | None:
        """Race options on the first look, against each other and the leader so far.

        What leaves is told with the rows that it was asked, and cannot be chosen.

        Returns:
            The best of them, whether or not it is the leader; None where there are none.
        """
        trials = [_Trial(option) for option in options]
        racing = trials
        parts = heats(self._look)
        for part in parts:
            self._ask(racing, part)
            if part < self._look:
                racing = self._going_on(racing, self._staying, part)
        for trial in trials:
            trial.left = trial not in racing
        self._trials.extend(trials)
        best = max(trials, key=lambda t: (len(t.items), self._score(t)), default=None)
        return None if best is None else best.option

    @property
    def prompts(self) -> int:
        """How many different instructions were tried."""
        return len(
            {
                canonical_hash([trial.option.settings.get(name) for name in _WORDING])
                for trial in self._trials
            }
        )

    @property
    def leader(self) -> OptionT:
        """The best on the first look of all that was tried so far."""
        return self._ranked(self._staying, self._look)[0].option

    def settle(self) -> Choice[OptionT]:
        """The best of all that was tried, asked all of dev."""
        finalists = self._ranked(self._staying, self._look)[:FINALISTS]
        parts = _doubled([2 * self._look], len(self._dev)) if self._look < len(self._dev) else []
        before = self._look
        for part in parts:
            finalists = self._going_on(finalists, (), before)
            self._ask(finalists, part if len(finalists) > 1 else len(self._dev))
            before = part
        winner = self._ranked(finalists, len(self._dev))[0]
        if self._progress is not None and self._total:
            self._progress(self._total, self._total)
        return Choice(
            option=winner.option,
            dev_completions=self._completions(winner) if self._dev else None,
            dev_score=self._score(winner) if self._dev else None,
            tried=[
                {
                    **trial.option.settings,
                    "dev_score": self._score(trial) if self._dev else None,
                    "dev_rows": len(trial.items),
                }
                for trial in self._trials
            ],
            dev_evaluations=sum(len(trial.items) for trial in self._trials),
            dev_rows=len(self._dev),
        )

    @property
    def _staying(self) -> list[_Trial[OptionT]]:
        return [trial for trial in self._trials if not trial.left]

    def _going_on(
        self, racing: Sequence[_Trial[OptionT]], rivals: Sequence[_Trial[OptionT]], part: int
    ) -> list[_Trial[OptionT]]:
        """Those that stay after the first ``part`` drawn rows, in the order they were tried in.

        Args:
            rivals: that lead perhaps, and were asked these rows before.
        """
        if len({*self._trials, *racing}) <= _FEW:
            return list(racing)
        leader = self._ranked([*rivals, *racing], part)[0]
        better = racing
        if len(racing) > 2:
            better = self._ranked(racing, part)[: math.ceil(len(racing) / 2)]
        elif len(racing) == 2 and rivals and not self._score(leader, part) > 0:
            better = racing[:1]  # nobody is right so far: of equals the one tried first goes on
        return [t for t in racing if t in better and not self._behind(t, leader, part)]

    def _behind(self, trial: _Trial[OptionT], leader: _Trial[OptionT], part: int) -> bool:
        """Whether ``trial`` is worse than ``leader`` by a paired test on the same rows."""
        if trial is leader or self._scorer.corpus:  # whose rows have no scores of their own
            return False
        rows = self._drawn[:part]
        gaps = [leader.items[i].value - trial.items[i].value for i in rows]
        return fmean(gaps) > BEHIND * math.sqrt(variance(gaps) / len(gaps))

    def _ranked(self, trials: Sequence[_Trial[OptionT]], part: int) -> list[_Trial[OptionT]]:
        """The best on the first ``part`` drawn rows first; of equals the one tried first."""
        return sorted(trials, key=lambda trial: self._score(trial, part), reverse=True)

    def _score(self, trial: _Trial[OptionT], part: int | None = None) -> float:
        """On the first ``part`` drawn rows, or on all rows asked so far."""
        rows = sorted(trial.items if part is None else self._drawn[:part])
        return self._scorer.aggregate([trial.items[i] for i in rows]) if rows else 0.0

    def _completions(self, trial: _Trial[OptionT]) -> list[Completion]:
        rows = range(len(self._dev))
        requests = [trial.requests[i] for i in rows]
        return with_static_tokens(requests, [trial.completions[i] for i in rows])

    def _ask(self, trials: Sequence[_Trial[OptionT]], part: int) -> None:
        """Ask what of the first ``part`` drawn rows was not asked yet.

        All trials at once, so that prompts which begin alike are computed once, and batches fill.
        """
        rows = sorted(self._drawn[:part])
        asked = [(trial, i) for trial in trials for i in rows if i not in trial.items]
        if not asked:
            return
        requests = [trial.option.request(self._dev[i]) for trial, i in asked]
        completions = self._answer(requests, self._step if self._progress else None)
        for (trial, i), request, completion in zip(asked, requests, completions, strict=True):
            trial.requests[i] = request
            trial.completions[i] = completion
            trial.items[i] = score_answer(self._scorer, self._dev[i], completion)
        self._done += len(asked)

    def _step(self, done: int, _of: int, failed: int = 0) -> None:
        assert self._progress is not None
        self._progress(min(self._done + done, self._total), self._total, failed)
