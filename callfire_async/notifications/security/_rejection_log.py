"""Counts of rejected requests, and the log lines about them."""

import logging
from collections import Counter
from collections.abc import Callable

__all__ = ["ERRORS", "LINES", "RejectionLog"]

_log = logging.getLogger("callfire_async.receiver")

_INTERVAL_SECONDS = 60.0

# A reason that is not listed is counted and not logged: "method" is harmless, and the receiver logs "not running".
LINES = {
    "token": "responded 404 to requests with a wrong or missing token: %d",
    "encoding": "responded 415 to postbacks with a Content-Encoding, which the receiver does not decode: %d",
    "size": "responded 413 to postbacks larger than max_body_bytes, or than a limit of the framework: %d",
    "time": "responded 408 to postbacks whose body did not arrive within body_timeout: %d",
    "empty": "responded 400 to postbacks with an empty body: %d; if the sender sent a body, a middleware has read it",
    "signature": "responded 401 to postbacks whose signature was wrong, repeated or missing: %d",
    "broken off": "responded 400 to postbacks whose connection was closed before the body was complete: %d",
    "consumed": (
        "responded 503 to postbacks whose body did not reach the receiver completely: %d; a middleware has read it, and"
        " must pass it on or skip the receiver's paths, or the server has dropped it"
    ),
}
# Reasons that mean an error in the application itself.
ERRORS = frozenset(["consumed"])
_NO_BYTES = "; nothing arrived of %d of them: if the sender sent a body, a middleware has read it and not passed it on"
# Appended to a line if at least one of its requests needs the explanation.
_HINTS = {
    "token": (
        "; the token of %d of them contains a slash: a path with further segments counts as a wrong token, so mount"
        " the application at the path in front of the token, or let the proxy remove that path"
    ),
    "time": _NO_BYTES,
    "broken off": _NO_BYTES,
}


class RejectionLog:
    """
    Counts rejections and logs their number, at most once a minute for each reason, without any part of the requests.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        #: Number of rejected requests, by reason.
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._unlogged: Counter[str] = Counter()
        self._hints: Counter[str] = Counter()
        self._next_log_at: dict[str, float] = {}

    def add(self, reason: str, *, needs_hint: bool = False) -> None:
        """Count a rejection; log the reasons that were not logged during the last minute."""
        self.counts[reason] += 1
        if reason in LINES:
            self._unlogged[reason] += 1
            self._hints[reason] += needs_hint
        now = self._clock()
        for pending in [*self._unlogged]:
            if now >= self._next_log_at.get(pending, now):
                self._next_log_at[pending] = now + _INTERVAL_SECONDS
                self._write(pending)

    def _write(self, reason: str) -> None:
        level = logging.ERROR if reason in ERRORS else logging.WARNING
        line, numbers = LINES[reason], [self._unlogged.pop(reason)]
        if hints := self._hints.pop(reason):
            line, numbers = line + _HINTS[reason], [*numbers, hints]
        _log.log(level, line, *numbers)
