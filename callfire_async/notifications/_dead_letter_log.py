"""Logs dead letters, rate-limited."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["DeadLetterLog"]

_log = logging.getLogger("callfire_async.dead_letters")

_RECENT_SECONDS = 15 * 60.0
_MAX_LOGGED_PER_MINUTE = 10


class DeadLetterLog:
    """Logs each dead letter, at most ten a minute, and records the time of the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_at = float("-inf")
        self._minute_started_at = float("-inf")
        self._logged_count = 0
        self._suppressed_count = 0

    @property
    def has_recent(self) -> bool:
        """Whether a dead letter was recorded within the last 15 minutes."""
        return self._clock() - self._last_at < _RECENT_SECONDS

    def record(self, id: int | str, reason: str) -> None:
        """Log a dead letter; count it instead if ten were logged within the minute."""
        self._last_at = self._clock()
        if self._last_at - self._minute_started_at >= 60:
            self.flush()
            self._minute_started_at, self._logged_count = self._last_at, 0
        self._logged_count += 1
        if self._logged_count > _MAX_LOGGED_PER_MINUTE:
            self._suppressed_count += 1
        else:
            _log.error("delivery %s became a dead letter: %s", id, reason)

    def flush(self) -> None:
        """Log how many dead letters were not logged one by one."""
        if self._suppressed_count:
            _log.error("%d more deliveries became dead letters within a minute", self._suppressed_count)
        self._suppressed_count = 0

    def flush_if_due(self) -> None:
        """Flush if the minute is over."""
        if self._clock() - self._minute_started_at >= 60:
            self.flush()
