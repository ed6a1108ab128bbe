"""Logs why deliveries cannot be claimed, rate-limited."""

import logging
import time
from collections.abc import Callable

__all__ = ["FailedClaimLog"]

_log = logging.getLogger("callfire_async.worker")

_SECONDS_BETWEEN_REPEATS = 60.0


class FailedClaimLog:
    """Logs the cause of failed claims, the same one at most once a minute, because each claim of an outage fails."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cause = ""
        self._logged_at = float("-inf")

    def record(self, cause: str, retry_interval: float) -> None:
        """Log a cause, unless it was logged within the last minute."""
        if cause != self._cause or self._clock() - self._logged_at >= _SECONDS_BETWEEN_REPEATS:
            self._cause, self._logged_at = cause, self._clock()
            _log.error("cannot claim deliveries, retrying in %g s: %s", retry_interval, cause)

    def clear(self) -> None:
        """Log that an outage is over, if there was one."""
        if self._cause:
            self._cause = ""
            _log.warning("deliveries can be claimed again")
