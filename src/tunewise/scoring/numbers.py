"""The metric of answers that are numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass as plain_dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tunewise.scoring.answers import AnswerScorer
from tunewise.scoring.base import ItemScore
from tunewise.scoring.normalize import normalize

_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
    "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_SEPARATORS = "'’\u00a0\u2007\u2009\u202f"
# LaTeX between groups of digits: 9\,500, 9\;500, 9\:500, 9\ 500, 9~500, 9\thinspace 500.
_LATEX = re.compile(r"(?<=\d)(?:\\[,;:! ]|~|\\thinspace(?![a-zA-Z])\s?)(?=\d{3}(?!\d))")
# A plain space does so only where all groups have three digits, and no fraction follows: 1 100/200.
_SPACED = re.compile(r"(?<![\w.,'/])(\d{1,3})((?: \d{3})+)(?![\w'/]|[.,]\d{3}|\s?/)")
# Grouped in threes, or as in India (1,23,456); else plain digits; else a bare fraction (.5).
_DIGITS = r"(?:\d{1,3}(?:[,_" + _SEPARATORS + r"]\d{2,3})*[,_" + _SEPARATORS + r"]\d{3}(?!\d)|\d+)"
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])"
    r"(?P<sign>[-+−]\s?)?[$€£¥]?\s?(?P<inner>[-−])?"
    r"(?P<number>(?:" + _DIGITS + r"(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4})?)"
    r"(?:\s?/\s?(?P<over>\d+(?:\.\d+)?)(?![\d/])|\s(?P<part>\d+)\s?/\s?(?P<of>\d+)(?![\d/]))?"
    r"(?P<percent>\s?[%٪])?"
)
_DECIMAL_COMMA = str.maketrans(",.", ".,")
# Matching takes quadratic time on text made against it, and the last number stands at the end.
_READ = 10_000
_CONTEXT = Context(prec=60, traps=[InvalidOperation, DivisionByZero, Overflow])


@plain_dataclass(frozen=True, slots=True)
class Number:
    """A number read from text; ``percent`` says whether a percent sign followed it."""

    value: Decimal
    percent: bool


def last_number(text: str, decimal: Literal[".", ","] = ".") -> Number | None:
    """The last number in a text, or None.

    Understands signs, currency signs before the digits, thousands separators (LaTeX's, thin and
    plain spaces between groups of three, too), decimals,
    exponents, fractions (``3/4``, ``1 3/4``, ``1½``) and percent signs. A hyphen between two
    numbers is a range, not a sign.
    """
    text = _LATEX.sub("\u2009", text[-_READ:].replace("{,}", ","))
    text = _SPACED.sub(lambda found: found[0].replace(" ", "\u2009"), text)
    for vulgar, plain in _VULGAR.items():
        text = text.replace(vulgar, f" {plain}")
    if decimal == ",":
        text = text.translate(_DECIMAL_COMMA)
    for match in reversed(list(_NUMBER.finditer(text))):
        number = _value(match)
        if number is not None:
            return number
    return None


def _value(match: re.Match[str]) -> Number | None:
    try:
        digits = re.sub("[,_" + _SEPARATORS + "]", "", match["number"])
        value = Decimal(digits)
        if match["over"]:
            value = _CONTEXT.divide(value, Decimal(match["over"]))
        elif match["part"]:
            value = _CONTEXT.add(
                value, _CONTEXT.divide(Decimal(match["part"]), Decimal(match["of"]))
            )
    except ArithmeticError:
        return None
    sign = match["sign"]
    if sign and sign[0] in "-−" and match.start() and match.string[match.start() - 1].isalnum():
        sign = None
    negative = bool(sign and sign[0] in "-−") or bool(match["inner"])
    return Number(-value if negative else value, bool(match["percent"]))


@dataclass(frozen=True)
class Numeric(AnswerScorer):
    """1 where the last number of the answer equals the last number of the wanted answer."""

    name: ClassVar[str] = "numeric"
    binary: ClassVar[bool] = True

    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False, description="largest difference")
    relative: float = Field(
        1e-9, ge=0, allow_inf_nan=False, description="largest difference, as share of the number"
    )
    decimal: Literal[".", ","] = Field(".", description="the sign before decimals")

    def compare(self, gold: str, answer: str) -> ItemScore:
        """1 or 0.

        Where only one of the two has a percent sign, 45 % equals both 45 and 0.45. A wanted
        answer without a number is compared as text.
        """
        wanted, given = last_number(gold, self.decimal), last_number(answer, self.decimal)
        if wanted is None:
            return ItemScore(
                float(normalize(gold) == normalize(answer)),
                {"reason": "the wanted answer holds no number; compared as text"},
            )
        if given is None:
            return ItemScore(0.0, {"reason": "no number in the answer"})
        right = self._close(wanted.value, given.value)
        if wanted.percent != given.percent:
            percent, plain = (wanted, given) if wanted.percent else (given, wanted)
            share = _CONTEXT.divide(percent.value, Decimal(100))
            right = right or self._close(plain.value, share)
        return ItemScore(float(right), {"found": str(given.value)})

    def _close(self, wanted: Decimal, given: Decimal) -> bool:
        try:
            gap = abs(_CONTEXT.subtract(wanted, given))
            allowed = _CONTEXT.multiply(Decimal(self.relative), abs(wanted))
        except ArithmeticError:
            return wanted == given
        return gap <= max(Decimal(self.tolerance), allowed)
