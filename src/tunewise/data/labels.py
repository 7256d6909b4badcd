"""Answers that are a small set of labels, and how evenly they are spread."""

from __future__ import annotations

from collections import Counter

from tunewise.data.findings import Finding

MOST_LABELS = 500
LONGEST_LABEL = 80
_RARE = 5
_LOPSIDED = 10


class LabelCounts:
    """Counts answers as long as they look like labels: few, short, and repeated."""

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()
        self._rows = 0
        self._texts = True

    def add(self, answer: str, *, is_text: bool = True) -> None:
        """Count one answer. Memory stays bounded: too many or too long, and counting ends.

        Args:
            is_text: False for tool calls written as text: they may all be alike, but are no labels.
        """
        self._rows += 1
        self._texts = self._texts and is_text
        if self._counts is None:
            return
        label = answer.strip()
        if len(label) > LONGEST_LABEL or len(self._counts) > MOST_LABELS:
            self._counts = None
        else:
            self._counts[label] += 1

    def table(self) -> dict[str, int] | None:
        """Rows by label, commonest first; None where the answers are no small set of labels.

        A set of labels is small if it has at least 3 rows a label on average, and two labels.
        """
        few = self._counts is not None and self._rows >= 3 * len(self._counts)
        if not self._counts or len(self._counts) < 2 or not few or not self._texts:
            return None
        return dict(self._counts.most_common())

    def findings(self) -> list[Finding]:
        """Rare labels, a lopsided set, or one answer for all rows."""
        found = []
        if self._counts and len(self._counts) == 1 and self._rows > 1:
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
                        f"{len(rare)} of {len(table)} labels have fewer than {_RARE} rows",
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
                        f"the commonest label has {counts[0]} rows, the rarest {counts[-1]}",
                        "Look at macro-F1 beside accuracy: it weighs all labels alike.",
                    )
                )
        return found
