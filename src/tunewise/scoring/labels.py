"""Metrics of classification: the answer is one of a set of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from tunewise.scoring.answers import AnswerScorer, mean
from tunewise.scoring.base import ItemScore
from tunewise.scoring.normalize import squash
from tunewise.scoring.resampling import resampled_sums

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_AROUND = " \t\r\n\"'`*“”‘’«»"
_AFTER = _AROUND + ".,;:!。"


def label_of(text: str) -> str:
    """A label without case, quotes or emphasis around it, and punctuation after it."""
    squashed = squash(text)
    return squashed.lstrip(_AROUND).rstrip(_AFTER) or squashed


class _Labels(AnswerScorer):
    def compare(self, gold: str, answer: str) -> ItemScore:
        """1 or 0; ``data`` holds both labels."""
        wanted, given = label_of(gold), label_of(answer)
        return ItemScore(
            float(wanted == given), {"predicted": given}, {"gold": wanted, "predicted": given}
        )

    def failed(self, gold: str, reason: str) -> ItemScore:
        """0; the row counts as one without a predicted label."""
        data = {"gold": label_of(gold), "predicted": None}
        return ItemScore(0.0, {"reason": reason}, data)


@dataclass(frozen=True)
class Accuracy(_Labels):
    """Share of right labels; macro-F1 is reported beside it."""

    name: ClassVar[str] = "accuracy"
    binary: ClassVar[bool] = True

    def figures(self, items: Sequence[ItemScore]) -> Mapping[str, float]:
        """``macro_f1`` of the items that hold labels."""
        labelled = [item for item in items if item.data is not None]
        return {"macro_f1": MacroF1().aggregate(labelled)} if labelled else {}


@dataclass(frozen=True)
class MacroF1(_Labels):
    """Mean of the F1 of each label, rare labels counting as much as frequent ones.

    The labels are those of the wanted answers in the set: a model that invents a label loses the
    row that it should have found, and the number of classes does not depend on its inventions.
    (``sklearn.metrics.f1_score(gold, predicted, labels=unique(gold), average="macro")``.)
    """

    name: ClassVar[str] = "macro_f1"
    corpus: ClassVar[bool] = True

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        """Macro-F1 of the set, in 0..1."""
        import numpy as np

        if not items:
            return 0.0
        return float(self.aggregate_indices(items, np.arange(len(items))[None, :])[0])

    def aggregate_indices(
        self, items: Sequence[ItemScore], index_matrix: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Macro-F1 of each picked set, shape (sets,)."""
        import numpy as np
        from scipy.sparse import csr_array

        places = {label: k for k, label in enumerate(dict.fromkeys(i.data["gold"] for i in items))}
        classes, rows = len(places), np.arange(len(items))
        gold = np.array([places[i.data["gold"]] for i in items])
        given = np.array([places.get(i.data["predicted"], -1) for i in items])
        known, right = given >= 0, given == gold
        # Columns: wanted, then given, then both, each by label.
        row = np.concatenate([rows, rows[known], rows[right]])
        column = np.concatenate([gold, classes + given[known], 2 * classes + gold[right]])
        table = csr_array((np.ones(len(row)), (row, column)), shape=(len(items), 3 * classes))
        sums = resampled_sums(table, index_matrix)
        wanted, named, hits = np.split(sums, 3, axis=1)
        f1 = 2 * hits / np.maximum(wanted + named, 1)
        present = wanted > 0
        return np.asarray((f1 * present).sum(axis=1) / present.sum(axis=1), dtype=np.float64)

    def figures(self, items: Sequence[ItemScore]) -> Mapping[str, float]:
        """``accuracy``."""
        return {"accuracy": mean(items)}
