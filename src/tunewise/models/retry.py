"""How long a failed request is repeated."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Exponential backoff with full jitter, and an end.

    Attributes:
        attempts: most attempts for one request.
        total_s: most seconds from the first attempt to the last.
        first_s: mean of the first pause, doubled each time; at most ``longest_s``.
    """

    attempts: int = 8
    total_s: float = 300.0
    first_s: float = 1.0
    longest_s: float = 30.0

    def start(self) -> Attempts:
        return Attempts(self)


class Attempts:
    """The attempts of one request."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began = time.monotonic()
        self.count = 0

    def next_pause(self, wanted: float | None = None) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            wanted: what the server asked for; never undercut.
        """
        self.count += 1
        if self.count >= self._patience.attempts:
            return None
        mean = min(self._patience.first_s * 2 ** (self.count - 1), self._patience.longest_s)
        # Spread, so that many clients turned away together do not come back together.
        pause = random.uniform(0.5, 1.5) * mean
        if wanted is not None:
            pause = max(wanted + random.uniform(0, 0.1) * mean, min(pause, wanted))
        left = self._patience.total_s - (time.monotonic() - self._began)
        return pause if pause <= left else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3; milliseconds by OpenAI)."""
    milliseconds = headers.get("retry-after-ms")
    text = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(text or "").timestamp()
    except ValueError:
        return None
    try:  # by the server's own clock: ours may be wrong
        now = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        now = time.time()
    return max(0.0, when - now)
