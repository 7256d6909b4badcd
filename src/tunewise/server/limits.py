"""Requests per minute of each key, and what each key used."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import update

from tunewise.server.access import Caller
from tunewise.server.database import Sessions, now, writing
from tunewise.server.errors import ApiError
from tunewise.server.tables import ApiKey


@dataclass(slots=True)
class _Bucket:
    level: float
    filled_at: float


class Limiter:
    """A token bucket for each key: a minute's requests may come at once, then one by one."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, caller: Caller) -> None:
        """Count one request.

        Raises:
            ApiError: 429 with ``Retry-After``, the minute's requests are used up.
        """
        limit = caller.requests_per_minute
        if limit is None or caller.key_id is None:
            return
        moment = time.monotonic()
        with self._lock:
            bucket = self._buckets.setdefault(caller.key_id, _Bucket(limit, moment))
            grown = bucket.level + (moment - bucket.filled_at) * limit / 60
            bucket.level, bucket.filled_at = min(float(limit), grown), moment
            if bucket.level >= 1:
                bucket.level -= 1
                return
            wait = (1 - bucket.level) * 60 / limit
        raise ApiError(
            429,
            f"Rate limit reached for this API key: {limit} requests per minute. "
            f"Please try again in {wait:.1f}s.",
            type="requests",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(math.ceil(wait)), "x-ratelimit-limit-requests": str(limit)},
        )


@dataclass(slots=True)
class _Used:
    at: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def take(self, other: _Used) -> None:
        """Add what another one holds."""
        self.at = max(self.at, other.at)
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


class Usage:
    """What keys used, gathered in memory and written by :meth:`flush`, so that no answer waits.

    A killed server forgets the last seconds of it.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._used: dict[str, _Used] = defaultdict(_Used)
        self._lock = threading.Lock()

    def add(
        self,
        caller: Caller,
        *,
        requests: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> None:
        """Count for the caller's key."""
        if caller.key_id is None:
            return
        with self._lock:
            used = self._used[caller.key_id]
            used.at = now()
            used.requests += requests
            used.prompt_tokens += prompt_tokens
            used.completion_tokens += completion_tokens

    def flush(self) -> None:
        """Write what was gathered."""
        with self._lock:
            gathered, self._used = self._used, defaultdict(_Used)
        if not gathered:
            return
        try:
            self._write(gathered)
        except Exception:  # for instance a full disk: it is written the next time
            with self._lock:
                for key, used in gathered.items():
                    self._used[key].take(used)
            raise

    def _write(self, gathered: Mapping[str, _Used]) -> None:
        with writing(self._sessions) as session:
            for key, used in gathered.items():
                session.execute(
                    update(ApiKey)
                    .where(ApiKey.id == key)
                    .values(
                        last_used_at=used.at,
                        requests=ApiKey.requests + used.requests,
                        prompt_tokens=ApiKey.prompt_tokens + used.prompt_tokens,
                        completion_tokens=ApiKey.completion_tokens + used.completion_tokens,
                    )
                )
