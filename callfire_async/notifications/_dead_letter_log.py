"""Logs dead letters and failed claims, rate-limited."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["DeadLetterLog", "FailedClaimLog"]

_log = logging.getLogger("callfire_async.dead_letters")
_worker_log = logging.getLogger("callfire_async.worker")

_RECENT_SECONDS = 15 * 60.0
_MAX_LOGGED_PER_MINUTE = 10


class DeadLetterLog:
    """Logs each dead letter, at most ten a minute, and knows when the last one was recorded."""

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


class FailedClaimLog:
    """Logs why claims fail; the same cause at most once a minute, because each claim of an outage fails."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cause = ""
        self._logged_at = float("-inf")

    def record(self, cause: str, retry_interval: float) -> None:
        """Log a cause, unless it was logged within the last minute."""
        if cause != self._cause or self._clock() - self._logged_at >= 60:
            self._cause, self._logged_at = cause, self._clock()
            _worker_log.error("cannot claim deliveries, retrying in %g s: %s", retry_interval, cause)

    def clear(self) -> None:
        """Log the next cause at once, because a claim has succeeded."""
        self._cause = ""
