"""Choosing a setting on dev with few answers, and a record of what was tried.

Settings are tried on a part of dev, drawn by hash; the best three are then asked the rest of dev
and compared on all of it. Ties go to the setting that was tried first, so a candidate tries the
cheaper one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from tunewise.data.chat import Completion, Example, Progress, Request, canonical_hash
from tunewise.scoring.base import ItemScore, Scorer
from tunewise.scoring.best import score_answer

Effort = Literal["quick", "standard", "thorough"]
FIRST_LOOK: Mapping[Effort, int] = {"quick": 40, "standard": 100, "thorough": 200}
FINALISTS = 3
HEAT = 2
"""A race begins with one of so many rows of the first look; the better half goes on."""


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
    """

    option: OptionT
    dev_completions: list[Completion] | None
    dev_score: float | None
    tried: list[dict[str, Any]]
    dev_evaluations: int

    def as_dict(self) -> dict[str, Any]:
        """The choice in JSON values, for ``chosen()``."""
        return {
            **self.option.settings,
            "dev_score": self.dev_score,
            "dev_evaluations": self.dev_evaluations,
            "tried": self.tried,
        }


class DevSearch(Generic[OptionT]):
    """Tries settings on a part of dev, then settles between the best on all of it."""

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
        by_hash = sorted(range(len(dev)), key=lambda i: canonical_hash([seed, dev[i].id]))
        self._first = sorted(by_hash[: FIRST_LOOK[effort]])
        self._trials: list[_Trial[OptionT]] = []
        self._progress = progress
        rest = len(dev) - len(self._first)
        self._total = expected * len(self._first) + min(expected, FINALISTS) * rest
        self._done = 0

    @property
    def first_rows(self) -> list[Example]:
        """The rows of the first look."""
        return [self._dev[i] for i in self._first]

    def try_all(self, options: Sequence[OptionT]) -> OptionT:
        """Score each option on the first look; the best of them."""
        trials = [_Trial(option) for option in options]
        for trial in trials:
            self._ask(trial, self._first)
        self._trials.extend(trials)
        return max(trials, key=self._first_look).option

    def race(self, options: Sequence[OptionT]) -> None:
        """Score options on the first look; the worse half leaves after a part of its rows.

        What leaves is told with the rows that it was asked, and cannot be chosen.
        """
        trials = [_Trial(option) for option in options]
        if len(trials) > 2:
            heat = self._first[::HEAT]
            for trial in trials:
                self._ask(trial, heat)
            best = sorted(trials, key=self._score, reverse=True)[: (len(trials) + 1) // 2]
        else:
            best = trials
        for trial in best:
            self._ask(trial, [i for i in self._first if i not in trial.items])
        for trial in trials:
            trial.left = trial not in best
        self._trials.extend(trials)

    @property
    def prompts(self) -> int:
        """How many different instructions were tried."""
        return len(
            {
                canonical_hash([trial.option.settings.get(name) for name in _WORDING])
                for trial in self._trials
            }
        )

    def try_each(self, options: Iterable[OptionT]) -> None:
        """Score each option on the first look, if there is any."""
        for option in options:
            self.try_all([option])

    @property
    def leader(self) -> OptionT:
        """The best on the first look of all that was tried so far."""
        return max(self._staying, key=self._first_look).option

    @property
    def _staying(self) -> list[_Trial[OptionT]]:
        return [trial for trial in self._trials if not trial.left]

    def settle(self) -> Choice[OptionT]:
        """The best of all that was tried, compared on all of dev."""
        finalists = sorted(self._staying, key=self._first_look, reverse=True)[:FINALISTS]
        for trial in finalists:
            self._ask(trial, [i for i in range(len(self._dev)) if i not in trial.items])
        winner = max(
            (t for t in self._trials if t in finalists), key=self._score
        )  # ties: first tried
        if self._progress is not None and self._total:
            self._progress(self._total, self._total)
        return Choice(
            option=winner.option,
            dev_completions=[c for _, c in sorted(winner.completions.items())]
            if self._dev
            else None,
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
        )

    def _score(self, trial: _Trial[OptionT]) -> float:
        """On all rows asked so far; only trials asked the same rows may be compared."""
        items = [item for _, item in sorted(trial.items.items())]
        return self._scorer.aggregate(items) if items else 0.0

    def _first_look(self, trial: _Trial[OptionT]) -> float:
        items = [trial.items[i] for i in self._first]
        return self._scorer.aggregate(items) if items else 0.0

    def _ask(self, trial: _Trial[OptionT], places: Sequence[int]) -> None:
        requests = [trial.option.request(self._dev[i]) for i in places]
        completions = self._answer(requests, self._step if self._progress else None)
        for i, completion in zip(places, completions, strict=True):
            trial.completions[i] = completion
            trial.items[i] = score_answer(self._scorer, self._dev[i], completion)
        self._done += len(places)

    def _step(self, done: int, _of: int, failed: int = 0) -> None:
        assert self._progress is not None
        self._progress(min(self._done + done, self._total), self._total, failed)
