"""Can the model be asked what the rows hold? Known at G0, before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tunewise.candidates.prompting import Prompting
from tunewise.data.chat import Example
from tunewise.errors import DataError
from tunewise.models.engine import Engine, Foreseeing
from tunewise.models.names import parse_model
from tunewise.pipeline.session import Session
from tunewise.words import plural, some_of

MOST = 0.1
"""Share of rows that no answer can come to, above which a score would be of something else."""
_SHOWN = 5


def askable_stage(session: Session) -> list[str]:
    """Whether the base model can be asked the rows at all; of served models nothing is known.

    Returns:
        Warnings, also kept in the stage ``askable``.

    Raises:
        DataError: see ``unaskable``.
    """
    model = session.study.model
    asking = [spec for spec in session.specs if spec.traits.needs_model]
    if model is None or not asking or not parse_model(model, session.study.servers).is_local:
        return []

    def work() -> dict[str, Any]:
        context = session.context(asking[0])
        prompt = context.prompts[0] if context.prompts else None
        prompting = Prompting.from_rows(session.train, context.limits, prompt)
        rows = [*session.dev, *session.test]
        return unaskable(session.engine(model), prompting, rows)

    result = session.store.stage("askable", "G0", session.inputs.askable(asking[0]), work)
    return list(result["warnings"])


def unaskable(engine: Engine, prompting: Prompting, rows: Sequence[Example]) -> dict[str, Any]:
    """The rows that cannot be asked, as JSON values: in their place a failed answer would stand.

    Args:
        prompting: the shortest way to ask; with examples or passages a prompt only grows.
        rows: those that will be asked.

    Raises:
        DataError: more than a tenth of them; names the first, and what is wrong with each kind.
    """
    if not isinstance(engine, Foreseeing):
        return {"warnings": []}
    reasons = engine.why_not([prompting.request(row) for row in rows])
    if not reasons:
        return {"warnings": []}
    places = [rows[i].source or rows[i].id for i in sorted(reasons)]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    listed = ", ".join(places[:_SHOWN]) + more
    kinds = Counter(reasons.values()).most_common()
    why = "; ".join(text if n == 1 else f"{text} ({n} times)" for text, n in kinds[:3])
    told = some_of(len(reasons), len(rows), "row", "has", "have")
    if len(reasons) > MOST * len(rows):
        raise DataError(
            f"{told} a prompt that {engine.model} cannot be asked ({listed}): {why}",
            where=places[0],
            hint="Use a model whose chat template and context take such rows, or take them out.",
        )
    return {
        "unaskable": {rows[i].id: reason for i, reason in sorted(reasons.items())},
        "warnings": [
            f"{plural(len(reasons), 'row')} cannot be asked, and every answer to "
            f"{'it' if len(reasons) == 1 else 'them'} counts as wrong ({listed}): {why}."
        ],
    }
