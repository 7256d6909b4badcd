"""The gain by slices of the test rows and by further metrics: exploratory, beside what decides.

Nothing is asked or trained for it: the answers that the test gave are grouped by columns of their
rows, and scored again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError
from tunewise.pipeline.evidence import Arm, Bench
from tunewise.pipeline.measure import scored_items
from tunewise.report.document import BreakdownRow
from tunewise.scoring.base import Scorer
from tunewise.scoring.registry import get_scorer
from tunewise.study.schema import Study
from tunewise.verdict.result import PairedComparison
from tunewise.words import plural

FEWEST_ROWS = 10
"""A slice of fewer rows is counted, not compared."""

MOST_SLICES = 30
"""Of one column; a column of more values than that (ids, texts) is no way to group rows."""


def further_scorers(study: Study) -> tuple[tuple[str, Scorer], ...]:
    """The metrics of ``also`` by the names under which they are shown.

    Raises:
        StudyError: one is not installed, refuses its options, or asks a model.
    """
    found = []
    for place, metric in enumerate(study.also):
        if any(_names_a_model(value) for value in metric.options.items()):
            raise StudyError(
                f"`{metric.name}` asks a model; further metrics score the answers that are there",
                where=f"also.{place}",
                hint="Make it the study's `metric`, or leave it out.",
            )
        try:
            scorer = get_scorer(metric.name, metric.options)
        except StudyError as error:
            where = (error.where or "metric").replace("metric", f"also.{place}", 1)
            raise StudyError(error.message, where=where, hint=error.hint) from None
        told = ", ".join(f"{k}={v}" for k, v in metric.options.items())
        found.append((f"{metric.name} ({told})" if told else metric.name, scorer))
    return tuple(found)


def _names_a_model(option: tuple[str, Any]) -> bool:
    key, value = option
    if isinstance(value, Mapping):
        return any(map(_names_a_model, value.items()))
    if isinstance(value, list):
        return any(_names_a_model((key, inner)) for inner in value if isinstance(inner, Mapping))
    return key == "model" and isinstance(value, str)


def check_slices(study: Study, test: Sequence[Example]) -> None:
    """Refuse a column that no test row has, before anything is asked.

    Raises:
        StudyError: naming the columns that there are.
    """
    for place, column in enumerate(study.slices):
        if any(values_of(study, row, column) for row in test):
            continue
        known = sorted({str(key) for row in test for key in row.metadata})
        raise StudyError(
            f"no test row has the column {column!r}",
            where=f"slices.{place}",
            hint=f"Their further columns: {', '.join(known)}."
            if known
            else "The test rows have no further columns; give rows that have it as `data.test`.",
        )


def values_of(study: Study, row: Example, column: str) -> list[str]:
    """What a row has in a column; of a list each entry."""
    value = row.group if column == study.data.columns.group else row.metadata.get(column)
    entries = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(_shown(entry) for entry in entries if entry is not None))


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or "(empty)"


def breakdown(
    bench: Bench,
    with_: Arm,
    without: Arm,
    rows: Mapping[str, Example],
    also: Sequence[tuple[str, Scorer]],
) -> tuple[list[BreakdownRow], list[str]]:
    """The champions' gain in each slice and by each further metric; and what is not shown.

    Args:
        bench: with the level of this look at the test.
        with_, without: on the same test rows.
        rows: the test rows by id.
        also: from ``further_scorers``.
    """
    found: list[tuple[BreakdownRow, PairedComparison]] = []
    notes: list[str] = []
    for column in bench.study.slices:
        shown, left = _slices(bench.study, with_.ids, rows, column)
        for value, places in shown:
            keep = np.zeros(len(with_.ids), dtype=bool)
            keep[places] = True
            pair = bench.compare(with_.rows(keep), without.rows(keep))
            found.append((_row("slice", column, value, pair), pair))
        notes += left
    for name, scorer in also:
        arms = [_scored_again(arm, rows, scorer) for arm in (with_, without)]
        if arms[0] is None or arms[1] is None:
            notes.append(f"{name}: there are no answers to score, only scores.")
            continue
        pair = replace(bench, scorer=scorer).compare(arms[0], arms[1])
        found.append((_row("metric", name, None, pair), pair))
    return _adjusted(found), notes


def _slices(
    study: Study, ids: Sequence[str], rows: Mapping[str, Example], column: str
) -> tuple[list[tuple[str, list[int]]], list[str]]:
    """The values of a column with the places of their rows, most rows first; what is left out."""
    by_value: dict[str, list[int]] = {}
    for place, id_ in enumerate(ids):
        for value in values_of(study, rows[id_], column) if id_ in rows else []:
            by_value.setdefault(value, []).append(place)
    ranked = sorted(by_value.items(), key=lambda item: (-len(item[1]), item[0]))
    large = [item for item in ranked if len(item[1]) >= FEWEST_ROWS]
    notes = []
    small = len(ranked) - len(large)
    if small:
        notes.append(
            f"{column}: {plural(small, 'value')} with fewer than {FEWEST_ROWS} rows not compared."
        )
    if len(large) > MOST_SLICES:
        more = plural(len(large) - MOST_SLICES, "further value")
        notes.append(f"{column}: {more} not compared, the {MOST_SLICES} commonest are.")
    return large[:MOST_SLICES], notes


def _scored_again(arm: Arm, rows: Mapping[str, Example], scorer: Scorer) -> Arm | None:
    """The same answers by another metric; None where scores alone were recorded."""
    if any(item.details.get("recorded") for item in arm.answered()):
        return None
    if any(id_ not in rows for id_ in arm.ids):
        return None
    runs = []
    for run in arm.items:
        there = [item for item in run if item is not None]
        answers = [
            Completion(text=i.answer, tool_calls=tuple(i.tool_calls), error=i.error) for i in there
        ]
        examples = [rows[item.id] for item in there]
        again = scored_items(arm.name, "test", examples, answers, scorer)
        by_id = {item.id: item for item in again}
        runs.append(tuple(by_id.get(id_) for id_ in arm.ids))
    scores = np.array([[0.0 if i is None else i.score for i in run] for run in runs])
    return Arm(arm.spec, arm.ids, scores, tuple(runs))


def _row(kind: str, name: str, value: str | None, pair: PairedComparison) -> BreakdownRow:
    return BreakdownRow.model_validate(
        {
            "kind": kind,
            "name": name,
            "value": value,
            "n": pair.n,
            "with": pair.with_score,
            "without": pair.without_score,
            "gain": pair.gain,
            "interval": (pair.low, pair.high),
            "worse": pair.high < 0 and not pair.too_few_clusters,
        }
    )


def _adjusted(found: Sequence[tuple[BreakdownRow, PairedComparison]]) -> list[BreakdownRow]:
    """With p-values adjusted for their number (Benjamini & Hochberg 1995)."""
    if not found:
        return []
    from scipy.stats import false_discovery_control

    p = [1.0 if np.isnan(pair.p_value) else pair.p_value for _, pair in found]
    adjusted = false_discovery_control(p, method="bh")
    return [
        row.model_copy(update={"p_adjusted": float(q)})
        for (row, _), q in zip(found, adjusted, strict=True)
    ]


def worse_sentences(rows: Sequence[BreakdownRow], candidate: str) -> list[str]:
    """What got worse beyond its interval, for beside the headline."""
    found = []
    for row in rows:
        if row.worse and row.interval is not None:
            what = row.name if row.value is None else f"{row.name} = {row.value}"
            found.append(
                f"{candidate} is worse by {-row.gain:.1f} points "
                f"({-row.interval[1]:.1f} to {-row.interval[0]:.1f}) "
                f"{'by' if row.kind == 'metric' else 'where'} {what} ({plural(row.n, 'row')}; "
                f"exploratory, adjusted p {_p(row.p_adjusted)})."
            )
    return found


def _p(value: float | None) -> str:
    return "unknown" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
