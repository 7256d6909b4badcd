"""A study that was loaded from Python: it prints and shows itself."""

from __future__ import annotations

from dataclasses import dataclass

from tunewise.python.cards import study_card, study_facts
from tunewise.study.loading import LoadedStudy


@dataclass(frozen=True, slots=True, repr=False)
class Studied(LoadedStudy):
    """A loaded study; ``study`` has its keys as attributes."""

    def __str__(self) -> str:
        facts = study_facts(self.raw)
        width = max((len(key) for key, _ in facts), default=0)
        return "\n".join(f"{key:<{width}}  {value}" for key, value in facts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from tunewise.report.card import render_card

        return render_card(study_card(self))
