"""A plain classifier, without any language model: often the honest winner.

TF-IDF of words and character n-grams, or static sentence embeddings, with logistic regression.
Where answers are lists of labels, one for each label, and a threshold chosen on dev.
"""

from __future__ import annotations

import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tunewise.candidates.answers import shape_of
from tunewise.candidates.base import NotOfferedError, Traits
from tunewise.candidates.context import BuildContext
from tunewise.candidates.dense import Encoder, load_encoder
from tunewise.candidates.offers import Given, decide
from tunewise.candidates.one_vs_rest import THRESHOLDS, OneVsRest, Thresholded
from tunewise.candidates.plain_files import classifier_files
from tunewise.data.chat import Completion, Example, Progress, Request
from tunewise.data.label_lists import label_lists
from tunewise.scoring.base import Scorer
from tunewise.scoring.best import score_answers
from tunewise.study.schema import CandidateSpec
from tunewise.words import plural, verb

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

C = (1.0, 10.0, 100.0)
"""Inverse strengths of regularisation to choose from; weakest last."""
_ROWS_TO_CHOOSE_C = 20_000
_MOST_WEIGHTS = 5_000_000
_BATCH = 256


def offered(train: Sequence[Example]) -> bool | str:
    """True where the answers are labels of a small set, or lists of them; else why they are not."""
    reason = shape_of(train).reason
    if reason is not None and label_lists(train) is None:
        return reason
    if not any(row.user_text.strip() for row in train):
        return "no training row has text to classify"
    return True


class _TfIdf:
    """Word 1-2-grams and character 3-5-grams, sublinear, as one sparse matrix."""

    name = "tf-idf"

    def __init__(self, texts: Sequence[str], labels: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        most = max(1000, _MOST_WEIGHTS // labels // 2)
        rare = 2 if len(texts) >= 1000 else 1
        common: dict[str, Any] = {"sublinear_tf": True, "min_df": rare, "max_features": most}
        self.parts = [
            # Single characters are words too, here: "C" and "R" are labels' only trace at times.
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **common),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common),
        ]
        fitted = []
        for part in self.parts:
            try:
                fitted.append(part.fit(texts))
            except ValueError:  # no n-gram of this kind in any text
                continue
        self.parts = fitted

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __call__(self, texts: Sequence[str]) -> Any:
        import numpy as np
        from scipy.sparse import hstack

        return hstack([part.transform(texts) for part in self.parts], format="csr").astype(
            np.float32
        )


class Predictor(Protocol):
    """A fitted model."""

    def predict(self, matrix: Any) -> Sequence[str]:
        """The answer to each row of features."""
        ...


class ClassifierFitted:
    """A fitted classifier.

    Attributes:
        dev_completions: its answers to all dev rows, in order; None where dev was empty.
    """

    def __init__(self, features: Any, model: Predictor) -> None:
        self._features = features
        self._model = model
        self._report: Mapping[str, Any] = {}
        self.dev_completions: list[Completion] | None = None

    def request(self, example: Example) -> Request | None:
        return None

    def answer(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Completion]:
        """The most probable label of each row; ``latency_s`` is its batch's time per row."""
        done: list[Completion] = []
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            begin = time.perf_counter()
            labels = self._model.predict(self._features([row.user_text for row in batch]))
            each = (time.perf_counter() - begin) / len(batch)
            done.extend(
                Completion(text=str(label), latency_s=each, finish_reason="stop")
                for label in labels
            )
            if progress is not None:
                progress(len(done), len(examples))
        return done

    def chosen(self) -> Mapping[str, Any]:
        return self._report

    def files(self) -> dict[str, str] | None:
        """Weights and a program that needs no package; None with an encoder's features."""
        parts = getattr(self._features, "parts", None)
        if parts is None:
            return None
        if not isinstance(self._model, Thresholded):
            model: Any = self._model
            return classifier_files(parts, list(model.classes_), model.coef_, model.intercept_)
        lists, found = self._model.model.lists, self._model.model.weights()
        if found is None:
            return None
        told = {
            "threshold": self._model.threshold,
            "never_empty": lists.never_empty,
            "in_order": lists.in_order,
            "separators": lists.separators,
        }
        return classifier_files(parts, list(lists.labels), *found, told)


@dataclass(frozen=True)
class Classifier:
    """Logistic regression; its features and C are chosen on dev."""

    name: str
    scorer: Scorer
    dense: str | None = None
    seed: int = 0
    kind: str = "classifier"
    traits: ClassVar[Traits] = Traits(
        title="the plain classifier", needs_model=False, free=True, complexity=10
    )

    @classmethod
    def from_study(cls, spec: CandidateSpec, context: BuildContext) -> Classifier:
        return cls(spec.name, context.scorer, dense=spec.dense, seed=context.seed)

    @classmethod
    def offer(cls, given: Given) -> tuple[bool, str]:
        labels = offered(given.train)
        against = labels if isinstance(labels, str) else ""
        return decide("the answers are a small set of labels", (labels is True, against))

    def fit(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        progress: Progress | None = None,
    ) -> ClassifierFitted:
        reason = offered(train)
        if isinstance(reason, str):
            raise NotOfferedError(
                f"{self.name}: the answers are not a small set of labels: {reason}",
                hint="Leave the classifier out, or answer with one label a row.",
            )
        rows = [row for row in train if row.answer.strip() and row.user_text.strip()]
        counts = Counter(row.answer.strip() for row in rows)
        most_likely = counts.most_common(1)[0]
        lists = label_lists(rows)
        labels = len(counts) if lists is None else len(lists.labels)
        kinds = self._features(rows, labels)
        total = len(kinds) * len(C) * (1 if lists is None else len(THRESHOLDS))
        tried: list[dict[str, Any]] = []
        leader: tuple[float, ClassifierFitted, dict[str, Any]] | None = None
        sample = self._sample(rows)
        for name, features in kinds:
            for settings, fitted, completions in _fits(features, sample, dev):
                settings = {"features": name, **settings}
                score = self._score(dev, completions)
                tried.append({**settings, "dev_score": score, "dev_rows": len(dev)})
                if leader is None or (score or 0.0) > leader[0]:
                    fitted.dev_completions = completions if dev else None
                    leader = (score or 0.0, fitted, settings)
                if progress is not None:
                    progress(len(tried), total)
        assert leader is not None
        score, fitted, settings = leader
        if len(sample) < len(rows):
            features = dict(kinds)[settings["features"]]
            fitted = ClassifierFitted(features, _model(features, rows, **settings))
            fitted.dev_completions = fitted.answer(dev) if dev else None
            if fitted.dev_completions is not None:
                score = self._score(dev, fitted.dev_completions) or 0.0
        fitted._report = {
            **settings,
            "labels": labels,
            "train_rows": len(rows),
            "majority": {"label": most_likely[0], "share": most_likely[1] / len(rows)},
            "dev_score": score if dev else None,
            "dev_evaluations": len(dev) * len(tried),
            "tried": tried,
            "notes": _notes(train, rows, sample),
        }
        return fitted

    def _features(self, rows: Sequence[Example], labels: int) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        tf_idf = _TfIdf([row.user_text for row in rows], labels)
        if tf_idf:
            found.append((tf_idf.name, tf_idf))
        if self.dense is not None:
            encoder: Encoder = load_encoder(self.dense)
            found.append((self.dense, encoder))
        if not found:
            raise NotOfferedError(f"{self.name}: the training rows hold no words to learn from")
        return found

    def _sample(self, rows: Sequence[Example]) -> list[Example]:
        """Rows enough to choose C: drawn by seed, and one of each label at least."""
        if len(rows) <= _ROWS_TO_CHOOSE_C:
            return list(rows)
        drawn = sorted(rows, key=lambda row: row.id)
        random.Random(self.seed).shuffle(drawn)
        seen = {row.answer.strip(): row for row in drawn}
        kept = {row.id: row for row in (*seen.values(), *drawn[:_ROWS_TO_CHOOSE_C])}
        return list(kept.values())

    def _score(self, dev: Sequence[Example], completions: Sequence[Completion]) -> float | None:
        if not dev:
            return None
        return self.scorer.aggregate(score_answers(self.scorer, dev, completions))


def _fits(
    features: Any, rows: Sequence[Example], dev: Sequence[Example]
) -> Iterator[tuple[dict[str, Any], ClassifierFitted, list[Completion]]]:
    """Each setting, the model with it, and its answers to dev."""
    matrix = features([row.user_text for row in rows])
    lists = label_lists(rows)
    for c in C:
        if lists is None:
            fitted = ClassifierFitted(features, _logistic(c, matrix, rows))
            yield {"c": c}, fitted, fitted.answer(dev)
            continue
        model = OneVsRest(matrix, lists, c)
        begin = time.perf_counter()
        probable = model.probabilities(features([row.user_text for row in dev])) if dev else None
        each = (time.perf_counter() - begin) / max(1, len(dev))
        for threshold in THRESHOLDS:
            answers = [] if probable is None else model.answers(probable, threshold)
            yield (
                {"c": c, "threshold": threshold},
                ClassifierFitted(features, Thresholded(model, threshold)),
                [Completion(text=a, latency_s=each, finish_reason="stop") for a in answers],
            )


def _model(
    features: Any, rows: Sequence[Example], *, c: float, threshold: float | None = None, **_: Any
) -> Predictor:
    """The model of one setting, fitted to all rows."""
    matrix = features([row.user_text for row in rows])
    lists = label_lists(rows)
    if lists is None or threshold is None:
        plain: Predictor = _logistic(c, matrix, rows)
        return plain
    return Thresholded(OneVsRest(matrix, lists, c), threshold)


def _logistic(c: float, matrix: Any, rows: Sequence[Example]) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # A tolerance of 1e-3 halves the time; predictions are the same within a row in a thousand.
    model = LogisticRegression(C=c, tol=1e-3, max_iter=200)
    # More threads make no sparse fit faster, and on a busy machine wait for one another.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # dev decides whether it is good
        model.fit(matrix, [row.answer.strip() for row in rows])
    return model


def _notes(
    train: Sequence[Example], rows: Sequence[Example], sample: Sequence[Example]
) -> list[str]:
    notes = []
    if len(rows) < len(train):
        unused = len(train) - len(rows)
        notes.append(
            f"{plural(unused, 'training row')} without text or answer "
            f"{verb(unused, 'was', 'were')} not used"
        )
    if len(sample) < len(rows):
        notes.append(f"C was chosen with {plural(len(sample), 'training row')}, then all were used")
    return notes
