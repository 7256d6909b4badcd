"""Metrics of plain text, one answer against one wanted answer."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import field
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tunewise.errors import StudyError
from tunewise.scoring.answers import AnswerScorer, f_measure
from tunewise.scoring.base import ItemScore
from tunewise.scoring.jsontext import read_json
from tunewise.scoring.normalize import normalize, strip_punctuation, words


@dataclass(frozen=True)
class ExactMatch(AnswerScorer):
    """1 where the answer is the wanted text, but for white space around it."""

    name: ClassVar[str] = "exact_match"
    binary: ClassVar[bool] = True

    def compare(self, gold: str, answer: str) -> ItemScore:
        """1 or 0."""
        return ItemScore(float(gold.strip() == answer.strip()))


@dataclass(frozen=True)
class NormalizedMatch(AnswerScorer):
    """1 where both are equal without case, punctuation, articles and extra white space."""

    name: ClassVar[str] = "normalized_match"
    binary: ClassVar[bool] = True

    def compare(self, gold: str, answer: str) -> ItemScore:
        """1 or 0; see :mod:`tunewise.scoring.normalize` for the rule."""
        return ItemScore(float(normalize(gold) == normalize(answer)))


@dataclass(frozen=True)
class TokenF1(AnswerScorer):
    """Overlap of words with the wanted text, as F1 (SQuAD's)."""

    name: ClassVar[str] = "token_f1"

    def compare(self, gold: str, answer: str) -> ItemScore:
        """F1 of the bags of normalised words; two empty texts are equal."""
        wanted, given = normalize(gold).split(), normalize(answer).split()
        if not wanted or not given:
            same = float(wanted == given)
            return ItemScore(same, {"precision": same, "recall": same})
        shared = (Counter(wanted) & Counter(given)).total()
        precision, recall = shared / len(given), shared / len(wanted)
        return ItemScore(f_measure(precision, recall), {"precision": precision, "recall": recall})


@dataclass(frozen=True)
class Contains(AnswerScorer):
    """1 where the wanted text stands in the answer; of a JSON list, all or any of its texts."""

    name: ClassVar[str] = "contains"
    binary: ClassVar[bool] = True

    match: Literal["all", "any"] = Field(
        "all", description="where the wanted answer is a JSON list: all its texts, or any"
    )
    whole_words: bool = Field(True, description="`art` does not stand in `party`")

    def compare(self, gold: str, answer: str) -> ItemScore:
        """1 or 0 after normalisation; an empty wanted text is contained in an empty answer only."""
        if gold.strip() == answer.strip():
            return ItemScore(1.0)
        terms = self._terms(gold)
        missing = [term for term in terms if not self._stands_in(term, answer)]
        found = not missing if self.match == "all" else len(missing) < len(terms)
        return ItemScore(float(found), {"missing": missing} if missing else {})

    def _stands_in(self, term: str, answer: str) -> bool:
        bare = strip_punctuation(term)
        if not bare:
            return bool(term.strip()) and term.strip() in answer
        edge = " " if self.whole_words else ""
        return f"{edge}{bare}{edge}" in f"{edge}{strip_punctuation(answer)}{edge}"

    @staticmethod
    def _terms(gold: str) -> list[str]:
        listed = read_json(gold) if gold.lstrip().startswith("[") else None
        if listed is None or not isinstance(listed.value, list) or not listed.value:
            return [gold]
        return [t if isinstance(t, str) else str(t) for t in listed.value]


_REGEX_SECONDS = 0.5
_REGEX_BUDGET = 10.0
_REGEX_SECONDS_LATER = 0.02


@dataclass(frozen=True)
class Regex(AnswerScorer):
    """1 where a pattern is found in the answer; its first group must be the wanted answer."""

    name: ClassVar[str] = "regex"
    binary: ClassVar[bool] = True

    pattern: str = Field(
        description="regular expression; with a group, what the group holds must be the wanted "
        "answer (normalised); without one, being found is enough",
        min_length=1,
        max_length=10_000,
    )
    full: bool = Field(False, description="the whole answer must match, not a part of it")
    ignore_case: bool = Field(False, description="A is a")
    # Seconds lost to matches that were cut off; a mutable cell, for the scorer itself is frozen.
    _lost: list[float] = field(default_factory=lambda: [0.0], init=False, repr=False)

    def __post_init__(self) -> None:
        """Compile the pattern once, so that a broken one is an error before anything is spent."""
        self._compiled  # noqa: B018

    @cached_property
    def _compiled(self) -> Any:
        import regex

        try:
            return regex.compile(self.pattern, regex.IGNORECASE if self.ignore_case else 0)
        except (regex.error, OverflowError, RecursionError, MemoryError) as error:
            raise StudyError(
                f"the pattern is not a regular expression: {error}",
                where="metric.options.pattern",
                hint="In YAML, write patterns between single quotes: '(\\d+)'.",
            ) from None

    def compare(self, gold: str, answer: str) -> ItemScore:
        """1 or 0; a match that does not end in half a second is 0 with the reason."""
        try:
            match = self._search(answer)
            if match is None:
                return ItemScore(0.0, {"reason": "the pattern was not found"})
            if not self._compiled.groups:
                return ItemScore(1.0)
            in_gold = self._search(gold)
        except TimeoutError:
            return ItemScore(0.0, {"reason": "the pattern ran out of time on this answer"})
        found = match[1] or ""
        wanted = gold if in_gold is None else in_gold[1] or ""
        return ItemScore(float(normalize(found) == normalize(wanted)), {"found": found})

    def _search(self, text: str) -> Any:
        # The regex package counts processor time, so a busy machine does not cut matches off.
        # A pattern that runs away on every row must not take half a second for each of thousands.
        seconds = _REGEX_SECONDS if self._lost[0] < _REGEX_BUDGET else _REGEX_SECONDS_LATER
        start = time.process_time()
        search = self._compiled.fullmatch if self.full else self._compiled.search
        try:
            return search(text.strip(), timeout=seconds)
        except TimeoutError:
            self._lost[0] += time.process_time() - start
            raise


@dataclass(frozen=True)
class RougeL(AnswerScorer):
    """Longest common subsequence of words with the wanted text, as F1 (ROUGE-L)."""

    name: ClassVar[str] = "rouge_l"

    def compare(self, gold: str, answer: str) -> ItemScore:
        """ROUGE-L F1 (Lin 2004) without stemming; on ASCII text that of the rouge-score package."""
        wanted, given = words(gold), words(answer)
        if not wanted or not given:
            same = float(normalize(gold) == normalize(answer))
            return ItemScore(same, {"precision": same, "recall": same})
        common = _longest_common_subsequence(wanted, given)
        precision, recall = common / len(given), common / len(wanted)
        return ItemScore(f_measure(precision, recall), {"precision": precision, "recall": recall})


def _longest_common_subsequence(one: list[str], other: list[str]) -> int:
    """Length, by bit-parallel rows (Hyyrö 2004): one big-integer addition a word.

    The rouge-score package fills a table of all pairs in Python and loads all of nltk (seconds);
    the figure is the same.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | (1 << place)
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(one) - row.bit_count()
