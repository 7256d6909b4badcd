"""What a test can show, how many rows would decide, and bounds for interim looks."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunewise.errors import UsageError
from tunewise.verdict import planning
from tunewise.verdict.intervals import mcnemar_midp
from tunewise.verdict.planning import Labels, Remedy
from tunewise.verdict.sequential import obrien_fleming

DISCORDANCE = (0.05, 0.10, 0.20, 0.30, 0.40)
MDE = {
    50: (None, None, 16.4, 20.5, 24.0),
    100: (None, 8.2, 12.1, 15.1, 17.4),
    200: (4.1, 6.0, 8.7, 10.7, 12.4),
    300: (3.4, 5.0, 7.1, 8.8, 10.2),
    500: (2.7, 3.9, 5.6, 6.8, 7.9),
    1000: (2.0, 2.8, 3.9, 4.8, 5.6),
    2000: (1.4, 2.0, 2.8, 3.4, 4.0),
}


@pytest.mark.parametrize("n", MDE)
def test_the_mde_table_to_the_printed_digit(n: int) -> None:
    found = [planning.mde_by_power(n=n, discordance=share) for share in DISCORDANCE]
    assert tuple(None if x is None else round(x, 1) for x in found) == MDE[n]


def test_power_is_the_share_of_tables_that_midp_rejects() -> None:
    n, discordance, gain = 60, 0.3, 12.0
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
    inside = b + c <= n
    b, c = b[inside], c[inside]
    shares = [(discordance + gain / 100) / 2, (discordance - gain / 100) / 2, 1 - discordance]
    mass = stats.multinomial.pmf(np.stack([b, c, n - b - c], axis=1), n, shares)
    expected = mass[mcnemar_midp(b, c) <= 0.05].sum()
    got = planning.mcnemar_power(n=n, discordance=discordance, gain=gain)
    assert got == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "gain", "simulated"), [(50, 0.0, 0.017), (200, 0.0, 0.047), (200, 4.0, 0.52)]
)
def test_power_agrees_with_the_simulated_figures(n: int, gain: float, simulated: float) -> None:
    """The method's own figures come from 20,000 tables, printed to two digits."""
    error = 3 * sqrt(simulated * (1 - simulated) / 20_000) + (0.005 if gain else 0.0005)
    got = planning.mcnemar_power(n=n, discordance=0.08, gain=gain)
    assert got == pytest.approx(simulated, abs=error)


def test_quick_forms() -> None:
    assert planning.mde(1.5) == pytest.approx(4.2)
    assert planning.mde_decide(1.5, 2.0) == pytest.approx(6.2)
    assert planning.mde_from_discordance(0.1, 500) == pytest.approx(280 * sqrt(0.1 / 500))
    assert planning.mde_from_discordance(0.1, 500, design_effect=4.0) == pytest.approx(
        2 * 280 * sqrt(0.1 / 500)
    )
    # "about 1,000 questions": spread 1/3, gain 3 points.
    assert planning.rows_to_detect(100 / 3, 3.0) == pytest.approx(969, abs=2)
    assert planning.rows_for_equivalence(30.0, 3.0) == 1050
    assert planning.rows_for_equivalence(30.0, 0.0) is None


def test_labels_to_decide_is_the_formula() -> None:
    labels = planning.labels_to_decide(gain=6.0, minimal_gain=2.0, sd_difference=40.0, n=300)
    assert (labels.remedy, labels.total, labels.more) == (Remedy.ROWS, 785, 485)  # (2.80·40/4)²
    assert labels.chance == pytest.approx(0.8, abs=0.002)
    later = planning.labels_to_decide(
        gain=6.0, minimal_gain=2.0, sd_difference=40.0, n=300, z=2.797
    )
    assert later.total == pytest.approx(((2.797 + 0.8416) * 40 / 4) ** 2, abs=1)
    assert later.chance == pytest.approx(0.8, abs=0.002)


def test_a_gain_at_the_minimum_is_floored() -> None:
    near = planning.labels_to_decide(gain=2.1, minimal_gain=2.0, sd_difference=40.0, n=300)
    assert near.total == pytest.approx(112.06**2, abs=3)  # the distance counts as 1 point
    assert near.chance is not None and near.chance < 0.05, "it is not, so the chance is small"
    enough = planning.labels_to_decide(gain=2.1, minimal_gain=2.0, sd_difference=40.0, n=20_000)
    assert enough == Labels(remedy=Remedy.COST)
    zero = planning.labels_to_decide(gain=0.1, minimal_gain=0.0, sd_difference=40.0, n=300)
    assert zero.total == near.total


def test_rows_that_never_differ_could_still_differ() -> None:
    labels = planning.labels_to_decide(gain=0.0, minimal_gain=4.0, sd_difference=0.0, n=30)
    # sd² of at least 3/30: (2.8·31.6/4)².
    assert labels.total == 491


def test_what_the_runs_leave_over_is_taken_off_first() -> None:
    alone = planning.labels_to_decide(gain=7.6, minimal_gain=2.0, sd_difference=40.0, n=100)
    runs = planning.labels_to_decide(
        gain=7.6, minimal_gain=2.0, sd_difference=40.0, n=100, seed_se=1.0
    )
    assert alone.total == 401
    assert runs.total == pytest.approx(1600 / 3, abs=2)
    hopeless = planning.labels_to_decide(
        gain=7.6, minimal_gain=2.0, sd_difference=40.0, n=100, seed_se=2.0
    )
    assert hopeless == Labels(remedy=Remedy.SEEDS)


@given(
    st.floats(-100, 100),
    st.floats(0, 20),
    st.floats(0, 100),
    st.integers(1, 100_000),
    st.floats(0, 5),
)
def test_labels_always_have_an_answer(
    gain: float, minimal: float, sd: float, n: int, seed_se: float
) -> None:
    labels = planning.labels_to_decide(
        gain=gain, minimal_gain=minimal, sd_difference=sd, n=n, seed_se=seed_se
    )
    if labels.remedy is Remedy.ROWS:
        assert labels.total is not None and labels.more is not None
        assert labels.more >= 1 and labels.total == n + labels.more
        assert labels.chance is not None and 0 <= labels.chance <= 1
    else:
        assert labels.total is None and labels.more is None


def test_more_seeds_near_the_minimum() -> None:
    assert planning.more_seeds_wanted(gain=2.5, minimal_gain=2.0, se=1.0)
    assert not planning.more_seeds_wanted(gain=3.5, minimal_gain=2.0, se=1.0)


@pytest.mark.parametrize(
    ("looks", "bounds"),
    [(1, (1.960,)), (2, (2.797, 1.977)), (3, (3.471, 2.454, 2.004))],
)
def test_obrien_fleming_bounds(looks: int, bounds: tuple[float, ...]) -> None:
    assert obrien_fleming(looks) == pytest.approx(bounds, abs=1e-3)


def test_looks_at_uneven_rows_keep_the_level() -> None:
    bounds = obrien_fleming([150, 200, 400])
    rng = np.random.default_rng(1)
    steps = rng.normal(size=(200_000, 3)) * np.sqrt([150, 50, 200])
    z = steps.cumsum(axis=1) / np.sqrt([150, 200, 400])
    level = np.mean((np.abs(z) > bounds).any(axis=1))
    assert level == pytest.approx(0.05, abs=3 * sqrt(0.05 * 0.95 / 200_000))
    assert obrien_fleming([1, 2, 3]) == pytest.approx(obrien_fleming(3))


@pytest.mark.parametrize("looks", [0, [], [200, 100], [0, 100], 21])
def test_looks_must_grow(looks: int | list[float]) -> None:
    with pytest.raises(UsageError):
        obrien_fleming(looks)
