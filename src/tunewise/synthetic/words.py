"""Invented words: names, places, goods, codes, dates and numbers drawn from a seeded generator.

Everything is built from syllables, so a model cannot have met a particular word before and has to
read it in its prompt. Every invented word belongs to exactly one of two pools, decided by a
checksum of its letters: ``train`` words may appear in pretraining text, ``held_out`` words never
do.
"""

from __future__ import annotations

import zlib
from random import Random
from typing import Literal

Pool = Literal["train", "held_out", "any"]


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ONSETS = _parts(
    "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gl gr kr pl pr sh sk sl st th tr vr"
)
VOWELS = _parts("a e i o u ai ea ou")
STARTS = tuple(onset + vowel for onset in ONSETS for vowel in VOWELS)
CODAS = _parts("l m n r s t k x nd rn rk st lt")
ENDINGS = tuple(c + v + k for c in "bdglmnrstvz" for v in "aeiou" for k in "krn")
PLACE_ENDS = _parts("ford ton ham mere wick dale port haven stead gate moor field")
MONTHS = _parts(
    "January February March April May June July August September October November December"
)
HELD_OUT_SHARE = 8
"""One invented word in this many belongs to the held-out pool."""


def is_held_out(word: str) -> bool:
    """Whether an invented word is reserved for evaluation (case does not matter)."""
    return zlib.crc32(word.lower().encode()) % HELD_OUT_SHARE == 0


def invented(rng: Random, syllables: int = 2, pool: Pool = "any") -> str:
    """A lower-case word: an open syllable, and a coda (one syllable) or an ending (two).

    Both parts are short enough to be single tokens of a small vocabulary.
    """
    ends = CODAS if syllables == 1 else ENDINGS
    while True:
        word = rng.choice(STARTS) + rng.choice(ends)
        if pool == "any" or is_held_out(word) == (pool == "held_out"):
            return word


def name(rng: Random, pool: Pool = "any") -> str:
    """A first name such as ``Kelor``."""
    return invented(rng, rng.choice((1, 2, 2)), pool).capitalize()


def full_name(rng: Random, pool: Pool = "any") -> str:
    """A first name and a family name."""
    return f"{name(rng, pool)} {name(rng, pool)}"


def place(rng: Random, pool: Pool = "any") -> str:
    """A place name such as ``Draimere``."""
    while True:
        word = rng.choice(STARTS) + rng.choice(PLACE_ENDS)
        if pool == "any" or is_held_out(word) == (pool == "held_out"):
            return word.capitalize()


def thing(rng: Random, pool: Pool = "any") -> str:
    """An invented common noun, lower case."""
    return invented(rng, rng.choice((1, 2, 2)), pool)


def number(rng: Random, low: int = 2, high: int = 999) -> str:
    """A whole number written in digits; short numbers are as likely as long ones."""
    top = min(high, 10 ** rng.randint(len(str(low)), len(str(high))))
    return str(rng.randint(low, max(low, top)))


def code(rng: Random) -> str:
    """A reference such as ``KD-482``."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTVWXZ") for _ in range(2))
    return f"{letters}-{rng.randint(100, 999)}"


def date(rng: Random) -> str:
    """A day and a month, such as ``14 March``."""
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"


def distinct(rng: Random, count: int, pool: Pool = "any", syllables: int = 2) -> list[str]:
    """``count`` different invented words, in drawing order."""
    words: list[str] = []
    while len(words) < count:
        word = invented(rng, syllables, pool)
        if word not in words:
            words.append(word)
    return words
