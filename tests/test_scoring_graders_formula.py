"""Formulas against Python's own arithmetic, and formulas that mean harm."""

from __future__ import annotations

import contextlib
import math
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.scoring.graders.errors import GraderError
from tunewise.scoring.graders.formula import MAX_DEPTH, FormulaError, parse_formula

SCORES = {"a": 0.25, "b": 1.0, "long_name": 0.0, "ab": -2.0}


def value(text: str, scores: dict[str, float] = SCORES) -> float:
    return parse_formula(text, list(scores), "here").value(scores)


def binary(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " + ", " ^ "]), inner)
    return st.one_of(
        pair.map("".join),
        inner.map(lambda t: f"({t})"),
        inner.map(lambda t: f"-{t}"),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "exp", "sqrt", "log"]), inner).map(
            lambda p: f"{p[0]}({p[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
            lambda p: f"{p[0]}({p[1]}, {p[2]})"
        ),
    )


NUMBERS = st.one_of(
    st.integers(0, 50).map(str),
    st.floats(0, 100, allow_nan=False).map(lambda x: f"{x:.3f}"),
    st.sampled_from(["1e2", "2.5E-1", ".5", "3."]),
)
FORMULAS = st.recursive(st.one_of(NUMBERS, st.sampled_from(list(SCORES))), binary, max_leaves=12)


class _Real(float):
    """A number whose powers are never complex, so that Python's arithmetic is the formula's."""

    def __pow__(self, other: float) -> float:  # type: ignore[override]
        return _Real(math.pow(self, other))

    def __rpow__(self, other: float) -> float:  # type: ignore[override]
        return _Real(math.pow(other, self))

    def __neg__(self) -> _Real:
        return _Real(-float(self))


def reference(text: str) -> float | None:
    """What Python's own parser makes of it; the generator writes safe text only."""
    # Every number becomes a _Real, every name a score.
    tokens = re.sub(
        r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", r"_Real(\1)", text.replace("^", "**")
    )
    names: dict[str, Any] = {n: getattr(math, n) for n in ("floor", "ceil", "exp", "sqrt", "log")}
    names |= {"min": min, "max": max, "abs": abs, "_Real": _Real}
    names |= {name: _Real(score) for name, score in SCORES.items()}
    for name in ("floor", "ceil", "exp", "sqrt", "log", "abs"):
        plain = names[name]
        names[name] = lambda x, plain=plain: _Real(plain(x))
    try:
        result = float(eval(tokens, {"__builtins__": {}}, names))
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


@given(FORMULAS)
@settings(max_examples=250, deadline=None)
def test_any_safe_formula_has_pythons_value(text: str) -> None:
    wanted = reference(text)
    try:
        found: float | None = value(text)
    except FormulaError:
        found = None
    if found is None:
        # Ours may give up earlier: at an infinity on the way that Python divides away again.
        assert wanted is None or "exp" in text or "^" in text or "/" in text
    else:
        assert wanted is not None
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-2^2", -4),
        ("2^3^2", 512),
        ("2^-1", 0.5),
        ("2 - 3 - 4", -5),
        ("8 / 4 / 2", 1),
        ("--1", 1),
        ("+-+1", -1),
        ("1 - -1", 2),
        ("min(3)", 3),
        ("max(1, 2, a)", 2),
        ("0.5 * a + 0.5 * b", 0.625),
        ("ab - a", -2.25),
        ("floor(-1.5) + ceil(1.2)", 0),
        ("log(exp(1))", 1),
        (" \t\n1\u00a0+ 1 ", 2),
    ],
)
def test_values(text: str, wanted: float) -> None:
    assert value(text) == pytest.approx(wanted)


def test_names_may_hold_spaces_hyphens_and_other_names() -> None:
    scores = {"grader-1": 0.5, "grader": 0.25, "grader 2": 4.0, "größe": 1.0, "e5": 3.0}
    assert value("grader-1", scores) == 0.5
    assert value("grader - 1", scores) == -0.75
    assert value("grader-1-grader", scores) == 0.25
    assert value("grader 2*größe+e5", scores) == 7.0


@pytest.mark.parametrize("text", ["1 / 0", "1 / (a - a)", "sqrt(-1)", "log(0)", "log(-1)",
                                  "0 ^ -1", "(-8) ^ (1/3)", "9^9^9^9", "exp(1000)",
                                  "1e308 * 10", "1e308 + 1e308", "-1e308 - 1e308"])  # fmt: skip
def test_what_has_no_finite_value_is_an_error_of_the_result(text: str) -> None:
    with pytest.raises(FormulaError):
        value(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected"),
        ("1 +", "expected"),
        ("(1", r"\) is missing"),
        ("1)", "not expected"),
        ("1 2", "not expected"),
        ("a b", "not expected"),
        ("2a", "not expected"),
        ("a ** 2", r"written \^"),
        ("a // 2", "expected"),
        ("1e999", "too large"),
        ("9" * 400, "too large"),
        ("unknown + 1", "Graders: "),
        ("sqrt", "no grader"),
        ("sqrt(1, 2)", "takes 1 value"),
        ("min()", "expected"),
        ("a.real", "not expected"),
        ("a[0]", "not expected"),
        ("__import__('os').system('true')", "no grader"),
        ("(lambda: 1)()", "no grader"),
        ("'a' * 9", "expected"),
        ("1 if a else 2", "not expected"),
        ("a == b", "not expected"),
        ("a\0", "not expected"),
        ("(" * 3000 + "1" + ")" * 900, "deeper"),
        ("abs(" * 700 + "1" + ")" * 700, "deeper"),
        ("^".join(["2"] * 1500), "deeper"),
        ("1+" * 3000 + "1", "longer"),
    ],
)
def test_what_is_no_formula_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(GraderError, match=told) as caught:
        value(text)
    assert caught.value.where == "here"


def test_long_formulas_are_computed_at_once() -> None:
    start = time.perf_counter()
    assert value("+".join(["1"] * 1900)) == 1900
    assert value("-" * 3000 + "1") == 1
    depth = MAX_DEPTH - 1
    assert value("(" * depth + "1" + ")" * depth) == 1
    assert time.perf_counter() - start < 2


@given(st.text(alphabet="ab0123456789.+-*/^(), eE_minx\x00é", max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    with contextlib.suppress(GraderError, FormulaError):
        assert math.isfinite(value(text))
