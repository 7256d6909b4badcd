"""The test rows with all answers, for the page: read back from disk, nothing is scored again."""

from __future__ import annotations

from typing import Any

from tunewise.pipeline.breakdown import values_of
from tunewise.pipeline.explain import shown_answer, shown_input, shown_wanted
from tunewise.pipeline.measured import Case
from tunewise.pipeline.store import Item
from tunewise.report.document import Verdict
from tunewise.report.rows import RowAnswer, TestRow, TestRows


def browsed_rows(case: Case, verdict: Verdict) -> TestRows | None:
    """All rows of the opened test; None where it was not opened, or rows have no text.

    Of several seeds the first one's answers are shown.
    """
    if not case.examples or verdict.test.opened is None:
        return None
    items: dict[str, dict[str, Item]] = {}
    for spec in case.specs:
        for item in case.store.items(spec.name, "test"):
            items.setdefault(spec.name, {}).setdefault(item.id, item)
    pair = (verdict.primary.with_, verdict.primary.without)
    scores = {c.name: -1.0 if c.score is None else c.score for c in verdict.candidates}
    # Those that decide first, then the best first.
    names = sorted(items, key=lambda n: (n not in pair, pair.index(n) if n in pair else -scores[n]))
    rows = []
    for id_, example in case.examples.items():
        given = {name: found[id_] for name, found in items.items() if id_ in found}
        answers = {
            name: RowAnswer(shown_answer(item), item.points, _label(item, "predicted"))
            for name, item in given.items()
        }
        wanted = {_label(item, "gold") for item in given.values()}
        rows.append(
            TestRow(
                id=id_,
                input=shown_input(example),
                wanted=shown_wanted(example),
                answers=answers,
                # Of several right answers metrics name the one that each answer was held against.
                label=wanted.pop() if len(wanted) == 1 else None,
                slices={c: values_of(case.study, example, c) for c in case.study.slices},
            )
        )
    one, other = pair
    return TestRows(
        rows=rows,
        candidates=names,
        pair=(one, other) if one in items and other in items and one and other else None,
        place=str(case.store.folder.items),
    )


def _label(item: Item, side: str) -> str | None:
    data: Any = item.data
    found = data.get(side) if isinstance(data, dict) else None
    return found if isinstance(found, str) else None
