"""Looks at the same test rows: what a further one needs, and what following the advice costs.

The simulations do what a user does: test, read "with about N more rows", label them, test again, up
to five looks; the true gain is the very one asked for, where both FINE_TUNE and DO_NOT_FINE_TUNE
for want of gain are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

from tunewise.verdict.compare import compare
from tunewise.verdict.decision import Baseline, Evidence, decide
from tunewise.verdict.intervals import newcombe_tango_limits, two_sided_alpha, two_sided_z
from tunewise.verdict.planning import MOST_LOOKS, Labels, Remedy, labels_to_decide
from tunewise.verdict.sentence import headline, rounded
from tunewise.verdict.sequential import look_alpha, obrien_fleming
from tunewise.verdict.words import Because, Verdict
from tunewise.words import level


@dataclass(frozen=True)
class Task:
    """A test of ``n`` rows, the accuracy without fine-tuning, the share of rows that differ."""

    n: int
    accuracy: float
    differ: float
    asked: float  # points


TASKS = (Task(300, 0.6, 0.2, 2.0), Task(100, 0.8, 0.12, 2.0), Task(100, 0.6, 0.3, 5.0))
MORE = (*TASKS, Task(300, 0.7, 0.2, 0.0), Task(50, 0.5, 0.2, 2.0), Task(500, 0.9, 0.08, 1.0))


def followed(
    task: Task, gain: float, alphas: list[float], draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which tests end with FINE_TUNE, and which with DO_NOT, at which look (0: none)."""
    rng = np.random.default_rng(seed)
    first, second = (task.differ + gain / 100) / 2, (task.differ - gain / 100) / 2
    both = task.accuracy - second
    shares = [both, first, second, 1 - both - first - second]
    tables = np.zeros((draws, 4), int)
    rows = np.full(draws, task.n)
    tuned, untuned = np.zeros(draws, int), np.zeros(draws, int)
    live = np.arange(draws)
    for look, alpha in enumerate(alphas, start=1):
        tables[live] += rng.multinomial(rows[live] - tables[live].sum(axis=1), shares)
        low, high = newcombe_tango_limits(*tables[live].T, alpha=alpha)
        tuned[live[100 * low > task.asked]] = look
        untuned[live[100 * high <= task.asked]] = look
        if look == len(alphas):
            break
        live = live[(100 * low <= task.asked) & (100 * high > task.asked)]
        z = two_sided_z(alphas[look])
        advice = {int(i): _advice(tables[i], task.asked, z) for i in live}
        live = np.array([i for i in live if advice[int(i)].remedy is Remedy.ROWS], int)
        for i in live:
            rows[i] += rounded(advice[int(i)].more or 0)
    return tuned, untuned


def _advice(table: np.ndarray, asked: float, z: float) -> Labels:
    n = int(table.sum())
    gain = (table[1] - table[2]) / n
    sd = sqrt(max((table[1] + table[2]) / n - gain**2, 0.0) * n / (n - 1))
    return labels_to_decide(gain=100 * gain, minimal_gain=asked, sd_difference=100 * sd, n=n, z=z)


LOOKS = [look_alpha(look) for look in range(1, MOST_LOOKS + 1)]


def held(task: Task, draws: int, seed: int) -> None:
    most = 0.025 + 3 * sqrt(0.025 * 0.975 / draws)
    for wrong in followed(task, task.asked, LOOKS, draws, seed):
        assert np.count_nonzero(wrong) / draws <= most


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_who_follows_the_advice_through_five_looks_is_not_misled(task: Task) -> None:
    held(task, 3_000, seed=task.n)


@pytest.mark.soak
@pytest.mark.parametrize("task", MORE, ids=str)
def test_who_follows_the_advice_is_not_misled_thoroughly(task: Task) -> None:
    held(task, 12_000, seed=task.n + 1)


@pytest.mark.parametrize(
    "bounds",
    [[1.96] * MOST_LOOKS, [obrien_fleming(look)[-1] for look in range(1, MOST_LOOKS + 1)]],
    ids=["none", "the last of each plan"],
)
def test_other_limits_mislead(bounds: list[float]) -> None:
    """Why not the bounds that O'Brien-Fleming's last look has: the rows follow from the data."""
    wrong, _ = followed(TASKS[0], 2.0, [two_sided_alpha(z) for z in bounds], 3_000, seed=1)
    assert np.count_nonzero(wrong) / len(wrong) > 0.05


@pytest.mark.parametrize("gain", [6.0, 9.0])
def test_the_chance_that_is_told_is_what_comes(gain: float) -> None:
    """A true gain as measured, on the rows that are asked for: four tests in five decide."""
    task, draws = TASKS[0], 4_000
    sd = 100 * sqrt(task.differ - (gain / 100) ** 2)
    z = two_sided_z(look_alpha(2))
    labels = labels_to_decide(gain=gain, minimal_gain=2.0, sd_difference=sd, n=50, z=z)
    assert labels.total is not None and labels.chance is not None
    wanted = replace(task, n=labels.total)
    decided, _ = followed(wanted, gain, [look_alpha(2)], draws, seed=2)
    assert np.count_nonzero(decided) / draws == pytest.approx(labels.chance, abs=0.03)


def test_the_first_look_is_a_test_like_any_other_and_further_ones_need_more() -> None:
    assert look_alpha(1) == 0.05
    found = [two_sided_z(look_alpha(look)) for look in range(2, 6)]
    assert found == pytest.approx([2.797, 3.471, 4.049, 4.562], abs=0.001)
    assert look_alpha(9) == look_alpha(5)
    told = [level(look_alpha(look)) for look in range(1, 6)]
    assert told == ["95 %", "99.5 %", "99.95 %", "99.995 %", "99.9995 %"]


SCORES = np.random.default_rng(3).integers(0, 2, (2, 200)).astype(float)
PARTS = np.random.default_rng(4).random((2, 400))
RARE = np.where(np.arange(200) % 25 == 0, 0.4, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "more"),
    [
        (SCORES[0], SCORES[1], {"binary": True}),
        (SCORES[0], SCORES[1], {"binary": True, "clusters": np.arange(200) // 4}),
        (PARTS[0], PARTS[1], {"binary": False}),
        (PARTS[0, :99], PARTS[1, :99], {"binary": False}),
        (PARTS[0, :200] * 0.5 + RARE, PARTS[0, :200] * 0.5, {"binary": False}),
        (np.ones(50), np.ones(50), {"binary": True}),
    ],
    ids=["table", "clusters", "bca", "t", "rare", "alike"],
)
def test_a_further_look_has_a_wider_interval_whatever_the_method(
    one: np.ndarray, other: np.ndarray, more: dict[str, object]
) -> None:
    widths = []
    for alpha in LOOKS:
        pair = compare(one, other, alpha=alpha, **more)  # type: ignore[arg-type]
        widths.append(pair.high - pair.low)
    assert all(b > 1.1 * a for a, b in pairwise(widths)), widths


def evidence(look: int, low: float, high: float) -> Evidence:
    pair = compare(SCORES[0], SCORES[1], binary=True, alpha=look_alpha(look))
    pair = replace(pair, gain=(low + high) / 2, low=low, high=high)
    return Evidence(
        baselines=(Baseline(name="few_shot", score=70.0, n=200),),
        best_baseline="few_shot",
        fine_tuned="fine_tuned",
        comparison=pair,
        look=look,
    )


def test_after_five_looks_a_new_test_is_needed() -> None:
    fifth = evidence(5, -1.0, 9.0)
    decision = decide(fifth)
    assert decision.labels == Labels(remedy=Remedy.TEST)
    assert "take a new, unopened test" in headline(decision, fifth)
    assert decide(evidence(5, 3.0, 9.0)).verdict is Verdict.FINE_TUNE
    for limits in ((3.0, 9.0), (-9.0, -3.0), (-1.0, 9.0)):
        sixth = evidence(6, *limits)
        decision = decide(sixth)
        assert (decision.verdict, decision.because) == (Verdict.UNDECIDED, (Because.LOOKS,))
        assert "look 6" in headline(decision, sixth)
        assert "take a new, unopened test" in headline(decision, sixth)
