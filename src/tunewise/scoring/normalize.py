"""How texts are made comparable; one rule, used by every metric that does not compare as written.

The rule is that of SQuAD's evaluation script (Rajpurkar et al., 1606.05250), widened from ASCII
to Unicode: NFKC, lower case, punctuation away, the articles a, an and the away, one space between
words. Scripts that are written without spaces count one character as one word, as the
multilingual successors of SQuAD do (Lewis et al., 1910.07475).
"""

from __future__ import annotations

import re
import string
import unicodedata

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)
# Thai, Lao, Burmese and Khmer; kana; CJK ideographs with their extensions.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff])"
)
_WORD = re.compile(r"[^\W_]+")


def squash(text: str) -> str:
    """NFKC, lower case, one space between words, none around; punctuation stays.

    Half surrogates, which an answer's JSON escapes can hold, become question marks: no file
    could be written with them.
    """
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def strip_punctuation(text: str) -> str:
    """The text after the rule above with its articles; may be empty."""
    squashed = squash(text)
    bare = squashed if squashed.isalnum() else "".join(c for c in squashed if not _punctuation(c))
    return " ".join(_UNSPACED.sub(r" \1 ", bare).split())


def normalize(text: str) -> str:
    """The text after the rule above; as :func:`squash` leaves it where nothing would remain."""
    return " ".join(_ARTICLES.sub(" ", strip_punctuation(text)).split()) or squash(text)


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case; for ASCII text those of the ROUGE package."""
    return _WORD.findall(_UNSPACED.sub(r" \1 ", squash(text)))


def _punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")
