"""The formula of a multi grader: ``0.6 * name + 0.4 * max(similarity, 0.2)``.

Operators ``+ - * / ^`` and the unary minus, parentheses, the functions of :data:`FUNCTIONS`,
numbers and the names of graders. ``^`` binds tightest and to the right, also tighter than a minus
before it (``-2^2`` is -4), as in mathematics. A formula becomes a list of steps for a stack, so
that neither reading nor computing it can run deep; nothing of it is ever Python.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunewise.scoring.graders.errors import GraderError

MAX_CHARS = 4_000
MAX_DEPTH = 50

FUNCTIONS: Mapping[str, tuple[Callable[..., float], int | None]] = {
    "min": (min, None),
    "max": (max, None),
    "abs": (abs, 1),
    "floor": (math.floor, 1),
    "ceil": (math.ceil, 1),
    "exp": (math.exp, 1),
    "sqrt": (math.sqrt, 1),
    "log": (math.log, 1),
}
"""Name -> the function and how many values it takes; None is one or more. ``log`` is natural."""

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[^\W\d]\w*")
_BINARY: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    # Not **, which makes complex numbers of negative bases.
    "^": math.pow,
}

_Step = float | str | tuple[Callable[..., float], int]
"""A number, the name of a grader, or a function with how many values it takes off the stack."""


class FormulaError(Exception):
    """A formula that has no finite value for these scores."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula, read once and computed often.

    Attributes:
        names: the graders it speaks of.
    """

    steps: tuple[_Step, ...]
    names: frozenset[str]

    def value(self, scores: Mapping[str, float]) -> float:
        """Its value for the scores of the graders.

        Raises:
            FormulaError: division by zero, a root or logarithm of a negative number, or a value
                that is too large.
        """
        stack: list[float] = []
        for step in self.steps:
            if isinstance(step, str):
                stack.append(scores[step])
            elif isinstance(step, tuple):
                stack.append(_applied(step, stack))
            else:
                stack.append(step)
        return stack[0]


def _applied(step: tuple[Callable[..., float], int], stack: list[float]) -> float:
    function, count = step
    given = stack[-count:]
    del stack[-count:]
    try:
        value = float(function(*given))
    except ZeroDivisionError:
        raise FormulaError("it divides by zero") from None
    except ValueError:
        name = next((n for n, (f, _) in FUNCTIONS.items() if f is function), "^")
        shown = ", ".join(f"{v:g}" for v in given)
        raise FormulaError(f"{name} has no value for {shown}") from None
    except OverflowError:
        raise FormulaError("a value is too large") from None
    if not math.isfinite(value):
        raise FormulaError("a value is too large")
    return value


def parse_formula(text: str, names: Sequence[str], where: str) -> Formula:
    """Read a formula that may speak of the graders ``names``.

    Raises:
        GraderError: what is wrong and at which character; ``where`` is the path of the formula.
    """
    if len(text) > MAX_CHARS:
        raise GraderError(f"the formula is longer than {MAX_CHARS} characters", where=where)
    return _Reader(text, names, where).read()


class _Reader:
    """Recursive descent, bounded by ``MAX_DEPTH``; writes steps in postfix order."""

    def __init__(self, text: str, names: Sequence[str], where: str) -> None:
        self._text = text
        self._names = sorted(names, key=len, reverse=True)
        self._where = where
        self._place = 0
        self._steps: list[_Step] = []

    def read(self) -> Formula:
        self._sum(0)
        if self._next():
            raise self._wrong(f"{self._next()!r} was not expected")
        return Formula(
            tuple(self._steps), frozenset(step for step in self._steps if isinstance(step, str))
        )

    def _sum(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._wrong(f"the formula is nested deeper than {MAX_DEPTH} levels")
        self._product(depth)
        while sign := self._take("+-"):
            self._product(depth)
            self._steps.append((_BINARY[sign], 2))

    def _product(self, depth: int) -> None:
        self._signed(depth)
        while sign := self._take("*/"):
            if sign == "*" and self._text[self._place : self._place + 1] == "*":
                raise self._wrong("** is not known; powers are written ^")
            self._signed(depth)
            self._steps.append((_BINARY[sign], 2))

    def _signed(self, depth: int) -> None:
        signs = ""
        while sign := self._take("+-"):
            signs += sign
        self._power(depth)
        if signs.count("-") % 2:
            self._steps.append((operator.neg, 1))

    def _power(self, depth: int) -> None:
        self._value(depth)
        if self._take("^"):
            if depth >= MAX_DEPTH:
                raise self._wrong(f"the formula is nested deeper than {MAX_DEPTH} levels")
            self._signed(depth + 1)
            self._steps.append((_BINARY["^"], 2))

    def _value(self, depth: int) -> None:
        if self._take("("):
            self._sum(depth + 1)
            self._close()
        elif (name := self._grader()) is not None:
            self._steps.append(name)
        elif number := _NUMBER.match(self._text, self._place):
            self._place = number.end()
            value = float(number[0])
            if not math.isfinite(value):
                raise self._wrong(f"{number[0][:40]} is too large a number")
            self._steps.append(value)
        elif word := _WORD.match(self._text, self._place):
            self._call(word[0], depth)
        else:
            found = repr(self._next()) if self._next() else "the end"
            raise self._wrong(f"a number, a grader or ( was expected, not {found}")

    def _call(self, name: str, depth: int) -> None:
        start = self._place
        self._place += len(name)
        if name not in FUNCTIONS or not self._take("("):
            self._place = start
            known = ", ".join(sorted(self._names)) or "none"
            functions = ", ".join(FUNCTIONS)
            raise self._wrong(
                f"{name[:60]!r} is no grader here", f"Graders: {known}. Functions: {functions}."
            )
        function, wanted = FUNCTIONS[name]
        self._sum(depth + 1)
        count = 1
        while self._take(","):
            self._sum(depth + 1)
            count += 1
        self._close()
        if wanted is not None and count != wanted:
            raise self._wrong(f"{name} takes {wanted} value, not {count}")
        # min and max of one number want a sequence, and change nothing.
        if wanted is not None or count > 1:
            self._steps.append((function, count))

    def _grader(self) -> str | None:
        """A grader's name, the longest that fits: names may hold spaces and hyphens."""
        for name in self._names:
            end = self._place + len(name)
            if self._text.startswith(name, self._place) and not (
                name[-1:].isalnum() and re.match(r"\w", self._text[end : end + 1])
            ):
                self._place = end
                return name
        return None

    def _close(self) -> None:
        if not self._take(")"):
            raise self._wrong("a ) is missing")

    def _next(self) -> str:
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1
        return self._text[self._place : self._place + 1]

    def _take(self, signs: str) -> str:
        found = self._next()
        if found and found in signs:
            self._place += 1
            self._next()
            return found
        self._next()
        return ""

    def _wrong(self, message: str, hint: str | None = None) -> GraderError:
        return GraderError(f"{message} (character {self._place + 1})", where=self._where, hint=hint)
