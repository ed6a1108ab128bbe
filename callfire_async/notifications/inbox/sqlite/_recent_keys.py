"""`RecentKeys`: the row numbers of the deliveries in the dedupe window, by the hashes of their keys."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field

__all__ = ["MAX_KEYS", "RecentKeys"]

_log = logging.getLogger("callfire_async.inbox")

# About 130 MB.
MAX_KEYS = 1_000_000
# Each part has the keys of a quarter of the window or of the maximum. Whole parts are deleted, once all their keys are
# too old or too many.
_PARTS = 4


@define(eq=False)
class _Part:
    began_at: float
    #: Row numbers by the hashes of their keys.
    ids: dict[int, int] = field(factory=dict)


class RecentKeys:
    """
    The row numbers of the deliveries within the dedupe window, in memory, by the hashes of their keys.

    In the file, an index of keys would change another page for each delivery. Storing a postback over HTTP took 1.25
    times the CPU time, and 1.5 times in a file of a million rows.

    A row that is found here may not exist, or may have another key: its transaction was rolled back, it was deleted, or
    two keys have the same hash. The caller reads the row, and only a row that has the key makes a delivery a duplicate.

    Args:
        path: The file, for the log.
        window: Seconds for which a key is kept.
    """

    def __init__(self, path: Path, window: float) -> None:
        #: Seconds for which a key is kept.
        self.window = window
        #: Whether the keys in the file have been added.
        self.is_loaded = False
        self._path = path
        self._parts: deque[_Part] = deque([_Part(float("-inf"))])
        self._is_overflow_logged = False

    def find(self, keys: Iterable[object]) -> list[int]:
        """Return the numbers of the rows that may have one of these keys."""
        hashes = {hash(key) for key in keys}
        return [part.ids[key] for part in self._parts for key in hashes & part.ids.keys()]

    def add(self, keys: Iterable[object], ids: Iterable[int], now: float) -> None:
        """Add rows that were inserted, in the order of their numbers; remove keys that are too old or too many."""
        newest = self._parts[-1]
        if now - newest.began_at >= self.window / _PARTS or len(newest.ids) >= MAX_KEYS // _PARTS:
            self._parts.append(_Part(now))
            self._forget(now - self.window)
        self._parts[-1].ids.update(zip(map(hash, keys), ids, strict=True))

    def _forget(self, before: float) -> None:
        while len(self._parts) > 1 and self._parts[1].began_at <= before:
            self._parts.popleft()
        while sum(len(part.ids) for part in self._parts) >= MAX_KEYS + MAX_KEYS // _PARTS:
            self._parts.popleft()
            self._log_overflow()

    def _log_overflow(self) -> None:
        if not self._is_overflow_logged:
            self._is_overflow_logged = True
            _log.warning(
                "the inbox %s has received more than %d deliveries within its dedupe_window of %g s: a delivery that is"
                " repeated after that many others is stored and handled again",
                self._path,
                MAX_KEYS,
                self.window,
            )
