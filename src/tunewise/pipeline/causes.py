"""Failed answers by their cause: those that differ in numbers alone are one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from tunewise.report.document import FailureCause

_SHOWN = 5
_NUMBERED = re.compile(r"\S*\d\S*")
_NUMBER = re.compile(r"\d[\d,]*")

Part = Literal["test", "dev", "forgetting"]


class Failed(Protocol):
    """What is read of an item, or of a completion."""

    @property
    def error(self) -> str | None: ...
    @property
    def advice(self) -> str | None: ...


def grouped(answers: Sequence[Failed]) -> list[list[int]]:
    """Places of failed answers by cause, the commonest first; each cause's largest number first.

    Causes are the same where they differ in words with numbers alone, such as lengths and ids.
    """
    groups: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer.error is not None:
            groups.setdefault(_NUMBERED.sub("#", answer.error), []).append(place)

    def size(place: int) -> int:
        found = _NUMBER.search(answers[place].error or "")
        return int(found.group().replace(",", "")) if found else 0

    # Stable: equal ones stay in the rows' order.
    by_size = [sorted(places, key=size, reverse=True) for places in groups.values()]
    return sorted(by_size, key=len, reverse=True)


def causes(
    candidate: str,
    part: Part,
    ids: Sequence[str],
    answers: Sequence[Failed],
    places: Mapping[str, str],
) -> list[FailureCause]:
    """The causes of a candidate's failures on some rows.

    Args:
        ids: of the rows that were asked, one an answer.
        places: of rows in files, by id.
    """
    return [
        FailureCause(
            candidate=candidate,
            measured_on=part,
            count=len(failed),
            of=len(answers),
            cause=answers[failed[0]].error or "",
            rows=[*dict.fromkeys(places.get(ids[i], ids[i]) for i in sorted(failed))][:_SHOWN],
            advice=answers[failed[0]].advice,
        )
        for failed in grouped(answers)
    ]
