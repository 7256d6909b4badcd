"""The one entry: which method it takes, what it refuses, what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.errors import DataError
from tunewise.verdict.compare import compare
from tunewise.verdict.corpus import CorpusMetric
from tunewise.verdict.intervals import mcnemar_exact, newcombe_tango, two_sided_alpha
from tunewise.verdict.multiple import against_best, simultaneous
from tunewise.verdict.single import score_interval
from tunewise.verdict.words import About, Method, SignificanceTest


def right(n: int, share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share) * 1.0


def test_right_and_wrong_takes_newcombe_tango_and_midp() -> None:
    one = [1.0] * 36 + [1.0] * 12 + [0.0] * 2
    other = [1.0] * 36 + [0.0] * 12 + [1.0] * 2
    result = compare(one, other, binary=True)
    # Newcombe gives 34.04 here; Tango's upper limit is the higher one.
    assert (result.low, result.high) == pytest.approx((5.69, 34.47), abs=5e-3)
    assert (result.gain, result.n, result.clusters) == (pytest.approx(20.0), 50, None)
    assert (result.method, result.test) == (Method.NEWCOMBE_TANGO, SignificanceTest.MCNEMAR_MIDP)
    assert result.discordance is not None
    assert result.discordance.share == pytest.approx(0.28)
    assert (result.discordance.only_with, result.discordance.only_without) == (12, 2)
    assert result.sd_difference == pytest.approx(result.se * 50**0.5)
    assert result.about is About.CHECKPOINT


def test_exact_p_on_demand() -> None:
    result = compare(right(90, 0.8, 1), right(90, 0.7, 2), binary=True, exact=True)
    table = result.discordance
    assert table is not None and result.test is SignificanceTest.MCNEMAR_EXACT
    assert result.p_value == mcnemar_exact(table.only_with, table.only_without)


@pytest.mark.parametrize(("n", "method"), [(299, Method.PAIRED_T), (300, Method.BCA)])
def test_partial_credit_takes_t_and_from_300_rows_the_bootstrap(n: int, method: Method) -> None:
    rng = np.random.default_rng(n)
    result = compare(rng.random(n), rng.random(n), binary=False)
    assert (result.method, result.test) == (method, SignificanceTest.SIGN_FLIP)


@pytest.mark.parametrize("runs", [1, 3])
def test_rows_that_all_differ_alike_still_have_an_interval(runs: int) -> None:
    result = compare(np.full((runs, 40), 0.75), np.full(40, 0.5), binary=False)
    half = 100 * (1 - 0.025 ** (1 / 40))
    assert result.method is Method.ZERO_VARIANCE
    assert (result.low, result.high) == pytest.approx((25 - half, 25 + half))
    grouped = compare(
        np.full((runs, 40), 0.75), np.full(40, 0.5), binary=False, clusters=np.arange(40) // 4
    )
    assert grouped.high == pytest.approx(25 + 100 * (1 - 0.025 ** (1 / 10)))


def test_one_row_shows_nothing() -> None:
    result = compare([1.0], [0.0], binary=True)
    assert (result.low, result.high, result.p_value) == (-100, 100, 1.0)
    assert result.warnings


def test_a_declared_look_uses_its_own_z() -> None:
    one, other = right(100, 0.8, 3), right(100, 0.7, 4)
    result = compare(one, other, binary=True, alpha=two_sided_alpha(2.797))
    table = result.discordance
    assert table is not None
    counts = (table.both, table.only_with, table.only_without, table.neither)
    expected = newcombe_tango(*counts, alpha=two_sided_alpha(2.797))
    assert (result.low, result.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert result.high - result.low > 1.3 * (
        compare(one, other, binary=True).high - compare(one, other, binary=True).low
    )


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([1.0, 0.0], [1.0], "2 rows were scored with fine-tuning and 1 without"),
        ([], [], "no scores with"),
        ([1.0], [], "no scores without"),
        ([1.2], [1.0], "outside 0 to 1"),
        ([float("nan")], [1.0], "outside 0 to 1"),
        ([0.5, 1.0], [1.0, 1.0], "other than 0 or 1"),
        (np.ones((2, 2, 2)), np.ones(2), "no scores"),
    ],
)
def test_bad_scores_are_refused(one: object, other: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        compare(one, other, binary=True)  # type: ignore[arg-type]
    assert caught.value.hint


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    n = draw(st.integers(2, 40))
    runs = draw(st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([1, 3])))
    binary = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    arms = [rng.choice([0, 0.25, 0.5, 1], (r, n), p=[0.3, 0.1, 0.1, 0.5]) for r in runs]
    if binary:
        arms = [np.round(arm) for arm in arms]
    groups = rng.integers(0, n, n) if draw(st.booleans()) else None
    return {"arms": arms, "binary": binary, "clusters": groups}


@settings(max_examples=150, deadline=None)
@given(problems())
def test_swapping_the_arms_mirrors_everything(problem: dict[str, object]) -> None:
    arms = problem.pop("arms")
    one = compare(*arms, **problem, resamples=99)  # type: ignore[misc, arg-type]
    other = compare(*reversed(arms), **problem, resamples=99)  # type: ignore[call-overload, arg-type, misc]
    assert other.gain == pytest.approx(-one.gain, abs=1e-9)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-9)
    assert other.p_value == pytest.approx(one.p_value)
    assert 0 <= one.p_value <= 1 and np.isfinite(one.se)
    assert -100 <= one.low <= one.gain + 1e-9 and one.gain - 1e-9 <= one.high <= 100


def test_the_bootstrap_mirrors_too() -> None:
    rng = np.random.default_rng(5)
    one, other = rng.random(400), rng.random(400) ** 2
    there, back = compare(one, other, binary=False), compare(other, one, binary=False)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)


def test_the_same_seed_gives_the_same_figures() -> None:
    rng = np.random.default_rng(6)
    one, other = rng.random(400), rng.random(400)
    assert compare(one, other, binary=False) == compare(one, other, binary=False)
    assert compare(one, other, binary=False) != compare(one, other, binary=False, rng_seed=1)


def test_score_interval_is_wilson_in_points() -> None:
    low, high = score_interval(right(100, 0.9, 7))
    assert 0 < low < 90 < high < 100
    assert score_interval(np.ones(10)).high == 100.0
    with pytest.raises(DataError):
        score_interval([])


def test_score_interval_of_a_corpus_metric() -> None:
    scores = np.random.default_rng(8).random(400)

    def metric(picks: np.ndarray) -> np.ndarray:
        return scores[picks].mean(axis=1)

    low, high = score_interval(scores, corpus_metric=metric, resamples=4_000)
    half = 1.96 * scores.std() / 20
    assert (low, high) == pytest.approx(
        (100 * (scores.mean() - half), 100 * (scores.mean() + half)), abs=0.4
    )
    grouped = score_interval(scores, corpus_metric=metric, clusters=np.arange(400) // 2)
    assert grouped.low < 100 * scores.mean() < grouped.high


def test_one_candidate_a_side_needs_no_correction() -> None:
    one, other = right(200, 0.8, 9), right(200, 0.7, 10)
    both = simultaneous({"tuned": one}, {"base": other}, binary=True)
    assert both.comparison == compare(one, other, binary=True)
    assert (both.with_name, both.without_name) == ("tuned", "base")


def test_simultaneous_limits_follow_the_formula() -> None:
    tuned = {f"t{j}": right(200, 0.75, j) for j in range(3)}
    others = {f"o{i}": right(200, 0.7, 10 + i) for i in range(2)}
    result = simultaneous(tuned, others, binary=True)
    pairs = {
        (j, i): (
            compare(tuned[j], others[i], binary=True, alpha=0.05 / 3).low,
            compare(tuned[j], others[i], binary=True, alpha=0.05 / 2).high,
            compare(tuned[j], others[i], binary=True).p_value,
        )
        for j in tuned
        for i in others
    }
    low, high = (max(min(pairs[j, i][side] for i in others) for j in tuned) for side in (0, 1))
    p = min(1.0, 3 * min(max(pairs[j, i][2] for i in others) for j in tuned))
    got = result.comparison
    assert (got.low, got.high, got.p_value) == pytest.approx((low, high, p))
    assert got.method is Method.SIMULTANEOUS
    best = max(tuned, key=lambda j: tuned[j].mean())
    rival = max(others, key=lambda i: others[i].mean())
    assert (result.with_name, result.without_name) == (best, rival)
    assert got.gain == pytest.approx(100 * (tuned[best].mean() - others[rival].mean()))
    assert got.low <= got.gain <= got.high


def test_simultaneous_limits_do_not_claim_a_gain_too_often() -> None:
    """Three equal tuned candidates: choosing the best on the test must not look like a gain."""
    rng = np.random.default_rng(11)
    draws = 400
    naive = claimed = 0
    for _ in range(draws):
        arms = (rng.random((5, 200)) < 0.7) * 1.0
        tuned = {str(j): arms[j] for j in range(4)}
        result = simultaneous(tuned, {"base": arms[4]}, binary=True).comparison
        claimed += result.low > 0
        best = max(tuned.values(), key=np.mean)
        naive += compare(best, arms[4], binary=True).low > 0
    assert claimed / draws <= 0.025 + 3 * (0.025 * 0.975 / draws) ** 0.5
    assert naive > claimed


def test_simultaneous_needs_both_sides() -> None:
    with pytest.raises(DataError, match="one without"):
        simultaneous({"tuned": [1.0]}, {}, binary=True)


def test_simultaneous_corpus_metrics_are_made_for_each_pair() -> None:
    arms = {name: right(30, share, 1) for name, share in (("t", 0.9), ("a", 0.7), ("b", 0.5))}

    def metric(one: str, other: str) -> CorpusMetric:
        stack = np.concatenate([arms[one], arms[other]])
        return lambda picks: stack[picks].mean(axis=1)

    result = simultaneous(
        {"t": arms["t"]},
        {"a": arms["a"], "b": arms["b"]},
        binary=True,
        corpus_metric=metric,
        resamples=200,
    )
    assert result.without_name == "a"
    assert result.comparison.gain == pytest.approx(100 * (arms["t"].mean() - arms["a"].mean()))


def test_alternatives_are_held_against_the_best_with_bonferroni_limits() -> None:
    arms = {name: right(150, 0.8, i) for i, name in enumerate(("best", "a", "b"))}
    found = against_best("best", arms, binary=True)
    assert set(found) == {"a", "b"}
    expected = compare(arms["a"], arms["best"], binary=True, alpha=0.025)
    assert found["a"] == expected
    assert against_best("best", {"best": arms["best"]}, binary=True) == {}
