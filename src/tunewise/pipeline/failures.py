"""Why requests failed, of all that was measured, so that nobody has to read item files for it."""

from __future__ import annotations

from collections.abc import Mapping

from tunewise.pipeline.causes import Part, causes
from tunewise.pipeline.evidence import Arm
from tunewise.pipeline.measured import Measured
from tunewise.report.document import FailureCause

_NOTHING = "no answer is on disk"


def failures_of(measured: Measured) -> list[FailureCause]:
    """Of all candidates, on test or, where it was not opened, on dev; and of the suites."""
    part: Part = "test" if measured.test else "dev"
    found = []
    for arm in (measured.test or measured.dev).values():
        found += _of_arm(arm, part, measured.case.places)
    store = measured.store
    for name in (store.result("forgetting") or {}).get("suites", ()):
        for side in ("base", "tuned"):
            items = store.items(f"{name}.{side}", "forgetting")
            found += causes(f"{name}, {side}", "forgetting", [i.id for i in items], items, {})
    return found


def _of_arm(arm: Arm, part: Part, places: Mapping[str, str]) -> list[FailureCause]:
    """Of an arm's runs together."""
    ids = [id_ for run in arm.items for id_ in arm.ids[: len(run)]]
    answers = [_Missing() if item is None else item for run in arm.items for item in run]
    return causes(arm.name, part, ids, answers, places)


class _Missing:
    error: str | None = _NOTHING
    advice: str | None = None
