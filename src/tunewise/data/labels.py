"""Answers that are a small set of labels, and how evenly they are spread."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from tunewise.data.findings import SHOWN_ROWS, Finding
from tunewise.words import plural, some_of

MOST_LABELS = 500
LONGEST_LABEL = 80
_RARE = 5
_LOPSIDED = 10
_GROUPS = 5


# Between or before digits punctuation is part of a number: 1.5 is not 15, nor is -1 equal to 1.
_PUNCTUATION = re.compile(r"(?<!\d)[.,;:!?'\"…‘’“”«»()\[\]{}*_/–—-](?!\d)")


_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_TRUTHS = {"true": "1", "false": "0"}
_MISSING = "nan"


class LabelCounts:
    """Counts answers as long as they look like labels: few, short, and repeated."""

    def __init__(self) -> None:
        self._written: dict[str, int] | None = {}
        self._first: dict[str, str] = {}
        self._rows = 0
        self._texts = True

    def add(self, answer: str, place: str = "", *, is_text: bool = True) -> None:
        """Count one answer. Memory stays bounded: too many or too long, and counting ends.

        Args:
            answer: as it is written, spaces and all.
            place: its row, for messages.
            is_text: False for tool calls written as text: they may all be alike, but are no labels.
        """
        self._rows += 1
        self._texts = self._texts and is_text
        if self._written is None:
            return
        if len(answer) > LONGEST_LABEL or len(self._written) > 2 * MOST_LABELS:
            self._written = None
            self._first.clear()
        elif answer in self._written:
            self._written[answer] += 1
        else:
            self._written[answer] = 1
            self._first[answer] = place

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for answer, count in (self._written or {}).items():
            counts[answer.strip()] += count
        return counts

    def table(self) -> dict[str, int] | None:
        """Rows by label, commonest first; None where the answers are no small set of labels.

        A set of labels is small if it has at least 3 rows a label on average, and two labels.
        """
        counts = self._counts()
        few = 2 <= len(counts) <= MOST_LABELS and self._rows >= 3 * len(counts)
        if not few or not self._texts:
            return None
        return dict(counts.most_common())

    def spellings(self) -> dict[str, str]:
        """Labels that differ from another by case, spaces or punctuation only.

        Returns:
            The commonest spelling of such a label for each other one, spaces around it included.
        """
        if self.table() is None or self._written is None:
            return {}
        groups: dict[str, list[str]] = {}
        for answer in self._written:
            groups.setdefault(_folded(answer), []).append(answer)
        kept: dict[str, str] = {}
        for group in groups.values():
            best = max(group, key=self._written.__getitem__).strip()
            kept |= {answer: best for answer in group if answer != best}
        return kept

    def findings(self) -> list[Finding]:
        """Rare labels, a lopsided set, one answer for all rows, one label in several spellings."""
        found = []
        counted = self._counts()
        if len(counted) == 1 and self._rows > 1:
            found.append(
                Finding(
                    "one_answer",
                    "warning",
                    self._rows,
                    (),
                    "every row wants the same answer: there is nothing to learn",
                    "Check which column holds the answer.",
                )
            )
        if (spelt := self._spelt()) is not None:
            found.append(spelt)
        found += self._doubtful()
        table = self.table()
        if table:
            rare = [label for label, count in table.items() if count < _RARE]
            if rare:
                found.append(
                    Finding(
                        "rare_labels",
                        "warning",
                        len(rare),
                        tuple(rare),
                        f"{some_of(len(rare), len(table), 'label', 'has', 'have')} "
                        f"fewer than {_RARE} rows",
                        "Label more rows of these, or merge them.",
                    )
                )
            counts = list(table.values())
            if counts[0] > _LOPSIDED * counts[-1]:
                found.append(
                    Finding(
                        "label_balance",
                        "info",
                        len(table),
                        tuple(table),
                        f"the commonest label has {plural(counts[0], 'row')}, "
                        f"the rarest {counts[-1]}",
                        "Look at macro-F1 beside accuracy: it weighs all labels alike.",
                    )
                )
        return found

    def _doubtful(self) -> list[Finding]:
        """Labels that are likely no class of their own: truths beside 1 and 0, NaN."""
        if self.table() is None or self._written is None:
            return []
        found = []
        folded: dict[str, list[str]] = {}
        for answer in self._written:
            folded.setdefault(_folded(answer), []).append(answer)
        both = [t for t, number in _TRUTHS.items() if t in folded and number in folded]
        if both:
            answers = [answer for truth in both for answer in folded[truth]]
            named = ", ".join(f"{folded[t][0]!r} and {folded[_TRUTHS[t]][0]!r}" for t in both)
            found.append(
                Finding(
                    "label_truth",
                    "warning",
                    sum(self._written[answer] for answer in answers),
                    tuple(place for answer in answers if (place := self._first[answer])),
                    f"truths are written in two ways, and count as different labels: {named}",
                    "Write them in one way.",
                )
            )
        if missing := folded.get(_MISSING):
            found.append(
                Finding(
                    "label_missing",
                    "warning",
                    sum(self._written[answer] for answer in missing),
                    tuple(place for answer in missing if (place := self._first[answer])),
                    f"the answer is {missing[0]!r}, which stands for a missing value; it counts as "
                    "a label",
                    "Leave these rows out, or give them a label.",
                )
            )
        return found

    def _spelt(self) -> Finding | None:
        kept = self.spellings()
        if not kept or self._written is None:
            return None
        groups: dict[str, list[str]] = {}
        for answer, best in kept.items():
            groups.setdefault(best, []).append(answer)
        shown = [
            " = ".join(repr(one) for one in ([best] if best in self._written else []) + others)
            for best, others in groups.items()
        ]
        more = f" and {len(shown) - _GROUPS} more" if len(shown) > _GROUPS else ""
        return Finding(
            "label_spelling",
            "warning",
            sum(self._written[answer] for answer in kept),
            tuple(place for answer in kept if (place := self._first[answer]))[:SHOWN_ROWS],
            "labels differ only by case, spaces or punctuation, and count as different: "
            + "; ".join(shown[:_GROUPS])
            + more,
            "Write each label in one way; `--fix` takes the commonest spelling of each.",
            safe_fix=True,
        )


def _folded(answer: str) -> str:
    """What is left of a label without case, spaces and punctuation; itself if that is nothing."""
    text = unicodedata.normalize("NFKC", answer).casefold()
    if whole := _WHOLE.fullmatch(text.strip()):  # 1.0 is 1; but 1.10 may be a version, not 1.1
        return whole[1]
    return "".join(_PUNCTUATION.sub("", text).split()) or answer.strip()
