"""
What was buried, said aloud.

This module imports nothing of the package.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["DeadLetterLog"]

_log = logging.getLogger("callfire_async.dead_letters")

_UNHEALTHY_SECONDS = 15 * 60.0
_LOGGED_A_MINUTE = 10


class DeadLetterLog:
    """Says aloud what was buried, and remembers when that was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = float("-inf")
        self._minute = float("-inf")
        self._logged = 0
        self._unlogged = 0

    @property
    def has_recent(self) -> bool:
        """Whether something was buried within the last quarter of an hour."""
        return self._clock() - self._last < _UNHEALTHY_SECONDS

    def note(self, id: int | str, reason: str) -> None:
        """Log a burial; of more than ten a minute only how many there were."""
        self._last = self._clock()
        if self._last - self._minute >= 60:
            self.flush()
            self._minute, self._logged = self._last, 0
        self._logged += 1
        if self._logged > _LOGGED_A_MINUTE:
            self._unlogged += 1
        else:
            _log.error("delivery %s became a dead letter: %s", id, reason)

    def flush(self) -> None:
        """Log how many burials were not logged one by one."""
        if self._unlogged:
            _log.error("%d more deliveries became dead letters within a minute", self._unlogged)
        self._unlogged = 0

    def look(self) -> None:
        """Log what was not, once its minute is over."""
        if self._clock() - self._minute >= 60:
            self.flush()
