"""Racing settings on dev: what leaves when, and that the choice is as good as a full search's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri
from tests.candidates_kit import Exact, row

from tunewise.candidates.choosing import Choice, DevSearch, Effort, heats
from tunewise.data.chat import Completion, Example, Progress, Request

GROUPS = (3, 2, 3, 1, 2)
"""Settings of few-shot prompting: sizes, orders, sizes of nearest ones, a note, phrasings."""
LIKENESS = 0.6
"""How far settings agree on which rows are hard."""


@dataclass(frozen=True, eq=False)
class Setting:
    number: int

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"number": self.number}

    def request(self, example: Example) -> Request:
        said = {"role": "user", "content": f"{self.number} {example.id}"}
        return Request(messages=(said,), max_tokens=4)


def search(right: np.ndarray, effort: Effort, groups: Sequence[int] = GROUPS) -> Choice[Setting]:
    """A race of settings of which it is known in which rows they are right, ``[setting, row]``."""
    dev = [row(str(i), f"q {i}", "x") for i in range(right.shape[1])]

    def answer(requests: Sequence[Request], _: Progress | None) -> list[Completion]:
        told = [str(request.messages[0]["content"]).split() for request in requests]
        return [Completion(text="x" if right[int(t), int(i)] else "y") for t, i in told]

    racing: DevSearch[Setting] = DevSearch(answer, Exact(), dev, effort=effort)
    options = iter(range(len(right)))
    for size in groups:
        racing.race(Setting(next(options)) for _ in range(size))
    return racing.settle()


@pytest.mark.parametrize(
    ("rows", "effort", "spread", "draws", "most_asked"),
    [
        (25, "quick", 0.08, 150, 0.7),
        (40, "quick", 0.15, 80, 0.6),
        (100, "standard", 0.08, 30, 0.65),
        pytest.param(25, "quick", 0.08, 3000, 0.7, marks=pytest.mark.soak),
        pytest.param(60, "standard", 0.04, 1500, 0.65, marks=pytest.mark.soak),
        pytest.param(100, "standard", 0.15, 800, 0.55, marks=pytest.mark.soak),
        pytest.param(400, "thorough", 0.08, 200, 0.45, marks=pytest.mark.soak),
    ],
)
def test_the_raced_choice_is_as_good(
    rows: int, effort: Effort, spread: float, draws: int, most_asked: float
) -> None:
    """The true score of what is chosen, on average, against all settings asked all of dev."""
    rng = np.random.default_rng(11)
    lost, asked = [], 0
    for _ in range(draws):
        true = np.clip(rng.normal(0.6, spread, sum(GROUPS)), 0.02, 0.98)
        hard = rng.normal(size=rows)
        own = rng.normal(size=(len(true), rows))
        marks = np.sqrt(LIKENESS) * hard + np.sqrt(1 - LIKENESS) * own
        right = marks < ndtri(true)[:, None]
        raced = search(right, effort)
        lost.append(true[right.mean(axis=1).argmax()] - true[raced.option.number])
        asked += raced.dev_evaluations
        assert len(raced.dev_completions or ()) == rows
    points = 100 * np.array(lost)
    share = asked / (draws * len(true) * rows)
    error = points.std() / draws**0.5
    print(f"{rows} rows: {points.mean():.2f} ± {error:.2f} points lost, {share:.0%} asked")
    assert points.mean() <= 1.0 + 2 * error
    assert share <= most_asked


def shares(*right: int, rows: int = 60) -> np.ndarray:
    """Settings that are right in so many of each ten rows, all in the same ones."""
    return np.array([[i % 10 < share for i in range(rows)] for share in right])


def test_parts_grow_to_all_rows() -> None:
    assert [heats(n) for n in (0, 8, 15)] == [[0], [8], [15]]
    assert [heats(n) for n in (25, 40, 100)] == [[8, 16, 25], [10, 20, 40], [25, 50, 100]]


def test_few_rows_or_two_settings_are_asked_all() -> None:
    few = search(shares(1, 9, 5, 2, rows=15), "quick", (4,))
    assert [t["dev_rows"] for t in few.tried] == [15] * 4 and few.notes == []
    two = search(shares(1, 9, rows=300), "standard", (2,))
    assert [t["dev_rows"] for t in two.tried] == [300] * 2 and two.notes == []


def test_losers_leave_and_it_is_told_after_how_many_rows() -> None:
    choice = search(shares(5, 2, 9, 1, 7), "quick", (1, 4))
    assert choice.option.number == 2 and choice.dev_score == pytest.approx(0.9)
    rows = [t["dev_rows"] for t in choice.tried]
    assert rows[2] == 60 and rows[1] == rows[3] == 10
    assert choice.dev_evaluations == sum(rows) < 3 * 60
    assert choice.notes[0].startswith("5 settings raced on dev: 2 left after 10 rows, ")
    assert choice.notes[0].endswith(", 1 asked all 60")


def test_of_two_that_only_tie_with_the_leader_one_leaves() -> None:
    choice = search(shares(0, 0, 0, rows=16), "quick", (1, 2))
    assert choice.option.number == 0
    assert [t["dev_rows"] for t in choice.tried] == [16, 16, 8]


def test_the_last_three_race_over_the_rest_of_dev() -> None:
    right = shares(9, 9, 9, 1, rows=800)
    right[1, ::40] = False
    choice = search(right, "standard", (4,))
    assert choice.option.number == 0  # of equals the first
    assert len(choice.dev_completions or ()) == 800
    assert choice.tried[0]["dev_rows"] == 800 > choice.tried[3]["dev_rows"]


def test_two_runs_choose_alike() -> None:
    right = np.random.default_rng(4).random((11, 50)) < 0.6
    assert search(right, "quick").as_dict() == search(right, "quick").as_dict()
