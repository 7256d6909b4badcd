"""Put on PYTHONPATH, this folder gives each Python process the date in the file FAKE_TODAY."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from types import SimpleNamespace


class FakeDate(dt.date):
    """A date whose today is what the file says."""

    @classmethod
    def today(cls) -> FakeDate:
        return cls.fromisoformat(Path(os.environ["FAKE_TODAY"]).read_text().strip())


CLOCK = SimpleNamespace(date=FakeDate, datetime=dt.datetime, time=dt.time)

if "FAKE_TODAY" in os.environ:
    from tunewise.models import template_date

    template_date.dt = CLOCK  # type: ignore[assignment]
