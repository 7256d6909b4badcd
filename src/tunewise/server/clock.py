"""What time it surely is, on a machine whose clock may jump.

Times that are told and stored are the system's. What is removed or given up for good because its
time has come goes by ``surely``, so that a clock that was set wrong by a year, and is set right
again, has removed nothing.
"""

from __future__ import annotations

import logging
import threading
import time

HOLD_SECONDS = 3600.0
"""A clock that jumped ahead is believed after this, in seconds that passed."""
_JUMP_SECONDS = 60.0
"""Further apart than this, the clock was set; below, it was only kept in step."""

log = logging.getLogger("tunewise.server")


class Clock:
    """The system's clock, held against seconds that passed.

    A clock that jumps back is believed at once: then less has expired, not more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wall, self._passed = time.time(), _passed()
        self._ahead_since: float | None = None

    def surely(self) -> int:
        """Seconds since 1970 that have surely passed: the system's time, or where that jumped ahead
        less than ``HOLD_SECONDS`` ago, what it would be without the jump."""
        with self._lock:
            wall, passed = time.time(), _passed()
            expected = self._wall + passed - self._passed
            if wall - expected <= _JUMP_SECONDS:
                if self._ahead_since is not None:
                    log.warning("the system's clock was set back; it is believed again")
            elif self._ahead_since is None:
                self._ahead_since = passed
                log.warning(
                    "the system's clock jumped ahead by %d s; what expires by it is kept for "
                    "another %d s", wall - expected, HOLD_SECONDS,
                )  # fmt: skip
                return int(expected)
            elif passed - self._ahead_since < HOLD_SECONDS:
                return int(expected)
            self._wall, self._passed, self._ahead_since = wall, passed, None
            return int(wall)


def _passed() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine sleeps, where there is
    one."""
    boot: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


_CLOCK = Clock()
surely = _CLOCK.surely
