"""Answers that are lists of labels: a classifier for each label, and one threshold for all."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewise.data.label_lists import LabelLists

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

THRESHOLDS = (0.3, 0.5, 0.4, 0.25, 0.2, 0.15, 0.1, 0.05)
"""Probabilities from which a label is given; the first where there is no dev to choose on."""


class OneVsRest:
    """A logistic regression for each label.

    Args:
        matrix: features of the training rows.
        lists: their labels.
        c: inverse strength of regularisation.
    """

    def __init__(self, matrix: Any, lists: LabelLists, c: float) -> None:
        import numpy as np
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        places = {label: place for place, label in enumerate(lists.labels)}
        wanted = np.zeros((len(lists.rows), len(places)), dtype=np.int8)
        for row, labels in enumerate(lists.rows):
            wanted[row, [places[label] for label in labels]] = 1
        self.lists = lists
        self._model = OneVsRestClassifier(LogisticRegression(C=c, tol=1e-3, max_iter=200))
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # dev decides whether it is good
            warnings.simplefilter("ignore", UserWarning)  # a label that every row has
            self._model.fit(matrix, wanted)

    def probabilities(self, matrix: Any) -> npt.NDArray[np.float64]:
        """Of each row (first axis) and each of ``lists.labels``."""
        import numpy as np

        return np.asarray(self._model.predict_proba(matrix), dtype=np.float64)

    def weights(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Of each label (first axis) and feature, and the intercepts; None where a label is one
        that every row has or none, for which nothing was fitted.
        """
        import numpy as np

        models = self._model.estimators_
        if not all(hasattr(m, "coef_") for m in models):
            return None
        return np.vstack([m.coef_ for m in models]), np.hstack([m.intercept_ for m in models])

    def answers(self, probabilities: npt.NDArray[np.float64], threshold: float) -> list[str]:
        """The labels that reach the threshold, the likeliest first where order is free."""
        found = []
        for row in probabilities:
            order = row.argsort()[::-1]
            given = [self.lists.labels[i] for i in order if row[i] >= threshold]
            if not given and self.lists.never_empty:
                given = [self.lists.labels[order[0]]]
            found.append(self.lists.written(given))
        return found


@dataclass(frozen=True)
class Thresholded:
    """The classifiers with a threshold, as one model that predicts answers."""

    model: OneVsRest
    threshold: float

    def predict(self, matrix: Any) -> list[str]:
        """An answer a row."""
        return self.model.answers(self.model.probabilities(matrix), self.threshold)
