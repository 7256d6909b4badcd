"""Closed-formula intervals and tests against second implementations, tables and simulation."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from tunewise.verdict import intervals

counts = st.integers(0, 400)
tables = st.tuples(counts, counts, counts, counts).filter(lambda t: sum(t) > 0)


def newcombe_second(a: int, b: int, c: int, d: int, z: float) -> tuple[float, float]:
    """Newcombe's method 10 written again: limits as roots, the table as proportions."""
    n = a + b + c + d

    def roots(x: int) -> tuple[float, float]:
        # (x/n − p)² = z² p(1 − p)/n solved for p.
        q, half, linear = 1 + z * z / n, (x / n) ** 2, -(2 * x / n + z * z / n)
        spread = sqrt(max(linear * linear - 4 * q * half, 0.0))
        return (-linear - spread) / (2 * q), (-linear + spread) / (2 * q)

    first, second = a + b, a + c
    (l1, u1), (l2, u2) = roots(first), roots(second)
    p, q = first / n, second / n
    if 0 in (first, n - first, second, n - second):
        phi = 0.0
    else:
        covariance = (a * d - b * c) / n**2
        if covariance > 0:
            covariance = max(covariance - 1 / (2 * n), 0.0)
        phi = covariance / sqrt(p * (1 - p) * q * (1 - q))

    def side(x: float, y: float) -> float:
        return sqrt(max((x - phi * y) ** 2 + (1 - phi**2) * y**2, 0.0))

    return p - q - side(p - l1, u2 - q), p - q + side(u1 - p, q - l2)


@given(tables)
def test_newcombe_agrees_with_a_second_implementation(table: tuple[int, int, int, int]) -> None:
    z = stats.norm.ppf(0.975)
    assert intervals.newcombe(*table) == pytest.approx(newcombe_second(*table, z), abs=1e-9)


@pytest.mark.parametrize(
    ("table", "limits"),
    [((36, 12, 2, 0), (0.0569, 0.3404)), ((1, 1, 7, 12), (-0.5069, -0.0256))],
)
def test_newcombe_gives_the_published_limits(
    table: tuple[int, int, int, int], limits: tuple[float, float]
) -> None:
    assert intervals.newcombe(*table) == pytest.approx(limits, abs=5e-5)


@given(tables)
def test_newcombe_mirrors_when_the_arms_are_swapped(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    assert intervals.newcombe(a, c, b, d) == pytest.approx(
        intervals.newcombe(a, b, c, d).mirrored(), abs=1e-12
    )


@given(tables)
def test_newcombe_holds_the_estimate_and_stays_in_range(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    low, high = intervals.newcombe(*table)
    assert -1 - 1e-12 <= low <= (b - c) / (a + b + c + d) <= high <= 1 + 1e-12


@given(counts, counts)
def test_midp_is_the_exact_p_less_the_mass_at_the_smaller_count(b: int, c: int) -> None:
    exact = mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0
    expected = 1.0 if b == c else exact - stats.binom.pmf(min(b, c), b + c, 0.5)
    assert float(intervals.mcnemar_midp(b, c)) == pytest.approx(expected, abs=1e-12)
    assert intervals.mcnemar_exact(b, c) == pytest.approx(exact, abs=1e-12)


def test_midp_gives_the_anchor() -> None:
    assert float(intervals.mcnemar_midp(12, 4)) == pytest.approx(0.04904, abs=5e-6)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_agrees_with_statsmodels(n: int, share: float) -> None:
    right = round(share * n)
    expected = proportion_confint(right, n, alpha=0.1, method="wilson")
    assert intervals.wilson(right / n, n, alpha=0.1) == pytest.approx(expected, abs=1e-12)


def test_t_limits_agree_with_scipy() -> None:
    values = np.random.default_rng(1).normal(0.1, 0.3, 40)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    se = intervals.standard_error(values)
    got = intervals.t_limits(float(values.mean()), se, 39)
    assert got == pytest.approx((expected.low, expected.high), abs=1e-12)
    p = intervals.t_two_sided_p(float(values.mean()) / se, 39)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-10)


def test_zero_variance_bounds_what_was_not_drawn() -> None:
    low, high = intervals.zero_variance(0.0, 100)
    # A share p of rows that differ stays unseen in 100 draws with chance (1 − p)^100 = .025.
    assert (1 - high) ** 100 == pytest.approx(0.025)
    assert low == -high


def test_alpha_and_z_are_inverse() -> None:
    assert intervals.two_sided_z(intervals.two_sided_alpha(2.797)) == pytest.approx(2.797)


CELLS = [
    (n, base, gain, discordance)
    for n, base, (gain, discordance) in product(
        (30, 100, 200, 500), (0.5, 0.9), ((0.0, 0.05), (0.0, 0.2), (0.04, 0.08), (-0.04, 0.16))
    )
]


@pytest.mark.parametrize(("n", "base", "gain", "discordance"), CELLS)
def test_newcombe_covers(n: int, base: float, gain: float, discordance: float) -> None:
    draws = 20_000
    b, c = (discordance + gain) / 2, (discordance - gain) / 2
    a = base - c
    shares = [a, b, c, 1 - a - b - c]
    drawn = np.random.default_rng(n).multinomial(n, np.clip(shares, 0, 1), size=draws)
    low, high = intervals.newcombe_limits(*drawn.T)
    coverage = np.mean((low <= gain) & (gain <= high))
    if n >= 200:
        assert coverage >= 0.945 - 3 * sqrt(0.945 * 0.055 / draws)
    else:
        assert coverage >= 0.94
    # Only a limit that claims too much gain misleads; the far one misses up to 3 % of the time.
    assert np.mean(low > gain) <= 0.025 + 3 * sqrt(0.025 * 0.975 / draws)


@pytest.mark.parametrize(("n", "discordance"), [(50, 0.08), (200, 0.08), (500, 0.2)])
def test_midp_holds_its_level(n: int, discordance: float) -> None:
    draws = 20_000
    rng = np.random.default_rng(0)
    half = discordance / 2
    drawn = rng.multinomial(n, [0.6, half, half, 0.4 - discordance], size=draws)
    p = intervals.mcnemar_midp(drawn[:, 1], drawn[:, 2])
    assert np.mean(p <= 0.05) <= 0.05 + 3 * sqrt(0.05 * 0.95 / draws)


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, tunewise.verdict, tunewise.verdict.decision, tunewise.verdict.sentence;"
        "heavy = {'numpy', 'scipy', 'sklearn', 'torch', 'pandas'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_comparison_loads_no_scipy_until_it_is_used() -> None:
    code = (
        "import sys, tunewise.verdict.compare, tunewise.verdict.cost, tunewise.verdict.curve;"
        "sys.exit('loaded scipy' if 'scipy' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
